"""Weights multiply squares; covariances of the errors whiten; for every way to hold J."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from support.problems import POLICIES, definite, sine, sine_problem


def linear(problem, at):
    """The model at `at` as a dense pair."""
    found = gramlm.linearise(problem, at.params, at.args, memory=gramlm.Materialise())
    return found.residual, found.jacobian


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_whiten_the_residual_and_its_jacobian(shape, dtype):
    n = shape[0]
    at = sine_problem(*shape, dtype=jnp.dtype(dtype))
    residual = sine(at.params, at.args)
    weights = np.linspace(0.0, 3.0, n)
    operator = definite(n)
    factor = np.linalg.inv(np.linalg.cholesky(operator.as_matrix()))
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for given, dense in (
        (jnp.asarray(weights), np.diag(np.sqrt(weights))),
        (2.0, np.sqrt(2) * np.eye(n)),
        (gramlm.NoiseCovariance(operator), factor),
        (gramlm.NoiseCovariance(np.asarray(operator.as_matrix())), factor),
        (gramlm.NoiseCovariance(lx.DiagonalLinearOperator(jnp.full(n, 4.0))), 0.5 * np.eye(n)),
        (gramlm.LinearWeighting(definite(n, jnp.dtype(dtype), 3)), definite(n, seed=3).as_matrix()),
    ):
        r, jacobian = linear(gramlm.Problem(at.residual_fn, weights=given), at)
        assert r.dtype == dtype
        np.testing.assert_allclose(r, dense @ residual, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(jacobian, dense @ at.jacobian, rtol=tolerance, atol=tolerance)


MEMORIES = [*POLICIES.values(), gramlm.RowBlocks(3, False)]


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("rows", [True, False])
def test_every_memory_policy_multiplies_by_the_same_matrix(memory, rows):
    rng = np.random.default_rng(0)
    x, params = jnp.asarray(rng.normal(size=(8, 2))), jnp.asarray(rng.normal(size=5))

    def point(t, x):
        return jnp.sin(t[:4].reshape(2, 2) @ x) * t[4]

    function = gramlm.Rows(point) if rows else jax.vmap(point, (None, 0))
    matrix = definite(16).as_matrix()
    for weights in (jnp.linspace(0.5, 2.0, 16).reshape(8, 2), gramlm.NoiseCovariance(matrix)):
        problem = gramlm.Problem(function, weights=weights, loss=gramlm.Cauchy(0.5))
        dense = gramlm.linearise(problem, params, x, memory=gramlm.Materialise())
        at = gramlm.linearise(problem, params, x, memory=memory)
        np.testing.assert_allclose(at.residual, dense.residual, rtol=1e-12)
        v, u = jnp.asarray(rng.normal(size=(3, 5))), jnp.asarray(rng.normal(size=(3, 16)))
        for k in (1, 3):
            images, pulled = v[:k] @ dense.jacobian.T, u[:k] @ dense.jacobian
            np.testing.assert_allclose(at.jvp_block(v[:k]), images, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(at.vjp_block(u[:k]), pulled, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(at.jvp(v[0]), dense.jacobian @ v[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(at.vjp(u[0]), u[0] @ dense.jacobian, rtol=1e-9, atol=1e-12)
        exact = at.sum_squared_rows()
        if exact is not None:
            squares = np.sum(np.asarray(dense.jacobian) ** 2, axis=0)
            np.testing.assert_allclose(exact[0], squares, rtol=1e-10)
        diagonal = gramlm.diagnostics.gram_diagonal(at).value
        np.testing.assert_allclose(diagonal, np.sum(dense.jacobian**2, axis=1), rtol=1e-9)


def test_generalised_least_squares_has_its_closed_form():
    rng = np.random.default_rng(4)
    design, y = jnp.asarray(rng.normal(size=(12, 3))), jnp.asarray(rng.normal(size=12))
    covariance = definite(12).as_matrix()
    found = gramlm.solve(
        lambda t: design @ t - y, jnp.zeros(3), weights=gramlm.NoiseCovariance(covariance)
    )
    inverse = jnp.linalg.inv(covariance)
    expected = jnp.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ y)
    np.testing.assert_allclose(found.value, expected, rtol=1e-10)
    r = design @ expected - y
    np.testing.assert_allclose(found.stats["cost"], 0.5 * r @ inverse @ r, rtol=1e-12)


def test_weights_of_points_work_with_rows_and_the_krylov_engine():
    rng = np.random.default_rng(4)
    x, y = jnp.linspace(0, 1, 30), jnp.asarray(rng.normal(size=30))
    centres, weights = jnp.linspace(0, 1, 50), jnp.linspace(0.1, 10, 30)

    def point(t, data):
        return t @ jnp.exp(-900 * (data[0] - centres) ** 2) - data[1]

    rows = gramlm.Rows(point)
    lm = gramlm.LevenbergMarquardt(
        linear_solver=gramlm.KrylovSolver(), memory=gramlm.RowBlocks(8), metric=gramlm.PowerMetric()
    )
    found = gramlm.solve(rows, jnp.zeros(50), (x, y), weights=weights, solver=lm)
    weighted = gramlm.Rows(lambda t, data: data[2] * point(t, data))
    other = gramlm.solve(weighted, jnp.zeros(50), (x, y, jnp.sqrt(weights)), solver=lm)
    assert found.stats["initial_cost"] == other.stats["initial_cost"]
    steps = min(found.stats["num_steps"], other.stats["num_steps"], 2)
    np.testing.assert_allclose(found.history.cost[:steps], other.history.cost[:steps], rtol=1e-6)
    np.testing.assert_allclose(rows(found.value, (x, y)), 0, atol=1e-6)


def test_a_residual_of_no_weight_counts_for_nothing():
    x = jnp.arange(5.0)
    for missing in (1e6, jnp.nan):
        y = jnp.where(x == 3, missing, 2 * x + 1)

        def misfit(t, y=y):
            return t[0] * x + t[1] - y

        found = gramlm.solve(misfit, jnp.zeros(2), weights=1.0 * (x != 3))
        np.testing.assert_allclose(found.value, [2, 1], atol=1e-9)


def test_single_steps_take_a_problem():
    problem = gramlm.Problem(lambda t: jnp.stack([t[0] - 1, t[1] - 2, t[0] + t[1]]), weights=2.0)
    solver, params = gramlm.LevenbergMarquardt(), jnp.zeros(2)
    state = solver.init(problem, params)
    for _ in range(6):
        params, state, info = solver.step(problem, params, state)
    np.testing.assert_allclose(params, [0, 1], atol=1e-8)
    np.testing.assert_allclose(info.cost, 3.0, rtol=1e-12)


def test_a_loss_is_that_of_the_rows_that_a_linear_map_makes():
    rng = np.random.default_rng(0)
    matrix, design = jnp.asarray(rng.normal(size=(7, 9))), jnp.asarray(rng.normal(size=(9, 2)))
    weights = gramlm.LinearWeighting(lx.MatrixLinearOperator(matrix))
    problem = gramlm.Problem(lambda t: design @ t - 1, weights=weights, loss=gramlm.Cauchy(1.0))
    at = gramlm.linearise(problem, jnp.ones(2))
    rows = matrix @ (design @ jnp.ones(2) - 1)
    gradient = (matrix @ design).T @ (rows / (1 + rows**2))
    np.testing.assert_allclose(at.vjp(at.residual), gradient, rtol=1e-12)


def test_what_no_weights_can_be_is_refused():
    residual, start = (lambda t: jnp.concatenate([t, 2 * t])), jnp.ones(2)
    for bad in (-1.0, jnp.asarray([1.0, 1.0, -1e-9, 1.0]), jnp.nan, jnp.inf):
        with pytest.raises(ValueError, match="`weights` must be finite and not negative"):
            gramlm.solve(residual, start, weights=bad)
    with pytest.raises(TypeError, match="`weights` must be real"):
        gramlm.solve(residual, start, weights=1j)
    with pytest.raises(ValueError, match="`weights` must be numbers that broadcast"):
        gramlm.solve(residual, start, weights=jnp.ones(3))
    with pytest.raises(ValueError, match="is for 3 residuals, but `residual_fn` returns 4"):
        gramlm.solve(residual, start, weights=gramlm.NoiseCovariance(jnp.eye(3)))
    with pytest.raises(ValueError, match="positive definite matrix, and this is not"):
        gramlm.NoiseCovariance(jnp.asarray([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="positive definite matrix, and this is not"):
        gramlm.NoiseCovariance(lx.DiagonalLinearOperator(jnp.asarray([1.0, 0.0])))
    with pytest.raises(ValueError, match="takes a symmetric matrix"):
        gramlm.NoiseCovariance(jnp.asarray([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="takes a square matrix"):
        gramlm.NoiseCovariance(jnp.ones(3))
    with pytest.raises(TypeError, match="takes a lineax operator"):
        gramlm.LinearWeighting(jnp.eye(3))

    def traced(weights):
        return gramlm.solve(residual, start, weights=weights, throw=False).value

    with pytest.raises(Exception, match="`weights` must be finite and not negative"):
        jax.block_until_ready(jax.jit(traced)(jnp.asarray(-1.0)))
