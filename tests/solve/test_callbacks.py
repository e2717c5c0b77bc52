"""Callbacks see each step, steer, and lose nothing when they fail; Ctrl-C neither."""

import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.interrupted import START, residual, solve, told

AT_ONCE = jnp.asarray(0)


@pytest.fixture(scope="module")
def reference():
    return solve()


def same(a, b):
    """Bit for bit, all but the time."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


class Diary(gramlm.extend.AbstractCallback):
    """Notes what it is told."""

    def __init__(self):
        self.beginnings, self.events, self.endings = [], [], []

    def start(self, beginning):
        self.beginnings.append(beginning)

    def __call__(self, event):
        self.events.append(event)

    def end(self, ending):
        self.endings.append(ending)


def test_each_step_is_told_as_it_was(reference):
    diary = Diary()
    solution = solve(callback=diary, max_evaluations=500)
    same(told(solution), told(reference))
    (beginning,), events, (ending,) = diary.beginnings, diary.events, diary.endings
    history = solution.history
    assert (beginning.step, beginning.plan) == (0, solution.plan)
    assert beginning.compiled
    assert [event.step for event in events] == [*range(1, len(history.damping) + 1)]
    np.testing.assert_array_equal([event.cost for event in events], history.cost[1:])
    np.testing.assert_array_equal([event.info.damping for event in events], history.damping)
    for event in events:
        np.testing.assert_allclose(
            0.5 * jnp.sum(residual(event.params, AT_ONCE) ** 2), event.cost, atol=1e-25
        )
        assert event.remaining.steps == 1000 - event.step
        assert event.remaining.seconds is None
        assert int(event.state.step) == event.step
    np.testing.assert_allclose([event.seconds for event in events], history.seconds, atol=0.1)
    left = [event.remaining.evaluations for event in events]
    assert left[-1] == 500 - solution.stats["num_evaluations"] > 0
    assert events[-1].remaining.fraction == left[-1] / 500
    assert ending.step == events[-1].step
    assert gramlm.CRITERIA[solution.stats["criterion"]] in str(ending)


@pytest.mark.parametrize(
    ("progress", "stream"), [(True, "out"), (gramlm.ProgressBar(), "err")], ids=["lines", "bar"]
)
def test_it_is_said_that_a_solve_is_being_compiled(progress, stream, capsys):
    traces, at_start = [], []

    def fresh(t):
        traces.append(1)
        return t**2 - 2

    class First(Diary):
        def start(self, beginning):
            super().start(beginning)
            at_start.append(len(traces))

    diary = First()
    for compiled in (False, True):
        gramlm.solve(fresh, jnp.ones(2), verbose=progress, callback=diary)
        shown = getattr(capsys.readouterr(), stream)
        assert ("compiling…" in shown) != compiled
        assert diary.beginnings[-1].compiled == compiled
    # It was said before any step was traced.
    assert at_start[0] < at_start[1] == len(traces)


def test_a_stop_on_purpose_raises_nothing_and_can_be_continued(reference):
    few = solve(max_steps=4, throw=False)
    solution = solve(callback=lambda event: gramlm.Stop("enough") if event.step == 4 else None)
    assert solution.result == gramlm.RESULTS.stopped
    assert solution.reason == "enough"
    same(told(solution), told(few))
    for left in (solution, few):
        same(told(solve(resume=left)), told(reference))
    # One that has ended is as it was.
    same(told(solve(resume=reference)), told(reference))


def test_several_callbacks_are_heeded_together():
    order = []

    def first(event):
        order.append("first")
        return [gramlm.SetDamping(7.0), gramlm.SetDamping(50.0)]

    def second(event):
        order.append("second")
        return gramlm.Stop("a") if event.step == 2 else None

    solution = solve(
        callback=[first, second, lambda event: gramlm.Stop("b") if event.step > 1 else None]
    )
    assert order == ["first", "second"] * 2
    assert solution.reason == "a"
    assert solution.history.damping[1] == 50.0


@pytest.mark.parametrize("answer", [3, "stop", [gramlm.Stop(), 1], True])
def test_any_other_answer_is_an_error_that_says_what_may_be_returned(answer):
    with pytest.raises(gramlm.SolveError, match=r"gramlm.Stop") as caught:
        solve(callback=lambda event: answer)
    assert isinstance(caught.value.__cause__, TypeError)
    assert caught.value.solution.stats["num_steps"] == 1


def test_an_exception_in_a_callback_keeps_what_was_found(reference, capsys):
    def fails(event):
        if event.step == 3:
            raise LookupError("no such thing")

    diary = Diary()
    with pytest.raises(gramlm.SolveError, match="LookupError: no such thing") as caught:
        solve(callback=[fails, diary])
    assert isinstance(caught.value.__cause__, LookupError)
    assert len(diary.events) == 2
    assert [ending.step for ending in diary.endings] == [3]
    solution = caught.value.solution
    assert solution.result == gramlm.RESULTS.callback_failed
    assert solution.stats["cost"] == reference.history.cost[3]
    same(told(solve(resume=solution)), told(reference))
    capsys.readouterr()
    quiet = solve(callback=fails, throw=False)
    assert "no such thing" in capsys.readouterr().err
    same(told(quiet), told(solution))


@pytest.mark.parametrize("moment", ["start", "end"])
def test_a_beginning_or_an_end_that_fails_loses_nothing_either(moment, reference):
    diary = Diary()

    def fails(_):
        raise OSError("disk full")

    setattr(diary, moment, fails)
    with pytest.raises(gramlm.SolveError, match="disk full") as caught:
        solve(callback=diary)
    solution = caught.value.solution
    if moment == "start":
        assert solution.stats["num_steps"] == 0
        np.testing.assert_array_equal(solution.value, START)
        np.testing.assert_array_equal(solution.history.cost, reference.history.cost[:1])
    else:
        same(told(solution), told(reference))
    same(told(solve(resume=solution)), told(reference))


def test_an_error_in_the_residual_ends_the_callbacks_and_is_raised_as_it_is(capfd):
    def fragile(t):
        return eqx.error_if(t - 3, jnp.abs(t) > 2, "too far out")

    diary = Diary()
    with pytest.raises(eqx.EquinoxRuntimeError, match="too far out"):
        gramlm.solve(fragile, jnp.zeros(2), callback=diary)
    assert diary.endings == [None]
    assert capfd.readouterr().err == ""


def test_what_is_no_callback_is_named():
    for bad in (gramlm.Checkpoints, [gramlm.TextProgress(), 3]):
        with pytest.raises(Exception, match="callback"):
            solve(callback=bad)
    for bad in (0.0, -1.0, float("nan"), float("inf"), "much"):
        with pytest.raises(ValueError, match="SetDamping"):
            gramlm.SetDamping(bad)


def test_ctrl_c_returns_the_solution_and_a_second_one_gets_out():
    """In a process of its own: a signal that comes late ends whatever it meets."""
    script = Path(__file__).parents[1] / "support" / "interrupted.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def loops_of_a_second(reference):
    few = 5000
    compiled = jax.jit(residual).lower(START, jnp.asarray(few)).compile()
    begin = time.perf_counter()
    jax.block_until_ready(compiled(START, jnp.asarray(few)))
    return int(few / (time.perf_counter() - begin))


def test_a_limit_of_time_ends_the_solve_between_steps(reference, loops_of_a_second):
    loops = jnp.asarray(loops_of_a_second // 20)
    solve(loops, max_steps=2, throw=False)
    with pytest.raises(gramlm.SolveError, match="`max_seconds`") as caught:
        solve(loops, max_seconds=0.8)
    solution = caught.value.solution
    assert solution.result == gramlm.RESULTS.time_limit_reached
    assert 0 < solution.stats["num_steps"] < reference.stats["num_steps"]
    assert solution.history.seconds[-1] >= 0.8
    assert np.all(np.diff(solution.history.seconds) > 0)
    same(told(solve(resume=solution, max_seconds=600)), told(reference))


@pytest.mark.parametrize("limit", [1, 5, 9])
def test_a_limit_of_evaluations_ends_the_solve_after_a_step(limit):
    solution = solve(max_evaluations=limit, throw=False)
    assert solution.result == gramlm.RESULTS.evaluation_limit_reached
    before = solve(max_steps=int(solution.stats["num_steps"]), throw=False)
    same(told(solution), told(before))
    # A trial evaluates the residual once or twice, and no step here has more than two.
    assert limit <= solution.stats["num_evaluations"] < limit + 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_evaluations": 0}, "`max_evaluations` must be at least 1"),
        ({"max_seconds": 0.0}, "`max_seconds` must be positive"),
        ({"max_seconds": float("inf")}, "`max_seconds` must be positive and finite"),
        ({"max_seconds": float("nan")}, "`max_seconds` must be positive and finite"),
    ],
)
def test_impossible_budgets_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        solve(**changes)


class Conductor:
    """A callback whose answer can be changed, so that one program serves several tests."""

    def __init__(self):
        self.steps, self.costs, self.answer = [], [], lambda event: None

    def __call__(self, event):
        self.steps.append(event.step)
        self.costs.append(event.cost)
        return self.answer(event)


@pytest.fixture(scope="module")
def traced():
    conductor = Conductor()

    @eqx.filter_jit
    def run(start):
        return gramlm.solve(residual, start, AT_ONCE, callback=conductor, max_steps=30, throw=False)

    def answering(answer):
        conductor.steps, conductor.costs, conductor.answer = [], [], answer
        return run(START), conductor

    return answering


def test_in_a_traced_solve_callbacks_see_each_step(traced, reference):
    for _ in range(2):
        solution, conductor = traced(lambda event: None)
        steps = int(solution.stats["num_steps"])
        assert conductor.steps == [*range(1, steps + 1)]
        np.testing.assert_array_equal(conductor.costs, solution.history.cost[1 : steps + 1])
        assert solution.result == gramlm.RESULTS.successful
        np.testing.assert_allclose(solution.value, reference.value, rtol=1e-9)


def test_in_a_traced_solve_callbacks_steer(traced):
    solution, _ = traced(lambda event: gramlm.Stop() if event.step == 3 else None)
    assert solution.result == gramlm.RESULTS.stopped
    assert solution.stats["num_steps"] == 3
    solution, _ = traced(lambda event: gramlm.SetDamping(50.0) if event.step == 2 else None)
    assert solution.history.damping[2] == 50.0


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_in_a_traced_solve_an_exception_ends_it_with_the_best_kept(traced, error, capfd):
    def fails(event):
        if event.step == 3:
            raise error("no such thing")

    solution, conductor = traced(fails)
    failed = error is LookupError
    results = gramlm.RESULTS
    assert solution.result == (results.callback_failed if failed else results.interrupted)
    assert solution.stats["num_steps"] == 3
    np.testing.assert_array_equal(solution.stats["cost"], conductor.costs[-1])
    assert ("no such thing" in capfd.readouterr().err) == failed
    # What a program returned can be continued outside of it.
    assert solve(resume=solution).result == results.successful


def test_a_checkpoint_inside_of_a_program_is_refused(traced, capfd):
    solution, _ = traced(lambda event: event.checkpoint())
    assert solution.result == gramlm.RESULTS.callback_failed
    assert "no checkpoint to take here" in capfd.readouterr().err


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit])
def test_under_vmap_callbacks_are_refused_clearly(outer):
    def run(start):
        return gramlm.solve(residual, start, AT_ONCE, callback=print, throw=False).value

    with pytest.raises(ValueError, match="`callback` and `verbose` do not go with `vmap`"):
        outer(jax.vmap(run))(START[None])


@pytest.mark.parametrize(
    "options", [{"max_seconds": 1.0}, {"resume": "a"}, {"callback": gramlm.Checkpoints("a")}]
)
def test_clock_and_files_are_refused_in_a_program(options, reference):
    options = options | ({"resume": reference} if "resume" in options else {})
    name = "Checkpoints" if "callback" in options else next(iter(options))
    with pytest.raises(ValueError, match=rf"{name}.* does not go with `jit`"):
        jax.jit(lambda start: gramlm.solve(residual, start, AT_ONCE, **options).value)(START)


def test_a_residual_that_closes_over_what_is_transformed_is_traced(reference):
    def minimiser(a):
        return gramlm.solve(lambda t: t**3 - a, jnp.ones(2)).value

    a = jnp.asarray([2.0, 3.0])
    _, derivative = jax.jvp(minimiser, (a,), (jnp.ones(2),))
    np.testing.assert_allclose(derivative, a ** (-2 / 3) / 3, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(minimiser)(a[None])[0], a ** (1 / 3), rtol=1e-8)
