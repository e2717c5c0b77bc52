"""`solve` reaches known minima, says truthfully how it ended, and compiles once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

import gramlm
from gramlm._solve.program import Program
from support.problems import START, rosenbrock, sine, sine_problem

LM = gramlm.LevenbergMarquardt
OFF = {"cost": None, "gradient": None, "step": None, "vanished": None}


def powell(t):
    return jnp.stack(
        [
            t[0] + 10 * t[1],
            5**0.5 * (t[2] - t[3]),
            (t[1] - 2 * t[2]) ** 2,
            10**0.5 * (t[0] - t[3]) ** 2,
        ]
    )


def beale(t):
    powers = jnp.arange(1, 4)
    return jnp.array([1.5, 2.25, 2.625]) - t[0] * (1 - t[1] ** powers)


KOWALIK_Y = [0.1957, 0.1947, 0.1735, 0.16, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
KOWALIK_U = [4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]


def kowalik(t):
    u = jnp.array(KOWALIK_U)
    return jnp.array(KOWALIK_Y) - t[0] * (u**2 + u * t[1]) / (u**2 + u * t[2] + t[3])


CLASSICAL = {
    "rosenbrock": (rosenbrock, [-1.2, 1.0], 0.0, [1.0, 1.0]),
    "powell": (powell, [3.0, -1.0, 0.0, 1.0], 0.0, [0.0] * 4),
    "beale": (beale, [1.0, 1.0], 0.0, [3.0, 0.5]),
    "kowalik": (kowalik, [0.25, 0.39, 0.415, 0.39], 3.07505603849e-4 / 2, None),
    "one_by_one": (lambda t: t**2 - 2, [1.0], 0.0, [2**0.5]),
    "linear": (lambda t: 2 * t - jnp.arange(3.0), [5.0] * 3, 0.0, [0.0, 0.5, 1.0]),
}


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_problems_reach_their_known_minima(name):
    residual, start, cost, minimiser = CLASSICAL[name]
    # At the minimum of Powell's function the Jacobian is singular: the cost falls by a constant
    # factor for ever, and every relative tolerance stays unmet.
    solution = gramlm.solve(residual, jnp.asarray(start), throw=name != "powell", max_steps=100)
    np.testing.assert_allclose(solution.stats["cost"], cost, rtol=1e-8, atol=1e-12)
    if minimiser is not None:
        np.testing.assert_allclose(
            solution.value, minimiser, atol=2e-3 if name == "powell" else 1e-6
        )


@pytest.mark.parametrize("p", [2, 3, 8])
def test_a_sum_of_parameters_is_fitted_whatever_their_number(p):
    # Its Jacobian is orthogonal to many a fixed vector of signs.
    solution = gramlm.solve(lambda t: (t.sum() - 5)[None], jnp.zeros(p), throw=False)
    np.testing.assert_allclose(solution.value.sum(), 5, rtol=1e-9)
    assert solution.result == gramlm.RESULTS.successful


def test_noisy_exponential_fit_agrees_with_scipy(rng):
    x = np.linspace(0, 2, 30)
    y = 2 * np.exp(-1.3 * x) + 0.5 + 0.05 * rng.normal(size=30)
    solution = gramlm.solve(
        lambda t, d: t["a"] * jnp.exp(t["b"] * d[0]) + t["c"] - d[1],
        {"a": 1.0, "b": -0.5, "c": 0.0},
        (x, y),
    )
    peer = least_squares(
        lambda t: t[0] * np.exp(t[1] * x) + t[2] - y, [1, -0.5, 0], xtol=1e-15, ftol=1e-15
    )
    found = [solution.value[k] for k in "abc"]
    np.testing.assert_allclose(solution.stats["cost"], peer.cost, rtol=1e-10)
    np.testing.assert_allclose(found, peer.x, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("n", "p"), [(8, 20), (8, 8), (20, 8)])
def test_every_shape_ends_at_a_stationary_point(n, p, dtype):
    problem = sine_problem(n, p, dtype)
    args = (problem.args[0], 0.5 * jnp.tanh(problem.args[1]))
    solution = gramlm.solve(sine, problem.params, args)
    assert solution.value.dtype == solution.stats["cost"].dtype == dtype
    assert solution.result == gramlm.RESULTS.successful
    residual, vjp = jax.vjp(lambda t: sine(t, args), solution.value)
    eps = float(jnp.finfo(dtype).eps)
    assert jnp.linalg.norm(vjp(residual)[0]) <= eps**0.4
    if n < p:
        assert solution.stats["cost"] <= eps * solution.stats["initial_cost"]


def test_history_and_statistics_tell_one_story():
    solution = gramlm.solve(rosenbrock, START)
    stats, history = solution.stats, solution.history
    steps = int(stats["num_steps"])
    assert history.cost.shape == (steps + 1,)
    assert history.damping.shape == history.gradient_norm.shape == (steps,)
    assert np.all(np.diff(history.cost) <= 0)
    np.testing.assert_allclose(history.cost[0], 0.5 * np.sum(rosenbrock(jnp.array([-1.2, 1])) ** 2))
    np.testing.assert_allclose(history.cost[-1], 0.5 * np.sum(rosenbrock(solution.value) ** 2))
    assert history.cost[0] == stats["initial_cost"]
    assert history.cost[-1] == stats["cost"]
    assert np.count_nonzero(np.diff(history.cost)) <= stats["num_accepted"] <= steps
    assert stats["num_evaluations"] >= stats["num_accepted"]
    assert stats["num_products"] > steps
    assert int(solution.state.step) == steps
    assert stats["criterion"] != gramlm.CRITERIA.none


@pytest.mark.parametrize("make", [np.full, jnp.full], ids=["strong", "weak"])
def test_other_arrays_of_the_same_shape_do_not_compile_again(make):
    traces = 0

    def residual(t, args):
        nonlocal traces
        traces += 1
        return t**2 - args

    first = gramlm.solve(residual, jnp.ones(3), 2 * jnp.ones(3))
    after_one = traces
    second = gramlm.solve(residual, make(3, 2.0), make(3, 3.0))
    assert traces == after_one > 0
    np.testing.assert_allclose(first.value, 2**0.5)
    np.testing.assert_allclose(second.value, 3**0.5)


def test_a_python_number_as_parameter_does_not_compile_again():
    traces = 0

    def residual(params):
        nonlocal traces
        traces += 1
        return (params["t"] - 3.0)[None]

    first = gramlm.solve(residual, {"t": 1.0})
    after_one = traces
    second = gramlm.solve(residual, {"t": 2.0})
    assert traces == after_one > 0
    for solution in (first, second):
        np.testing.assert_allclose(solution.value["t"], 3.0)


@pytest.fixture
def calls(monkeypatch):
    """The names of the programs that are called."""
    names, call = [], Program.__call__

    def noted(self, *arguments):
        names.append(self.name)
        return call(self, *arguments)

    monkeypatch.setattr(Program, "__call__", noted)
    return names


@pytest.mark.parametrize(
    ("options", "programs"),
    [
        ({}, ["_steps_from_any"]),
        ({"upper": 9.0, "weights": 2.0}, ["_doubts", "_steps_from_any"]),
    ],
    ids=["plain", "with values to check"],
)
def test_a_small_solve_is_one_program_when_it_is_known(options, programs, calls):
    def residual(t, args):
        return t**2 - args

    for _ in range(3):
        calls.clear()
        solution = gramlm.solve(residual, jnp.ones(3), 2 * jnp.ones(3), **options)
    assert calls == programs
    np.testing.assert_allclose(solution.value, 2**0.5)


def test_a_solve_of_more_steps_than_a_program_records_goes_on(monkeypatch):
    start = jnp.asarray([-1.2, 1.0])
    whole = gramlm.solve(rosenbrock, start)
    monkeypatch.setattr("gramlm._solve.loop.ROOM", 3)
    by_threes = gramlm.solve(lambda t: rosenbrock(t), start)
    np.testing.assert_array_equal(by_threes.history.cost, whole.history.cost)
    np.testing.assert_array_equal(by_threes.value, whole.value)


def test_results_are_arrays_on_the_device_and_numbers_on_the_host():
    solution = gramlm.solve(lambda t: t["a"][None] ** 2 - 2, {"a": 1.0})
    assert isinstance(solution.value["a"], jax.Array)
    assert isinstance(solution.flat, jax.Array)
    assert isinstance(solution.history.cost, np.ndarray)
    assert f"{solution.stats['cost']:.0f} {solution.stats['num_accepted']:d}".startswith("0 ")
    leaves, structure = jax.tree.flatten(solution)
    again = jax.tree.unflatten(structure, leaves)
    assert again.plan == solution.plan
    assert again.state.step == solution.stats["num_steps"]


@pytest.mark.parametrize("form", [True, gramlm.TextProgress()])
def test_lines_show_each_step(form, capsys):
    solution = gramlm.solve(rosenbrock, START, verbose=form)
    lines = capsys.readouterr().out.strip().splitlines()
    plan, _, head, start, *steps, end = lines
    assert plan == solution.plan
    assert start.split() == ["0", f"{solution.history.cost[0]:.6e}"]
    names = ["step", "cost", "gradient", "damping", "gain", "trials", "inner", "seconds", "left"]
    assert head.split() == names
    assert gramlm.CRITERIA[solution.stats["criterion"]] in end
    assert [int(line.split()[0]) for line in steps] == [*range(1, len(steps) + 1)]
    assert len(steps) == int(solution.stats["num_steps"])
    np.testing.assert_allclose(float(steps[0].split()[1]), solution.history.cost[1], rtol=1e-5)


def test_a_progress_bar_counts_the_steps_and_silence_is_the_default(capsys):
    solution = gramlm.solve(rosenbrock, START, max_steps=99, verbose=gramlm.ProgressBar())
    shown = capsys.readouterr()
    assert f"{int(solution.stats['num_steps'])}/99" in shown.err
    assert "cost" in shown.err
    gramlm.solve(rosenbrock, START)
    assert capsys.readouterr() == ("", "")


def test_too_few_steps_raise_an_error_that_carries_the_solution():
    with pytest.raises(gramlm.SolveError, match="raise `max_steps`") as caught:
        gramlm.solve(rosenbrock, START, max_steps=3)
    quiet = gramlm.solve(rosenbrock, START, max_steps=3, throw=False)
    assert quiet.result == gramlm.RESULTS.nonlinear_max_steps_reached
    assert quiet.stats["criterion"] == gramlm.CRITERIA.none
    assert quiet.stats["num_steps"] == 3
    np.testing.assert_array_equal(caught.value.solution.value, quiet.value)
    assert quiet.stats["cost"] < quiet.stats["initial_cost"]


@pytest.mark.parametrize("start", [jnp.asarray([jnp.nan, 1.0]), jnp.asarray([jnp.inf, 1.0])])
def test_a_start_that_is_not_finite_is_a_clear_result(start):
    solution = gramlm.solve(rosenbrock, start, throw=False)
    assert solution.result == gramlm.RESULTS.nonfinite_start
    np.testing.assert_array_equal(solution.value, start)
    assert solution.stats["num_steps"] == 1
    with pytest.raises(gramlm.SolveError, match="NaN or infinite at the parameters given"):
        gramlm.solve(rosenbrock, start)


def test_aux_is_that_of_the_solution():
    def residual(t, args):
        return t - args, {"twice": 2 * t, "name": 3}

    solution = gramlm.solve(residual, jnp.zeros(2), jnp.ones(2), has_aux=True)
    np.testing.assert_allclose(solution.aux["twice"], 2 * solution.value)
    assert solution.aux["name"] == 3
    assert gramlm.solve(lambda t: t - 1, jnp.zeros(2)).aux is None
    with pytest.raises(TypeError, match="must return a pair"):
        gramlm.solve(lambda t: t - 1, jnp.zeros(2), has_aux=True)


@pytest.mark.parametrize(
    ("settings", "criterion"),
    [
        ({"cost": 1e-3}, "cost"),
        ({"gradient": 1e-3}, "gradient"),
        ({"step": 1e-3}, "step"),
        ({"absolute_cost": 1e-3}, "absolute_cost"),
        ({}, "rounding"),
    ],
)
def test_each_criterion_alone_ends_the_solve(settings, criterion):
    def residual(t):
        # The minimum is at 2/3 in the interior, its cost 1/3 is not zero unless it is asked for.
        offset = 0.0 if "absolute_cost" in settings else 1.0
        return jnp.stack([jnp.exp(t[0]) - 1, t[0] + offset, (t[1] - 0.5) * (t[1] + 1)])

    solver = LM(termination=gramlm.Termination(**{**OFF, **settings}))
    solution = gramlm.solve(residual, jnp.asarray([2.0, 1.0]), solver=solver)
    assert solution.stats["criterion"] == getattr(gramlm.CRITERIA, criterion)
    if criterion == "gradient":
        assert solution.stats["relative_gradient"] <= 1e-3
    if criterion == "absolute_cost":
        assert solution.history.cost[-1] <= 1e-3 < solution.history.cost[-2]


def test_a_rejected_step_that_promises_less_than_rounding_is_the_last():
    solver = LM(termination=gramlm.Termination(**OFF))

    def residual(t):
        return jnp.stack([jnp.exp(t[0]) - 1, t[0] + 1.0, t[1] ** 2 + t[1]])

    params, state = jnp.asarray([2.0, 1.0]), None
    state = solver.init(residual, params)
    step = eqx.filter_jit(solver.step)
    for _ in range(40):
        params, state, info = step(residual, params, state)
        if info.result != gramlm.RESULTS.running:
            break
    assert info.criterion == gramlm.CRITERIA.rounding
    assert not info.accepted
    assert info.trials == 1


@pytest.mark.parametrize("initial", [1e-2, 1e-3])
@pytest.mark.parametrize("rtol", [0.1, 0.01])
def test_a_crude_linear_solver_does_not_end_a_solve_as_rounding(rtol, initial, rng):
    """What is left of r hides from J, so that a crude solution may promise an increase."""
    u, v = (np.linalg.qr(rng.normal(size=(size, size)))[0] for size in (40, 50))
    matrix = jnp.asarray(u[:, :20] * np.logspace(0, -1, 20) @ v[:, :20].T)
    target = jnp.asarray(u[:, 20:] @ rng.normal(size=20) * 10 + u[:, :20] @ rng.normal(size=20))
    best = 0.5 * np.sum((u[:, 20:].T @ target) ** 2)

    def residual(t):
        return matrix @ t + target

    solver = LM(
        linear_solver=gramlm.ConjugateGradient(rtol=rtol),
        damping=gramlm.Nielsen(initial=initial),
        metric=gramlm.IdentityMetric(),
    )
    solution = gramlm.solve(residual, jnp.zeros(50), solver=solver, max_steps=40, throw=False)
    rounding = solution.stats["criterion"] == gramlm.CRITERIA.rounding
    assert not rounding or solution.stats["cost"] <= best * (1 + 1e-9)
    assert solution.stats["cost"] <= best * (1 + 1e-5)


@pytest.mark.parametrize("termination", [gramlm.Termination(), gramlm.Termination(**OFF)])
def test_a_residual_that_does_not_depend_on_the_parameters_ends_at_once(termination):
    solution = gramlm.solve(
        lambda t: jnp.ones(3) + 0 * t[0], jnp.ones(2), solver=LM(termination=termination)
    )
    np.testing.assert_array_equal(solution.value, jnp.ones(2))
    assert solution.stats["num_steps"] == 1


@pytest.mark.parametrize("scale", [1e-25, 1e-15, 1e25])
def test_squares_that_underflow_or_overflow_are_no_success(scale):
    def residual(t):
        return (t - 3) * jnp.float32(scale)

    solution = gramlm.solve(residual, jnp.ones(2, jnp.float32), throw=False)
    solved = bool(jnp.all(jnp.abs(solution.value - 3) < 1e-3))
    assert solved or solution.result != gramlm.RESULTS.successful


def test_where_it_starts_at_the_minimum_it_stays():
    solution = gramlm.solve(rosenbrock, jnp.ones(2))
    np.testing.assert_array_equal(solution.value, jnp.ones(2))
    assert solution.stats["criterion"] == gramlm.CRITERIA.vanished


def test_jit_and_vmap_give_what_a_loop_gives():
    starts = jnp.asarray([[-1.2, 1.0], [0.0, 0.0], [2.0, 2.0]])
    run = lambda start: gramlm.solve(rosenbrock, start, throw=False)  # noqa: E731
    batch = eqx.filter_jit(jax.vmap(lambda s: (run(s).value, run(s).history.cost)))(starts)
    assert batch[1].shape == (3, 1001)
    for i, start in enumerate(starts):
        alone = run(start)
        steps = int(alone.stats["num_steps"])
        np.testing.assert_allclose(batch[0][i], alone.value, atol=1e-9)
        np.testing.assert_allclose(
            batch[1][i, : steps // 2], alone.history.cost[: steps // 2], rtol=1e-6
        )
        assert np.all(np.isnan(batch[1][i, steps + 3 :]))


def test_a_failure_inside_of_jit_raises_at_run_time():
    run = eqx.filter_jit(lambda s: gramlm.solve(rosenbrock, s, max_steps=2).value)
    with pytest.raises(eqx.EquinoxRuntimeError, match="maximum number of steps"):
        run(START).block_until_ready()


def test_forward_derivative_of_the_solution_is_that_of_the_implicit_function():
    def minimiser(a):
        return gramlm.solve(lambda t, a: t**3 - a, jnp.ones(2), a).value

    a = jnp.asarray([2.0, 3.0])
    value, derivative = jax.jvp(minimiser, (a,), (jnp.ones(2),))
    np.testing.assert_allclose(value, a ** (1 / 3), rtol=1e-8)
    np.testing.assert_allclose(derivative, a ** (-2 / 3) / 3, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"max_steps": 0}, ValueError, "`max_steps` must be at least 1; got 0"),
        ({"max_steps": -3}, ValueError, "`max_steps` must be at least 1; got -3"),
        ({"verbose": "loud"}, Exception, "verbose"),
        ({"solver": "lm"}, Exception, "solver"),
    ],
)
def test_bad_options_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        gramlm.solve(rosenbrock, jnp.zeros(2), **changes)
