"""λ from the length of the step, by every way a linear solver has of finding it."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.linear import SOLVER, Case, decaying, factorised

SIZES = {"wide": (12, 20), "tall": (20, 12), "wide, large": (80, 90), "tall, large": (90, 80)}
SOLVERS = {
    "dense": gramlm.DenseSolver(),
    "krylov": SOLVER,
    "cg": gramlm.PreconditionedCG(),
}


def case(size, solver, dtype=jnp.float64):
    n, p = SIZES[size]
    rng = np.random.default_rng(3)
    b = rng.normal(size=n)
    return Case.from_arrays(decaying(n, p, 1e3), b, dtype, "diagonal", solver=SOLVERS[solver])


def length(case, damping):
    """`‖δ(λ)‖_M`, by the singular values of the whitened Jacobian."""
    a, _ = case.whitened
    u, s, _ = np.linalg.svd(a, full_matrices=False)
    return np.linalg.norm(s / (s**2 + damping) * (u.T @ np.asarray(case.b, float)))


@eqx.filter_jit
def found(case, largest, radius, guess, least):
    factors = factorised(case, largest, case.recycled)
    tolerance = jnp.asarray(1e-3, case.b.dtype)
    bound = gramlm.extend.LengthBound(case.b, case.metric, radius, guess, least, tolerance)
    return factors.damping_within(bound, factors.work)


def within(case, radius, guess=1e-3, least=1e-9):
    return found(
        case, *(jnp.asarray(x, case.b.dtype) for x in (case.largest, radius, guess, least))
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("size", SIZES)
def test_the_step_has_the_length_asked_for(size, solver):
    problem = case(size, solver)
    for exact in (1e-4, 1e-2, 3.0):
        radius = length(problem, exact)
        damping = float(within(problem, radius).damping)
        np.testing.assert_allclose(length(problem, damping), radius, rtol=0.11)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_that_is_shorter_gets_the_least_damping(solver):
    problem = case("wide", solver)
    radius = 2 * length(problem, 1e-3)
    np.testing.assert_allclose(within(problem, radius, least=1e-3).damping, 1e-3, rtol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_infinite_radius_gets_the_guess(solver):
    problem = case("tall", solver)
    np.testing.assert_allclose(within(problem, np.inf, guess=0.02).damping, 0.02, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_lengths_of_any_size(scale):
    problem = case("wide", "dense")
    problem = problem._replace(b=problem.b * scale)
    damping = float(within(problem, length(problem, 1e-2)).damping)
    np.testing.assert_allclose(damping, 1e-2, rtol=0.01)


def test_a_damping_so_large_that_the_step_hardly_moves_is_found():
    problem = case("wide", "dense")
    damping = float(within(problem, length(problem, 1e12)).damping)
    np.testing.assert_allclose(damping, 1e12, rtol=0.01)


def test_float32():
    for solver in SOLVERS:
        problem = case("tall", solver, jnp.float32)
        radius = length(problem, 1e-2)
        damping = within(problem, radius, least=1e-6).damping
        assert damping.dtype == jnp.float32
        np.testing.assert_allclose(length(problem, float(damping)), radius, rtol=0.11)
