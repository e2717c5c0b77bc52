"""Robust losses have the slope and the curvature they say, and agree with SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

import gramlm
from gramlm._problem.build import flat_problem
from gramlm._problem.loss import slopes
from gramlm._problem.segment import LEAST_CURVATURE

C = 0.7

# ρ of residuals r with scale C, by their textbook formulas.
FORMULAS = {
    gramlm.Huber: lambda r: np.where(np.abs(r) <= C, r**2, 2 * C * np.abs(r) - C**2),
    gramlm.SoftL1: lambda r: 2 * C**2 * (np.sqrt(1 + (r / C) ** 2) - 1),
    gramlm.Cauchy: lambda r: C**2 * np.log(1 + (r / C) ** 2),
    gramlm.Arctan: lambda r: C**2 * np.arctan((r / C) ** 2),
    gramlm.Tukey: lambda r: C**2 / 3 * (1 - np.clip(1 - (r / C) ** 2, 0, None) ** 3),
    gramlm.GemanMcClure: lambda r: r**2 / (1 + (r / C) ** 2),
}


@pytest.mark.parametrize("kind", FORMULAS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_is_its_formula_and_has_finite_derivatives(kind, dtype):
    r = np.concatenate([[0.0, 1e-12, C, 1e6], np.linspace(-4, 4, 41)])
    value, slope, curvature = slopes(kind(C), jnp.asarray(r**2, dtype))
    rtol = 1e-9 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(value, FORMULAS[kind](r), rtol=rtol, atol=1e-15)
    np.testing.assert_allclose(value[1], 1e-24, rtol=1e-6)
    assert value.dtype == dtype
    for derivative in (slope, curvature):
        assert np.all(np.isfinite(derivative))
    np.testing.assert_allclose(slope[0], 1, rtol=1e-6)
    assert np.all(slope >= -1e-15)


def test_the_smoothed_l1_loss_is_the_sum_of_sizes():
    r = jnp.asarray([0.0, -3.0, 1e-3, 1e9])
    cost = 0.5 * gramlm.L1(1e-6).rho(r**2)
    np.testing.assert_allclose(cost, np.abs(r), rtol=1e-2, atol=2e-6)
    assert cost[0] == 0


def curve(params, data):
    t, y = data
    return params[0] * jnp.exp(-params[1] * t) + params[2] - y


def outliers(n=40, dtype=jnp.float64):
    rng = np.random.default_rng(5)
    t = np.linspace(0, 3, n)
    y = 2 * np.exp(-1.3 * t) + 0.5 + 0.02 * rng.normal(size=n)
    y[::7] += 2 * rng.normal(size=len(y[::7]))
    return jnp.asarray(t, dtype), jnp.asarray(y, dtype)


START = jnp.asarray([1.0, 1.0, 0.0])


def model_of(problem, params, data):
    flat = flat_problem(problem, params, data)[0]
    return flat, gramlm.linearise(problem, params, data, memory=gramlm.Materialise())


@pytest.mark.parametrize("loss", [kind(0.1) for kind in FORMULAS], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("size", [1, 4])
def test_the_model_has_the_slope_of_the_cost(loss, size):
    loss = loss if size == 1 else gramlm.PerBlock(loss, size)
    problem, data = gramlm.Problem(curve, loss=loss), outliers()
    flat, at = model_of(problem, START, data)
    gradient = jax.grad(lambda q: flat.cost(flat.residual(q)))(START)
    np.testing.assert_allclose(at.vjp(at.residual), gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [1, 4])
def test_the_model_has_the_curvature_of_the_loss_where_that_is_positive_enough(size):
    data, loss = outliers(), gramlm.PerBlock(gramlm.SoftL1(2.0), size)
    at = model_of(gramlm.Problem(curve, loss=loss), START, data)[1]
    r, J = curve(START, data), jax.jacfwd(curve)(START, data)

    def cost(r):
        return 0.5 * jnp.sum(loss.rho(jnp.sum(r.reshape(-1, size) ** 2, axis=1)))

    curvature = jax.hessian(cost)(r)
    squares = jnp.sum(r.reshape(-1, size) ** 2, axis=1)
    assert np.min(1 / (1 + squares / 4)) > LEAST_CURVATURE  # 1 + 2sρ″/ρ′ of this loss
    np.testing.assert_allclose(at.jacobian.T @ at.jacobian, J.T @ curvature @ J, rtol=1e-9)


def test_the_curvature_along_an_outlier_is_kept_at_a_tenth():
    at = gramlm.linearise(
        gramlm.Problem(lambda t: t, loss=gramlm.Huber(1.0)),
        jnp.asarray([0.5, 10.0]),
        memory=gramlm.Materialise(),
    )
    np.testing.assert_allclose(at.jacobian**2, np.diag([1.0, 0.1 * LEAST_CURVATURE]), atol=1e-15)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("huber", gramlm.Huber),
        ("soft_l1", gramlm.SoftL1),
        ("cauchy", gramlm.Cauchy),
        ("arctan", gramlm.Arctan),
    ],
)
def test_a_robust_fit_is_that_of_scipy(name, loss):
    data, start = outliers(), jnp.asarray([1.8, 1.2, 0.4])
    found = gramlm.solve(curve, start, data, loss=loss(0.1))
    other = least_squares(
        lambda p: np.asarray(curve(p, data)), start, loss=name, f_scale=0.1, xtol=1e-14,
        ftol=1e-14, gtol=1e-10, jac=lambda p: np.asarray(jax.jacfwd(curve)(jnp.asarray(p), data)),
    )  # fmt: skip
    np.testing.assert_allclose(found.value, other.x, rtol=1e-6)
    np.testing.assert_allclose(found.stats["cost"], other.cost, rtol=1e-12)


@pytest.mark.parametrize(
    ("solver", "form"),
    [
        (gramlm.DenseSolver(), gramlm.Form.dual),
        (gramlm.KrylovSolver(), gramlm.Form.normal),
        (gramlm.PreconditionedCG(gramlm.NoPreconditioner()), gramlm.Form.normal),
    ],
)
def test_every_engine_takes_a_loss_and_rows(solver, form):
    def point(params, x):
        return curve(params, x)

    data, loss = outliers(), gramlm.Cauchy(0.1)
    lm = gramlm.LevenbergMarquardt(linear_solver=solver, form=form, memory=gramlm.RowBlocks(16))
    found = gramlm.solve(gramlm.Rows(point), START, data, loss=loss, solver=lm)
    gradient = jax.grad(lambda q: 0.5 * jnp.sum(loss.rho(curve(q, data) ** 2)))(found.value)
    assert np.max(np.abs(gradient)) < 1e-7


@pytest.mark.parametrize(
    ("dtype", "exponent"), [("float32", 0), ("float32", 40), ("float32", -70), ("float64", -560)]
)
def test_residuals_of_any_size(dtype, exponent):
    """Squares of which leave the range of the dtype."""
    unit = 2.0**exponent
    data = outliers(dtype=jnp.dtype(dtype))
    found = gramlm.solve(
        lambda p, d: curve(p, d) * jnp.asarray(unit, dtype), START.astype(dtype), data,
        loss=gramlm.SoftL1(0.1 * unit), throw=False,
    )  # fmt: skip
    double = gramlm.solve(curve, START, outliers(), loss=gramlm.SoftL1(0.1))
    np.testing.assert_allclose(found.value, double.value, rtol=1e-3)


def test_losses_may_differ_between_parts_of_the_residual_and_from_point_to_point():
    data = outliers()
    t = data[0]

    def residual(params, data):
        return {"data": curve(params, data), "prior": 0.1 * params}

    found = gramlm.solve(
        residual, START, data, loss={"data": gramlm.Cauchy(jnp.full_like(t, 0.1)), "prior": None}
    )

    def cost(p):
        return 0.5 * jnp.sum(0.01 * jnp.log1p((curve(p, data) / 0.1) ** 2)) + 0.005 * jnp.sum(p**2)

    np.testing.assert_allclose(found.stats["cost"], cost(found.value), rtol=1e-12)
    assert np.max(np.abs(jax.grad(cost)(found.value))) < 1e-8


def test_the_hessian_is_that_of_the_loss():
    data, loss = outliers(), gramlm.Cauchy(0.5)
    product = gramlm.diagnostics.hessian_product(
        gramlm.Problem(curve, loss=loss), START, jnp.asarray([1.0, -2.0, 0.5]), data
    )
    hessian = jax.hessian(lambda q: 0.5 * jnp.sum(loss.rho(curve(q, data) ** 2)))(START)
    np.testing.assert_allclose(product, hessian @ jnp.asarray([1.0, -2.0, 0.5]), rtol=1e-10)


def test_what_no_loss_can_be_is_refused():
    with pytest.raises(ValueError, match=r"`Huber\(scale=…\)` must be positive"):
        gramlm.Huber(0.0)
    for bad in ([1.0, -1.0], [1.0, jnp.inf]):
        with pytest.raises(ValueError, match=r"`Cauchy\(scale=…\)` must be positive and finite"):
            gramlm.Cauchy(jnp.asarray(bad))
    with pytest.raises(ValueError, match=r"`L1\(smoothing=…\)` must be positive"):
        gramlm.L1(0.0)
    with pytest.raises(TypeError, match="`loss` must be a `gramlm"):
        gramlm.solve(curve, START, outliers(), loss="huber")
    with pytest.raises(ValueError, match="`loss` must have the structure of the residual"):
        gramlm.solve(curve, START, outliers(), loss=(gramlm.Huber(), None))
    with pytest.raises(ValueError, match="does not divide the residual array"):
        gramlm.solve(curve, START, outliers(), loss=gramlm.PerBlock(gramlm.Huber(), 3))
    with pytest.raises(ValueError, match="`scale` must be numbers that broadcast"):
        gramlm.solve(curve, START, outliers(), loss=gramlm.Huber(jnp.ones(3)))
    with pytest.raises(TypeError, match="beside a `Problem`"):
        gramlm.solve(gramlm.Problem(curve), START, outliers(), loss=gramlm.Huber())
