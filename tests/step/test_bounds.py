"""Bounds: every point is within them, active sets are found, and the rest is as without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares, lsq_linear, nnls

import gramlm
from support.problems import START, linear, rosenbrock

ENGINES = {
    "dense": (gramlm.DenseSolver(), gramlm.Form.auto),
    "krylov dual": (gramlm.KrylovSolver(), gramlm.Form.dual),
    "krylov normal": (gramlm.KrylovSolver(), gramlm.Form.normal),
}


def bumps(n, p, dtype=jnp.float64, seed=1, noise=0.01):
    """Gaussian bumps, a fifth of which have positive weights, with noise."""
    rng = np.random.default_rng(seed)
    x, centres = np.linspace(0, 1, n), np.linspace(0, 1, p)
    design = np.exp(-(((x[:, None] - centres) / 0.05) ** 2) / 2)
    y = design @ np.where(rng.random(p) < 0.2, 1.0, 0.0) + noise * rng.normal(size=n)
    return jnp.asarray(design, dtype), jnp.asarray(y, dtype)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("n", "p"), [(30, 12), (20, 40)])
def test_non_negative_least_squares(engine, n, p):
    linear_solver, form = ENGINES[engine]
    data = bumps(n, p)
    solver = gramlm.LevenbergMarquardt(linear_solver=linear_solver, form=form)
    found = gramlm.solve(linear, jnp.full(p, 0.1), data, lower=0.0, solver=solver)
    expected, distance = nnls(*map(np.asarray, data))
    np.testing.assert_allclose(found.stats["cost"], 0.5 * distance**2, rtol=1e-9)
    np.testing.assert_array_equal(np.asarray(found.value) == 0, expected == 0)
    np.testing.assert_allclose(found.value, expected, atol=1e-6)
    assert found.stats["num_steps"] < 40


def test_rounding_of_the_dual_form_stalls_no_solve():
    """J reaches little of r, and with a small λ the dual form makes rounding of the step.

    Which solves come to such a step is a matter of the program, so there are several.
    """
    linear_solver, form = ENGINES["krylov dual"]
    solver = gramlm.LevenbergMarquardt(linear_solver=linear_solver, form=form)
    for seed in range(12):
        data = bumps(30, 12, seed=seed, noise=0.1)
        found = gramlm.solve(linear, jnp.full(12, 0.1), data, lower=0.0, solver=solver, throw=False)
        assert found.result == gramlm.RESULTS.successful, seed
        distance = nnls(*map(np.asarray, data))[1]
        np.testing.assert_allclose(found.stats["cost"], 0.5 * distance**2, rtol=1e-9)


def test_single_precision():
    data = bumps(30, 12, jnp.float32)
    found = gramlm.solve(linear, jnp.full(12, 0.1, jnp.float32), data, lower=0.0)
    distance = nnls(*map(np.asarray, data))[1]
    np.testing.assert_allclose(found.stats["cost"], 0.5 * distance**2, rtol=1e-4)
    assert found.value.dtype == jnp.float32


@pytest.mark.parametrize("seed", range(4))
def test_random_boxes_around_random_lines(seed):
    rng = np.random.default_rng(seed)
    design, y = rng.normal(size=(12, 8)), rng.normal(size=12)
    lower = np.where(rng.random(8) < 0.3, -np.inf, -rng.random(8) * 0.3)
    upper = np.where(rng.random(8) < 0.3, np.inf, rng.random(8) * 0.3)
    found = gramlm.solve(
        linear, jnp.zeros(8), (jnp.asarray(design), jnp.asarray(y)),
        lower=jnp.asarray(lower), upper=jnp.asarray(upper),
    )  # fmt: skip
    expected = lsq_linear(design, y, (lower, upper), method="bvls", tol=1e-14)
    np.testing.assert_allclose(found.value, expected.x, atol=1e-7)


def curved(params, data):
    """Six residuals of three parameters, somewhat quadratic."""
    bent = jnp.concatenate([params**2, params[:1] * params[1:], params[1:2]])
    return data[:18].reshape(6, 3) @ params + data[24] * bent - data[18:24]


@pytest.mark.parametrize("bend", [0.0, 0.3])
def test_no_random_box_stalls_a_solve(bend):
    """A parameter that ended an ulp from its bound would have nowhere to go."""
    rng, count = np.random.default_rng(5), 1000
    data = rng.normal(size=(count, 25))
    data[:, 24] = bend
    middle, width = (10.0 ** rng.uniform(-1, 1, (2, count, 3))) * np.sign(
        rng.normal(size=(2, 1, 1))
    )
    width = np.abs(width)
    lower, upper = (middle + sign * width * rng.random((count, 3)) for sign in (-1, 1))
    start = lower + (upper - lower) * rng.random((count, 3))

    @jax.jit
    @jax.vmap
    def ends(data, lower, upper, start):
        found = gramlm.solve(curved, start, data, lower=lower, upper=upper, throw=False)
        theta, at_lower, at_upper = found.value, found.value <= lower, found.value >= upper
        jacobian, r = jax.jacfwd(curved)(theta, data), curved(theta, data)
        gradient = jacobian.T @ r
        held = (at_lower & (gradient >= 0)) | (at_upper & (gradient <= 0))
        sizes = jnp.linalg.norm(jacobian, axis=0) * jnp.linalg.norm(r)
        cosine = jnp.max(jnp.where(held, 0, jnp.abs(gradient) / sizes))
        return found.result == gramlm.RESULTS.successful, cosine

    succeeded, cosine = ends(data, lower, upper, start)
    assert np.all(succeeded)
    assert np.max(cosine) < 2e-7


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        ((-2.0, -2.0), (0.5, 2.0), (0.5, 0.25)),  # one active
        ((-2.0, -2.0), (2.0, 2.0), (1.0, 1.0)),  # none
        ((1.5, -2.0), (3.0, 0.5), (1.5, 0.5)),  # all
        ((-2.0, -np.inf), (np.inf, np.inf), (1.0, 1.0)),
    ],
)
def test_rosenbrock_in_boxes(lower, upper, expected):
    lower, upper = jnp.asarray(lower), jnp.asarray(upper)
    start = jnp.clip(START, lower, upper)
    found = gramlm.solve(rosenbrock, start, lower=lower, upper=upper)
    np.testing.assert_allclose(found.value, expected, atol=1e-8)


def test_the_residual_is_never_evaluated_outside():
    x, seen = jnp.linspace(0.1, 2, 20), []

    def residual(t):
        jax.debug.callback(lambda at: seen.append(np.asarray(at)), t)
        return jnp.sqrt(0.1 + t[0]) * x + jnp.log1p(t[1]) * x**2 - t[2] + 0.3

    problem = gramlm.Problem(residual, lower=0.0, upper=3.0)
    found = gramlm.solve(problem, jnp.asarray([2.0, 0.5, 0.5]))
    jax.effects_barrier()
    assert len(seen) > found.stats["num_evaluations"] > 3
    assert np.all((np.stack(seen) >= 0) & (np.stack(seen) <= 3))
    assert np.any(np.asarray(found.value) == 0)


def test_parameters_with_one_value_stay_put():
    data = bumps(20, 6)
    fixed = jnp.asarray([0.3, -jnp.inf, 0.2, -jnp.inf, -jnp.inf, 0.0])
    upper = jnp.where(jnp.isinf(fixed), jnp.inf, fixed)
    found = gramlm.solve(
        linear, jnp.where(jnp.isinf(fixed), 0.0, fixed), data, lower=fixed, upper=upper
    )
    design, y = map(np.asarray, data)
    free = np.isinf(np.asarray(fixed))
    rest = y - design[:, ~free] @ np.asarray(fixed)[~free]
    expected = np.linalg.lstsq(design[:, free], rest, rcond=None)[0]
    np.testing.assert_array_equal(np.asarray(found.value)[~free], np.asarray(fixed)[~free])
    np.testing.assert_allclose(np.asarray(found.value)[free], expected, rtol=1e-7)


def test_bounds_loss_and_weights_together_agree_with_scipy():
    rng = np.random.default_rng(2)
    t = np.linspace(0, 3, 40)
    y = 2 * np.exp(-1.3 * t) + 0.5 + 0.02 * rng.normal(size=40)
    y[::7] += rng.normal(size=6)
    weights = np.linspace(0.5, 2, 40)

    def residual(p):
        return p["a"] * jnp.exp(-p["b"] * t) + p["c"] - y

    found = gramlm.solve(
        residual, {"a": 1.0, "b": 1.0, "c": 0.1}, loss=gramlm.SoftL1(0.1), weights=weights,
        lower={"a": 0.0, "b": None, "c": 0.0}, upper={"a": 1.8, "b": jnp.inf, "c": None},
    )  # fmt: skip

    def flat(p):
        return np.sqrt(weights) * np.asarray(residual(dict(zip("abc", p, strict=True))))

    other = least_squares(
        flat, [1, 1, 0.1], bounds=([0, -np.inf, 0], [1.8, np.inf, np.inf]), loss="soft_l1",
        f_scale=0.1, xtol=1e-15, ftol=1e-15, gtol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(found.stats["cost"], other.cost, rtol=1e-8)
    assert found.stats["cost"] <= other.cost * (1 + 1e-12)
    np.testing.assert_allclose([found.value[k] for k in "abc"], other.x, rtol=1e-4)
    assert found.value["a"] == 1.8


def test_bounds_that_hold_nothing_change_nothing():
    plain = gramlm.solve(rosenbrock, START)
    boxed = gramlm.solve(rosenbrock, START, lower=-1e9, upper=1e9)
    # Two programs: near the root rounding decides on another step.
    assert abs(int(plain.stats["num_steps"]) - int(boxed.stats["num_steps"])) <= 1
    steps = slice(int(plain.stats["num_steps"]))
    costs = plain.history.cost[steps], boxed.history.cost[steps]
    np.testing.assert_allclose(*costs, rtol=1e-6, atol=1e-20)


def test_a_start_outside_is_moved_with_a_warning():
    with pytest.warns(UserWarning, match="1 of the 2 parameters given are outside"):
        found = gramlm.solve(rosenbrock, START, lower=jnp.asarray([0.0, -1.0]))
    np.testing.assert_allclose(found.value, [1, 1], atol=1e-8)
    np.testing.assert_allclose(found.history.cost[0], 0.5 * 101.0)


def test_other_bounds_are_the_same_program():
    calls = []

    def residual(t):
        calls.append(t)
        return jnp.stack([t[0] - 1, t[0] * t[1], t[1] - 2])

    for again, (lower, scale) in enumerate([(-1.0, 0.1), (0.5, 0.2), (-3, 0.3)]):
        before = len(calls)
        gramlm.solve(residual, jnp.ones(2), lower=lower, loss=gramlm.Huber(scale), throw=False)
        assert len(calls) - before < 4 or not again  # the bounds are checked, nothing is compiled


def test_bounds_are_arguments_of_a_compiled_and_mapped_solve():
    @jax.jit
    @jax.vmap
    def corner(upper):
        return gramlm.solve(rosenbrock, jnp.zeros(2), upper=upper, throw=False).value

    bounds = jnp.asarray([[0.5, 9.0], [0.3, 9.0], [9.0, 9.0]])
    np.testing.assert_allclose(corner(bounds), [[0.5, 0.25], [0.3, 0.09], [1, 1]], atol=1e-7)


def test_what_no_bounds_can_be_is_refused():
    start = {"a": jnp.zeros(2), "b": jnp.zeros(3)}

    def residual(p):
        return jnp.concatenate([p["a"] - 1, p["b"] - 2])

    with pytest.raises(ValueError, match="exceeds `upper` for 1 parameters"):
        gramlm.solve(residual, start, lower={"a": jnp.asarray([0.0, 1.0]), "b": None}, upper=0.0)
    with pytest.raises(ValueError, match="`lower` must have the structure of `params`"):
        gramlm.solve(residual, start, lower={"a": 0.0})
    with pytest.raises(ValueError, match="`upper` must be numbers that broadcast"):
        gramlm.solve(residual, start, upper=jnp.ones(2))
    with pytest.raises(ValueError, match="`upper` holds NaN"):
        gramlm.solve(residual, start, upper=jnp.nan)
    with pytest.raises(ValueError, match="`lower` holds NaN or inf; write -inf"):
        gramlm.solve(residual, start, lower=jnp.inf)
    with pytest.raises(TypeError, match="`lower` must be real"):
        gramlm.solve(residual, start, lower=1j)
    with pytest.raises(ValueError, match="`lower` must be numbers that broadcast"):
        gramlm.solve(residual, start, lower="zero")

    def traced(lower):
        return gramlm.solve(residual, start, lower=lower, upper=0.0, throw=False).value

    with pytest.raises(Exception, match="`lower` exceeds `upper`"):
        jax.block_until_ready(jax.jit(traced)(jnp.asarray(1.0)))
