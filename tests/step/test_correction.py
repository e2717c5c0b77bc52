"""Geodesic acceleration is the analytic one, and is only used where it helps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._model.model import Model
from gramlm._problem.flat import FlatProblem
from gramlm._problem.residual.canonical import canonical
from gramlm._step.anywhere import Unconstrained
from gramlm._step.corrected import DampedSolve, stepper_of
from support.problems import definite, rosenbrock

LM = gramlm.LevenbergMarquardt
LAMBDA = 0.3


def quadratic(t, args):
    """`r_k = b_k·θ + ½ θᵀ A_k θ − 1`, so that `r_vv = vᵀ A_k v` wherever it is taken."""
    linear, curvature = args
    return linear @ t + 0.5 * jnp.einsum("kij,i,j->k", curvature, t, t) - 1


def quadratic_problem(n, p, size=1.0):
    rng = np.random.default_rng(8)
    curvature = rng.normal(size=(n, p, p)) * size
    curvature = jnp.asarray(curvature + curvature.transpose(0, 2, 1))
    args = (jnp.asarray(rng.normal(size=(n, p))), curvature)
    return jnp.asarray(rng.normal(size=p)), args


def correct(correction, n, p, metric, size=1.0):
    """The correction at the start, with v and the Jacobian there."""
    params, args = quadratic_problem(n, p, size)
    function, flat = canonical(quadratic, params, args)
    solver = gramlm.DenseSolver()
    at, _ = solver.linearise(gramlm.Keep(), function, flat)
    form, tolerance = gramlm.Form.auto, jnp.asarray(1e-12)
    recycled = solver.init(at.residual, flat, form)
    factors = solver.factorise(at, metric, jnp.asarray(1.0), form, recycled)
    system = factors.at(jnp.asarray(LAMBDA))
    solve = DampedSolve(
        subproblem=Unconstrained(at, at.residual),
        system=system,
        metric=metric,
        model=Model.of(FlatProblem(function), at),
        function=function,
        params=flat,
        velocity=tolerance,
        acceleration=tolerance,
    )
    found = stepper_of(correction).step(solve, factors.work)
    return found, at.jacobian, args[1]


@pytest.mark.parametrize(("n", "p"), [(3, 5), (5, 3)])
def test_the_acceleration_is_the_analytic_one(n, p):
    metric = definite(p)
    found, jacobian, curvature = correct(gramlm.Geodesic(), n, p, metric)
    v = found.velocity.step
    second = jnp.einsum("kij,i,j->k", curvature, v, v)
    M = metric.as_matrix()
    normal = jacobian.T @ jacobian + LAMBDA * M
    expected = -0.5 * jnp.linalg.solve(normal, jacobian.T @ second)
    np.testing.assert_allclose(found.steps[1] - v, expected, rtol=1e-9)
    ratio = 2 * jnp.sqrt(expected @ M @ expected / (v @ M @ v))
    np.testing.assert_allclose(found.ratio, ratio, rtol=1e-10)
    for limit, usable in ((1.01 * float(ratio), True), (0.99 * float(ratio), False)):
        found = correct(gramlm.Geodesic(limit), n, p, metric)[0]
        np.testing.assert_array_equal(found.wanted, [True, usable])


def test_a_linear_residual_has_no_acceleration():
    found, *_ = correct(gramlm.Geodesic(), 3, 5, definite(5), size=0.0)
    np.testing.assert_array_equal(found.steps[1], found.steps[0])
    assert found.ratio == 0


def first_step(correction, residual, start, initial):
    solver = LM(
        correction=correction,
        damping=gramlm.Constant(initial),
        metric=gramlm.IdentityMetric(),
        acceptance=gramlm.Monotone(0.0),
    )
    params, _, info = solver.step(residual, start, solver.init(residual, start))
    return params, info


@pytest.mark.parametrize("initial", [1e-3, 0.3])
def test_a_corrected_step_never_costs_more_than_the_plain_one(initial):
    @eqx.filter_jit
    def both(start):
        pair = (None, gramlm.Geodesic())
        return [first_step(correction, rosenbrock, start, initial)[1] for correction in pair]

    starts = jnp.asarray(np.random.default_rng(4).uniform(-2, 2, size=(40, 2)))
    plain, corrected = jax.vmap(both)(starts)
    assert jnp.all(corrected.cost_candidate <= plain.cost_candidate * (1 + 1e-12))
    used = corrected.used_acceleration
    assert jnp.sum(used) > 0
    assert jnp.all(corrected.acceleration_ratio[used] <= 0.75)
    np.testing.assert_allclose(
        corrected.cost_candidate[~used], plain.cost_candidate[~used], rtol=1e-10
    )
    assert not jnp.any(plain.used_acceleration)
    np.testing.assert_array_equal(plain.acceleration_ratio, np.zeros(40))
    assert jnp.all(plain.evaluations == 1)


def test_a_correction_that_is_not_finite_is_not_used():
    start = jnp.asarray([1.0, 2.0])

    def residual(t):
        # |x|^{3/2} has a first derivative at zero, but no second one.
        return t + jnp.where(t == start, 0.0, 1.0) * jnp.abs(t - start) ** 1.5 + 1e-3

    params, info = first_step(gramlm.Geodesic(), residual, start, 10.0)
    assert jnp.all(jnp.isfinite(params))
    assert info.accepted


@pytest.mark.parametrize("solver", [gramlm.KrylovSolver(block_size=4), gramlm.PreconditionedCG()])
def test_what_the_velocity_may_miss_anyway_is_not_corrected(solver):
    def step(correction, size):
        params, args = quadratic_problem(30, 40, size)
        lm = LM(
            linear_solver=solver,
            correction=correction,
            damping=gramlm.Constant(1e-3),
            metric=gramlm.IdentityMetric(),
            forcing=gramlm.FixedForcing(0.1, 0.1),
        )
        return lm.step(quadratic, params, lm.init(quadratic, params, args), args)[2]

    plain, corrected = (step(correction, 1e-6) for correction in (None, gramlm.Geodesic()))
    assert plain.inner_iterations == corrected.inner_iterations > 0
    assert not corrected.used_acceleration
    assert corrected.evaluations == 1
    plain, corrected = (step(correction, 0.1) for correction in (None, gramlm.Geodesic(1e3)))
    assert plain.inner_iterations < corrected.inner_iterations
    assert corrected.evaluations == 2


def test_without_correction_there_is_none():
    found = correct(None, 3, 5, definite(5))[0]
    assert found.steps.shape == (1, 5)
    np.testing.assert_array_equal(found.wanted, [True])


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan")])
def test_the_ratio_must_be_positive(ratio):
    with pytest.raises(ValueError, match="`max_ratio` must be positive"):
        gramlm.Geodesic(ratio)
