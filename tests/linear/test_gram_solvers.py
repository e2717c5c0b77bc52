"""Every linear solver gives the Levenberg-Marquardt step, or says that it has not."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from gramlm._problem.residual.canonical import canonical
from support.problems import METRICS, dense, sine, sine_problem

Form = gramlm.Form
# m = min(n, p): up to 64 the orthogonal factorisation is always used, above it Cholesky.
SIZES = {
    "wide": (7, 12),
    "square": (9, 9),
    "tall": (12, 7),
    "large_wide": (70, 90),
    "large_tall": (90, 70),
}
DENSE = gramlm.DenseSolver()


def step_of(solver, n, p, metric=None, damping=0.1, form=Form.auto, problem=None, rhs=None):
    """The `LinearStep` of a solver, compiled, for a sine problem unless another one is given."""
    problem = sine_problem(n, p) if problem is None else problem
    function, flat = canonical(problem.residual_fn, problem.params, problem.args)
    structure = jax.ShapeDtypeStruct((p,), flat.dtype)
    metric = lx.IdentityLinearOperator(structure) if metric is None else metric

    @eqx.filter_jit
    def run(damping, rhs):
        at, _ = solver.linearise(gramlm.Keep(), function, flat)
        largest = jnp.linalg.norm(problem.jacobian, ord=2) ** 2
        factors = solver.factorise(at, metric, largest, form, solver.init(at.residual, flat, form))
        tolerance = jnp.asarray(1e-12, flat.dtype)
        b = at.residual if rhs is None else rhs
        return factors.at(damping).solve(b, factors.work, tolerance)

    return run(jnp.asarray(damping, flat.dtype), rhs), function(flat)


def reference(jacobian, residual, metric, damping):
    """The step by least squares with the stacked matrix, K never squared."""
    J, r = np.asarray(jacobian, np.float64), np.asarray(residual, np.float64)
    factor = np.linalg.cholesky(np.asarray(dense(metric, J.shape[1]), np.float64)).T
    stacked = np.concatenate([J, np.sqrt(float(damping)) * factor])
    right = np.concatenate([-r, np.zeros(J.shape[1])])
    return np.linalg.lstsq(stacked, right, rcond=None)[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("metric", METRICS)
def test_dense_steps_in_both_forms_are_the_reference_step(size, metric):
    n, p = SIZES[size]
    problem, m = sine_problem(n, p), METRICS[metric](p)
    found = {form: step_of(DENSE, n, p, m, form=form) for form in (Form.dual, Form.normal)}
    for step, residual in found.values():
        expected = reference(problem.jacobian, residual, m, 0.1)
        np.testing.assert_allclose(step.step, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(step.image, problem.jacobian @ expected, rtol=1e-9, atol=1e-12)
        assert step.solved
        assert step.relative_residual <= 1e-13
        # J δ + r = λ w, with δ = −M⁻¹ Jᵀ w.
        w = (step.image + residual) / 0.1
        back = -jnp.linalg.solve(dense(m, p), problem.jacobian.T @ w)
        np.testing.assert_allclose(step.step, back, rtol=1e-8, atol=1e-11)
        left = 0.5 * jnp.sum(residual**2) - 0.5 * jnp.sum((residual + step.image) ** 2)
        np.testing.assert_allclose(step.predicted_decrease(residual), left, rtol=1e-10)


def ill_conditioned(n, p, condition=1e6):
    """A linear problem whose singular values fall geometrically."""
    rng = np.random.default_rng(3)
    k = min(n, p)
    u = np.linalg.qr(rng.normal(size=(n, k)))[0]
    v = np.linalg.qr(rng.normal(size=(p, k)))[0]
    jacobian = jnp.asarray(u * np.geomspace(1, 1 / condition, k) @ v.T)
    target = jnp.asarray(jacobian @ rng.normal(size=p))
    problem = sine_problem(n, p)
    return problem._replace(
        residual_fn=lambda t, a: a[0] @ t - a[1],
        params=jnp.zeros(p),
        args=(jacobian, target),
        jacobian=jacobian,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("damping", [1e-12, 2e-14, 1e-15])
def test_tiny_damping_loses_no_more_than_the_condition_number_of_the_jacobian(size, damping):
    n, p = SIZES[size]
    problem = ill_conditioned(n, p)
    step, residual = step_of(DENSE, n, p, damping=damping, problem=problem)
    # Exactly, from the singular values: cond([J; √λI]) is at most 1e6 here, its square 1e12.
    u, s, vt = np.linalg.svd(np.asarray(problem.jacobian), full_matrices=False)
    exact = -vt.T @ (s / (s**2 + damping) * (u.T @ np.asarray(residual)))
    assert step.solved
    assert np.linalg.norm(step.step - exact) <= 1e-7 * np.linalg.norm(exact)
    if n <= p:
        naive = jnp.linalg.solve(
            problem.jacobian @ problem.jacobian.T + damping * jnp.eye(n), residual
        )
        error = np.linalg.norm(-problem.jacobian.T @ naive - exact) / np.linalg.norm(exact)
        assert np.linalg.norm(step.step - exact) / np.linalg.norm(exact) <= max(error, 1e-9)


USERS = {
    "cg": lx.CG(rtol=1e-12, atol=1e-12),
    "lu": lx.LU(),
    "svd": lx.SVD(),
    "own_cg": gramlm.ConjugateGradient(rtol=1e-12),
}


@pytest.mark.parametrize("size", ["wide", "tall"])
@pytest.mark.parametrize("metric", ["identity", "dense"])
@pytest.mark.parametrize("name", USERS)
def test_solvers_of_the_users_give_the_same_step(size, metric, name):
    n, p = SIZES[size]
    problem, m = sine_problem(n, p), METRICS[metric](p)
    step, residual = step_of(gramlm.LineaxSolver(USERS[name]), n, p, m)
    expected = reference(problem.jacobian, residual, m, 0.1)
    np.testing.assert_allclose(step.step, expected, rtol=1e-8, atol=1e-11)
    assert step.solved
    assert step.relative_residual <= 1e-10
    assert (step.iterations > 0) == ("cg" in name)


class Liar(lx.AbstractLinearSolver):
    """Returns `factor` times the right-hand side, and says that this is the solution."""

    factor: float

    def init(self, operator: Any, options: Any):
        return jnp.zeros(())

    def compute(self, state: Any, vector: Any, options: Any):
        return self.factor * vector, lx.RESULTS.successful, {}

    def transpose(self, state: Any, options: Any):
        return state, options

    def conj(self, state: Any, options: Any):
        return state, options

    def assume_full_rank(self):
        return True


@pytest.mark.parametrize("factor", [0.0, 1e6, -3.0, float("nan"), float("inf")])
@pytest.mark.parametrize("size", ["wide", "tall"])
def test_a_solver_that_lies_is_not_believed(factor, size):
    step, _ = step_of(gramlm.LineaxSolver(Liar(factor)), *SIZES[size])
    assert not step.solved


@pytest.mark.parametrize("factor", [0.0, 1e6, float("nan")])
def test_a_solve_with_a_solver_that_lies_fails_and_keeps_the_start(factor):
    problem = sine_problem(4, 6)
    solver = gramlm.LevenbergMarquardt(linear_solver=Liar(factor))
    solution = gramlm.solve(sine, problem.params, problem.args, solver=solver, throw=False)
    assert solution.result == gramlm.RESULTS.linear_solver_failed
    np.testing.assert_array_equal(solution.value, problem.params)


@pytest.mark.parametrize("solver", [DENSE, gramlm.LineaxSolver(USERS["own_cg"])])
@pytest.mark.parametrize("size", ["wide", "tall"])
def test_a_zero_right_hand_side_has_the_zero_step(solver, size):
    n, p = SIZES[size]
    step, _ = step_of(solver, n, p, rhs=jnp.zeros(n))
    np.testing.assert_array_equal(step.step, np.zeros(p))
    np.testing.assert_array_equal(step.image, np.zeros(n))
    assert step.solved


@pytest.mark.parametrize("size", ["wide", "tall", "large_wide"])
def test_float32_steps_are_good_to_float32(size):
    n, p = SIZES[size]
    problem = sine_problem(n, p, jnp.float32)
    step, residual = step_of(DENSE, n, p, problem=problem)
    assert step.step.dtype == jnp.float32
    expected = reference(problem.jacobian, residual, None, 0.1)
    assert np.linalg.norm(step.step - expected) <= 1e-5 * np.linalg.norm(expected)
    assert step.solved


def test_what_is_no_lineax_solver_is_named():
    with pytest.raises(TypeError, match=r"AbstractLinearSolver"):
        gramlm.LineaxSolver(jnp.linalg.solve)
