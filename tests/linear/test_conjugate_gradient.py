"""Conjugate gradients reach their tolerance in norm, or say that they have not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from support.problems import definite

PSD = lx.positive_semidefinite_tag


def run(operator, b, **settings):
    solver = gramlm.ConjugateGradient(**settings)
    return lx.linear_solve(operator, b, solver, throw=False)


@pytest.mark.parametrize("size", [1, 2, 20])
@pytest.mark.parametrize("rtol", [1e-3, 1e-12])
def test_the_residual_is_below_the_tolerance(size, rtol, rng):
    operator, b = definite(size), jnp.asarray(rng.normal(size=size))
    solution = run(operator, b, rtol=rtol)
    assert solution.result == lx.RESULTS.successful
    left = jnp.linalg.norm(b - operator.mv(solution.value))
    assert left <= 1.01 * rtol * jnp.linalg.norm(b)
    assert 1 <= solution.stats["num_steps"] <= size
    if rtol < 1e-10:
        exact = jnp.linalg.solve(operator.as_matrix(), b)
        np.testing.assert_allclose(solution.value, exact, rtol=1e-9)


def test_zero_has_the_solution_zero_without_iterating():
    solution = run(definite(5), jnp.zeros(5))
    np.testing.assert_array_equal(solution.value, np.zeros(5))
    assert solution.result == lx.RESULTS.successful
    assert solution.stats["num_steps"] == 0


def test_zeros_within_the_right_hand_side_do_no_harm():
    matrix = jnp.diag(jnp.arange(1.0, 6.0))
    b = jnp.asarray([0.0, 1.0, 0.0, 0.0, 2.0])
    solution = run(lx.MatrixLinearOperator(matrix, PSD), b, rtol=1e-12)
    np.testing.assert_allclose(solution.value, b / jnp.arange(1.0, 6.0), atol=1e-14)


@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e-12, 1.0, 1e12, 1e25, 1e37])
def test_the_scale_of_the_right_hand_side_does_not_matter_in_float32(scale):
    operator = lx.MatrixLinearOperator(jnp.diag(jnp.asarray([1.0, 2, 3], jnp.float32)), PSD)
    b = jnp.full(3, scale, jnp.float32)
    solution = run(operator, b, rtol=1e-5)
    assert solution.result == lx.RESULTS.successful
    expected = np.full(3, scale) / np.arange(1, 4)
    np.testing.assert_allclose(np.asarray(solution.value, float), expected, rtol=1e-4)


@pytest.mark.parametrize("matrix", [-jnp.eye(3), jnp.diag(jnp.asarray([1.0, -2, 0.5]))])
def test_an_operator_falsely_tagged_is_a_breakdown(matrix):
    solution = run(lx.MatrixLinearOperator(matrix, PSD), jnp.ones(3))
    assert solution.result == lx.RESULTS.breakdown
    assert jnp.all(jnp.isfinite(solution.value))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_what_is_not_finite_is_never_a_success(bad):
    matrix, b = jnp.eye(3), jnp.ones(3)
    in_matrix = run(lx.MatrixLinearOperator(matrix.at[1, 1].set(bad), PSD), b)
    in_vector = run(lx.MatrixLinearOperator(matrix, PSD), b.at[1].set(bad))
    assert in_matrix.result != lx.RESULTS.successful
    assert in_vector.result != lx.RESULTS.successful


def test_large_well_conditioned_systems_in_float32():
    n = 20_000
    entries = jnp.linspace(1, 10, n, dtype=jnp.float32)
    operator = lx.TaggedLinearOperator(lx.DiagonalLinearOperator(entries), PSD)
    b = jnp.sin(jnp.arange(n, dtype=jnp.float32))
    solution = run(operator, b, rtol=1e-5)
    assert solution.result == lx.RESULTS.successful
    assert solution.stats["num_steps"] < 60
    error = jnp.linalg.norm(solution.value - b / entries) / jnp.linalg.norm(b / entries)
    assert error < 1e-4


def test_too_few_iterations_are_reported_with_what_there_is():
    operator, b = definite(20), jnp.ones(20)
    solution = run(operator, b, rtol=1e-12, max_steps=3)
    assert solution.result == lx.RESULTS.max_steps_reached
    assert solution.stats["num_steps"] == solution.stats["max_steps"] == 3
    assert jnp.linalg.norm(b - operator.mv(solution.value)) < jnp.linalg.norm(b)


def test_jit_vmap_and_grad(rng):
    operator, b = definite(5), jnp.asarray(rng.normal(size=(3, 5)))
    solve = eqx.filter_jit(jax.vmap(lambda rhs: run(operator, rhs, rtol=1e-12).value))
    np.testing.assert_allclose(solve(b), jnp.linalg.solve(operator.as_matrix(), b.T).T, rtol=1e-9)

    def half_energy(matrix):
        return b[0] @ run(lx.MatrixLinearOperator(matrix, PSD), b[0], rtol=1e-12).value

    x = jnp.linalg.solve(operator.as_matrix(), b[0])
    found = jax.jit(jax.grad(half_energy))(operator.as_matrix())
    np.testing.assert_allclose(found, -jnp.outer(x, x), rtol=1e-8)


def test_a_pytree_goes_in_and_out():
    b = {"a": jnp.ones(2), "b": jnp.full((2, 2), 3.0)}
    operator = lx.TaggedLinearOperator(
        lx.FunctionLinearOperator(
            lambda x: jax.tree.map(lambda y: 2 * y, x), jax.eval_shape(lambda: b)
        ),
        PSD,
    )
    solution = run(operator, b)
    assert jax.tree.structure(solution.value) == jax.tree.structure(b)
    np.testing.assert_allclose(solution.value["b"], np.full((2, 2), 1.5))


def test_misuse_is_named():
    untagged = lx.MatrixLinearOperator(jnp.eye(3))
    with pytest.raises(ValueError, match="tagged as positive semidefinite; got MatrixLinear"):
        lx.linear_solve(untagged, jnp.ones(3), gramlm.ConjugateGradient())
    for settings in ({"rtol": 0.0}, {"rtol": 1.0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match="must be"):
            gramlm.ConjugateGradient(**settings)


def test_a_preconditioner_goes_into_the_options(rng):
    scales = np.logspace(0, 4, 40)
    matrix = np.diag(scales) + 0.1 * np.ones((40, 40))
    operator = lx.MatrixLinearOperator(jnp.asarray(matrix), lx.positive_semidefinite_tag)
    b = jnp.asarray(rng.normal(size=40))
    inverse = lx.DiagonalLinearOperator(jnp.asarray(1 / scales))
    inverse = lx.TaggedLinearOperator(inverse, lx.positive_semidefinite_tag)
    solver = gramlm.ConjugateGradient(rtol=1e-8, max_steps=500)
    plain = lx.linear_solve(operator, b, solver)
    faster = lx.linear_solve(operator, b, solver, options={"preconditioner": inverse})
    np.testing.assert_allclose(faster.value, np.linalg.solve(matrix, b), rtol=1e-6)
    assert 3 * faster.stats["num_steps"] < plain.stats["num_steps"]
    untagged = lx.MatrixLinearOperator(jnp.eye(40))
    with pytest.raises(ValueError, match="preconditioner"):
        lx.linear_solve(operator, b, solver, options={"preconditioner": untagged})
