"""A resumed solve is the uninterrupted one, bit for bit; what does not fit is refused and named."""

import copy
import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._solve.planned import Shelf
from support.problems import sine, sine_problem

LM = gramlm.LevenbergMarquardt


def network(params, args):
    x, y = args
    return params["w"] @ jnp.tanh(jnp.outer(params["a"], x)) - y


def network_problem(dtype, units=12, points=20):
    rng = np.random.default_rng(3)
    params = {
        "a": jnp.asarray(rng.normal(size=units), dtype),
        "w": jnp.asarray(rng.normal(size=units) / units, dtype),
    }
    x = jnp.linspace(-2, 2, points, dtype=dtype)
    return network, params, (x, jnp.sin(2 * x))


SOLVERS = {
    "dense": LM(linear_solver=gramlm.DenseSolver()),
    "krylov": LM(linear_solver=gramlm.KrylovSolver(capacity=12, block_size=2)),
    "bold": LM(
        acceptance=gramlm.Nonmonotone(), damping=gramlm.Nielsen(), metric=gramlm.MoreMetric()
    ),
}


def same(a, b):
    for x, y in zip(jax.tree.leaves(told(a)), jax.tree.leaves(told(b)), strict=True):
        np.testing.assert_array_equal(x, y)


def told(solution):
    """All but the time."""
    history = solution.history
    numbers = (history.cost, history.damping, history.gradient_norm, history.params)
    return solution.value, solution.flat, solution.stats, solution.state, numbers


@pytest.mark.parametrize(
    ("name", "dtype", "overwrites"),
    [("dense", jnp.float32, False), ("krylov", jnp.float64, True), ("bold", jnp.float64, False)],
)
def test_a_resumed_solve_is_the_uninterrupted_one(name, dtype, overwrites, tmp_path, monkeypatch):
    if overwrites:
        monkeypatch.setattr("gramlm._step.state._LARGE", 0)
        monkeypatch.setattr("gramlm._solve.planned._planned", Shelf())
    path, kept = tmp_path / "solve", []
    options = {
        "solver": SOLVERS[name],
        "throw": False,
        "history": gramlm.Saving(params=True, every=2),
    }
    problem = network_problem(dtype)
    whole = gramlm.solve(*problem, max_steps=9, **options)
    assert whole.stats["num_steps"] == 9

    def keep(event):
        kept.append(event.checkpoint())

    part = gramlm.solve(
        *problem, max_steps=4, callback=[keep, gramlm.Checkpoints(path, every=3)], **options
    )
    # Three times from where a step was made, once from the end, once from the solution.
    for source in [*kept[:3], path, str(path), part]:
        same(gramlm.solve(*problem, max_steps=9, resume=source, **options), whole)
    assert [one.step for one in kept] == [1, 2, 3, 4]
    # They are as they were, whatever the steps since overwrote.
    same(gramlm.solve(*problem, max_steps=4, resume=part, **options), part)
    assert whole.history.params["a"].shape == (5, 12)
    np.testing.assert_array_equal(part.history.cost[:4], whole.history.cost[:4])


@pytest.fixture(scope="module")
def problem():
    given = sine_problem(5, 9)
    return sine, given.params, (given.args[0], 0.5 * jnp.tanh(given.args[1]))


@pytest.fixture
def written(problem, tmp_path):
    """A checkpoint after two steps, and the whole solve."""
    path = tmp_path / "two"
    part = gramlm.solve(
        *problem, max_steps=2, throw=False, callback=gramlm.Checkpoints(path, every=100)
    )
    assert [file.name for file in tmp_path.iterdir()] == ["two"]
    return path, part


def test_a_step_that_overwrites_the_state_leaves_a_solution_alone(problem, monkeypatch):
    monkeypatch.setattr("gramlm._step.state._LARGE", 0)
    monkeypatch.setattr("gramlm._solve.planned._planned", Shelf())
    part = gramlm.solve(*problem, max_steps=2, throw=False)
    whole = gramlm.solve(*problem)
    for _ in range(2):
        same(gramlm.solve(*problem, resume=part), whole)


def test_a_solution_can_be_pickled_and_copied_and_goes_on(problem):
    part, whole = gramlm.solve(*problem, max_steps=2, throw=False), gramlm.solve(*problem)
    for again in (pickle.loads(pickle.dumps(part)), copy.deepcopy(part)):
        same(again, part)
        same(gramlm.solve(*problem, resume=again), whole)


def test_of_many_solves_at_once_each_has_its_state(problem):
    function, params, args = problem
    starts = jnp.stack([params, 0.9 * params])
    many = jax.vmap(lambda start: gramlm.solve(function, start, args, throw=False))(starts)
    assert many.flat.shape == (2, 9)
    np.testing.assert_array_equal(many.state.step, many.stats["num_steps"])
    again = pickle.loads(pickle.dumps(many))
    np.testing.assert_array_equal(again.state.scale, many.state.scale)


def test_the_description_is_the_first_line(written):
    path, _ = written
    with open(path, "rb") as file:
        description = json.loads(file.readline())
    assert description["gramlm"] == gramlm.__version__
    assert description["residuals"] == 5
    assert description["params"] == {"array": "float64[9]"}
    assert description["steps"] == 2
    assert description["solver"]["damping"].startswith("TrustRegion(initial=0.01")


def other(problem, **changes):
    function, params, args = problem
    arguments = {"residual_fn": function, "params": params, "args": args} | changes
    return gramlm.solve(arguments.pop("residual_fn"), **arguments)


WRONG = {
    "other parameters": (
        {"params": jnp.zeros(8), "args": (jnp.ones((5, 8)), jnp.ones(5))},
        r"\[9\]",
    ),
    "other structure": (
        {"params": {"t": jnp.zeros(9)}, "residual_fn": lambda t, args: sine(t["t"], args)},
        r"parameters",
    ),
    "other residuals": ({"args": (jnp.ones((4, 9)), jnp.ones(4))}, "5 residuals.*4 residuals"),
    "other data": ({"args": (jnp.ones((5, 9)), jnp.ones(5))}, "problem with other values"),
    "other residual": ({"residual_fn": lambda t, a: 2 * sine(t, a)}, "problem with other values"),
    "other shapes of data": (
        {
            "args": (jnp.ones((5, 9)), jnp.ones((1, 5))),
            "residual_fn": lambda t, a: sine(t, (a[0], a[1][0])),
        },
        "`args`",
    ),
    "other damping": (
        {"solver": LM(damping=gramlm.Nielsen())},
        "damping=TrustRegion.*damping=Nielsen",
    ),
    "other setting": ({"solver": LM(damping=gramlm.TrustRegion(growth=2.0))}, r"growth=2\.0"),
    "other array": (
        {"solver": LM(damping=gramlm.TrustRegion(initial=jnp.asarray(0.02)))},
        "initial=float64",
    ),
    "other tolerance": (
        {"solver": LM(termination=gramlm.Termination(cost=1e-3))},
        "termination=.*cost=0.001",
    ),
    "other solver": (
        {"solver": LM(linear_solver=gramlm.KrylovSolver(capacity=4))},
        "linear_solver=DenseSolver.*linear_solver=KrylovSolver",
    ),
    "other history": ({"history": gramlm.Saving(params=True)}, "history=Saving"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_of_another_solve_is_refused(name, problem, written):
    changes, message = WRONG[name]
    path, _ = written
    before = path.read_bytes()
    with pytest.raises(gramlm.CheckpointError, match=message) as caught:
        other(problem, resume=path, **changes)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_dtype_is_refused(written):
    given = sine_problem(5, 9, jnp.float32)
    with pytest.raises(gramlm.CheckpointError, match=r"float64 parameters.*float32 parameters"):
        gramlm.solve(sine, given.params, given.args, resume=written[0])


def test_a_solution_of_another_solver_is_refused(problem, written):
    with pytest.raises(gramlm.CheckpointError, match=r"The solution in.*first that differs"):
        other(problem, resume=written[1], solver=LM(damping=gramlm.Nielsen()))
    smaller = sine_problem(5, 8)
    with pytest.raises(gramlm.CheckpointError, match="first that differs"):
        gramlm.solve(sine, smaller.params, smaller.args, resume=written[1])


def changed(raw: bytes, **changes) -> bytes:
    line, rest = raw.split(b"\n", 1)
    return json.dumps(json.loads(line) | changes).encode() + b"\n" + rest


def flipped(raw: bytes, position: int) -> bytes:
    return raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]


DAMAGED = {
    "truncated": (lambda raw: raw[:-7], "is truncated"),
    "cut in its head": (lambda raw: raw[: raw.index(b"\n") + 20], "truncated, or damaged"),
    "cut in its first line": (lambda raw: raw[:40], "is no checkpoint"),
    "with more at its end": (lambda raw: raw + b"1", "is truncated|bytes"),
    "with a flipped bit in an array": (lambda raw: flipped(raw, len(raw) - 9), "is damaged"),
    "with another description": (lambda raw: changed(raw, steps=3), "is damaged"),
    "empty": (lambda raw: b"", "is no checkpoint"),
    "something else": (lambda raw: b"\x93NUMPY\x01\x00\n\x00\x00", "is no checkpoint"),
    "of another format": (lambda raw: changed(raw, version=99), "version 99 of the format"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_with_what_is_wrong(name, problem, written):
    damage, message = DAMAGED[name]
    path, _ = written
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(gramlm.CheckpointError, match=message) as caught:
        gramlm.solve(*problem, resume=path)
    assert str(path) in str(caught.value)


def test_an_absent_file_and_a_directory_are_named(problem, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*nowhere"):
        gramlm.solve(*problem, resume=tmp_path / "nowhere")
    with pytest.raises(gramlm.CheckpointError, match="is a directory"):
        gramlm.solve(*problem, resume=tmp_path)
    for path, error in (
        (tmp_path / "no" / "where", FileNotFoundError),
        (tmp_path, IsADirectoryError),
    ):
        with pytest.raises(gramlm.SolveError) as caught:
            gramlm.solve(*problem, callback=gramlm.Checkpoints(path))
        assert isinstance(caught.value.__cause__, error)


def test_a_file_of_another_version_is_refused(problem, tmp_path, monkeypatch):
    path = tmp_path / "old"
    with monkeypatch.context() as patch:
        patch.setattr("gramlm._solve.checkpoint.checkpoint.__version__", "0.0.1")
        gramlm.solve(*problem, max_steps=1, throw=False, callback=gramlm.Checkpoints(path))
    with pytest.raises(gramlm.CheckpointError, match=r"gramlm 0\.0\.1.*gramlm 0\.1\.0"):
        gramlm.solve(*problem, resume=path)


@pytest.mark.parametrize("moment", ["os.replace", "os.fsync", "equinox.tree_serialise_leaves"])
def test_a_crash_while_writing_leaves_the_file_before(moment, problem, written, monkeypatch):
    path, _ = written
    before = path.read_bytes()
    wanted = gramlm.solve(*problem)

    def crash(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(moment, crash)
        with pytest.raises(gramlm.SolveError, match="disk full") as caught:
            gramlm.solve(*problem, callback=gramlm.Checkpoints(path, every=1))
    assert caught.value.solution.stats["num_steps"] == 1
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    same(gramlm.solve(*problem, resume=path), wanted)


def test_checkpoints_are_written_when_they_are_due_and_at_the_end(problem, tmp_path, monkeypatch):
    steps = []
    save = gramlm.Checkpoint.save
    monkeypatch.setattr(
        gramlm.Checkpoint, "save", lambda self, path: (steps.append(self.step), save(self, path))
    )
    last = int(gramlm.solve(*problem).stats["num_steps"])

    def written(**options):
        steps.clear()
        gramlm.solve(*problem, callback=gramlm.Checkpoints(tmp_path / "a", **options))
        return steps[:]

    assert written(every=2) == sorted({*range(2, last + 1, 2), last})
    assert written(seconds=0) == [*range(1, last + 1)]
    assert written(every=last, seconds=1e9) == written() == [last]
    for bad in ({"every": 0}, {"every": 1.5}, {"every": True}, {"seconds": -1.0}):
        with pytest.raises(Exception, match=next(iter(bad))):
            gramlm.Checkpoints(tmp_path / "a", **bad)


def test_ctrl_c_and_a_failing_callback_leave_a_checkpoint(problem, tmp_path):
    path, wanted = tmp_path / "last", gramlm.solve(*problem)

    def interrupts(event):
        if event.step == 2:
            raise KeyboardInterrupt

    def fails(event):
        if event.step == 2:
            raise LookupError

    for ends in (interrupts, fails):
        with pytest.raises((gramlm.SolveInterrupted, gramlm.SolveError)):
            gramlm.solve(*problem, callback=[ends, gramlm.Checkpoints(path, every=1000)])
        same(gramlm.solve(*problem, resume=path), wanted)
        path.unlink()


def test_a_plan_that_was_measured_is_the_same_again(tmp_path, monkeypatch):
    """Measured anew, costs may lead to another linear solver."""
    given = sine_problem(5, 9)
    costs = gramlm.extend.ProductCosts(1e-3, 0.5, True)
    monkeypatch.setattr("gramlm._solve.planned.wants_measurement", lambda *_: True)
    monkeypatch.setattr("gramlm._solve.planned.measured", lambda *_: costs)
    path = tmp_path / "a"

    def residual(t, args):
        return sine(t, args)

    options = {"args": given.args, "throw": False}
    part = gramlm.solve(
        residual, given.params, max_steps=1, callback=gramlm.Checkpoints(path), **options
    )
    assert part.costs == costs
    monkeypatch.setattr("gramlm._solve.planned.measured", lambda *_: pytest.fail("measured again"))
    for source in (path, part):
        again = gramlm.solve(residual, given.params, resume=source, **options)
        assert again.costs == costs
        assert again.plan == part.plan


def test_what_cannot_be_resumed_from_is_named(problem):
    with pytest.raises(Exception, match="resume"):
        gramlm.solve(*problem, resume=3)
    solution = gramlm.solve(*problem, max_steps=1, throw=False)
    with pytest.raises(gramlm.CheckpointError, match="start from its `value`"):
        gramlm.solve(*problem, resume=dataclasses.replace(solution, carry=None))


def test_fixed_and_complex_parameters_bounds_and_a_loss_are_kept_as_well(tmp_path):
    path = tmp_path / "a"

    def residual(params, x):
        wave = params["amplitude"] * jnp.exp(1j * params["rate"] * x)
        return wave.real + params["offset"][0] - jnp.cos(2 * x) - params["offset"][1]

    start = {
        "amplitude": jnp.asarray(0.5 + 0.2j),
        "rate": 1.7,
        "offset": jnp.asarray([0.1, 0.2]),
        "name": "wave",
    }
    mask = np.asarray([True, False])
    options = {
        "args": jnp.linspace(0, 3, 12),
        "free": {"amplitude": True, "rate": True, "offset": mask, "name": False},
        "loss": gramlm.Huber(0.1),
        "upper": {"amplitude": None, "rate": 3.0, "offset": None, "name": None},
        "history": gramlm.Saving(params=True),
        "throw": False,
    }
    events = []
    whole = gramlm.solve(residual, start, max_steps=5, **options)
    callbacks = [events.append, gramlm.Checkpoints(path)]
    part = gramlm.solve(residual, start, max_steps=3, callback=callbacks, **options)
    assert [event.params["name"] for event in events] == ["wave"] * 3
    assert events[-1].params["offset"][1] == 0.2
    assert events[-1].params["amplitude"].dtype == jnp.complex128
    assert whole.history.params["amplitude"].shape == (6,)
    np.testing.assert_array_equal(whole.history.params["offset"][:, 1], 0.2)
    for source in (path, part):
        again = gramlm.solve(residual, start, max_steps=5, resume=source, **options)
        assert again.value["name"] == again.history.params["name"] == "wave"
        for x, y in zip(jax.tree.leaves(told(again)), jax.tree.leaves(told(whole)), strict=True):
            assert np.array_equal(x, y)
    for changes in ({"loss": gramlm.Huber(0.2)}, {"upper": None}):
        with pytest.raises(gramlm.CheckpointError, match=f"its problem has `{next(iter(changes))}"):
            gramlm.solve(residual, start, max_steps=5, resume=path, **(options | changes))

    seen = []

    @jax.jit
    def within(rate):
        given = start | {"rate": rate}
        return gramlm.solve(residual, given, max_steps=2, callback=seen.append, **options).value[
            "rate"
        ]

    within(jnp.asarray(1.7)).block_until_ready()
    assert [event.params["name"] for event in seen] == ["wave"] * 2
    np.testing.assert_allclose(seen[1].params["rate"], events[1].params["rate"])
