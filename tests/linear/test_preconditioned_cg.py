"""Preconditioned conjugate gradients reach what they claim, and claim what they reach."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gramlm._linear.algebra.cg import normal_gap, preconditioned_cg
from gramlm._linear.algebra.directions import SearchDirections
from gramlm._linear.algebra.low_rank import SpectralApproximation
from support.linear import decaying as jacobian_decaying


def decaying(size, *, dtype=jnp.float64, decades=8.0):
    """A semidefinite matrix whose eigenvalues fall geometrically from 1."""
    half = jacobian_decaying(size, size, 10 ** (decades / 2))
    return jnp.asarray(half @ half.T, dtype)


class Scaling(eqx.Module):
    """`x ↦ s ∘ x`."""

    factor: jax.Array

    def __call__(self, x):
        return self.factor * x


class Matrix(eqx.Module):
    """`x ↦ A x`."""

    matrix: jax.Array

    def __call__(self, x):
        return self.matrix @ x


compiled = eqx.filter_jit(preconditioned_cg)


def solve(
    matrix, b, damping, precondition=None, *, largest=None, tolerance=1e-26, max_iterations=2000,
    **settings,
):  # fmt: skip
    """The compiled solve with a dense matrix, to a tight tolerance unless one is given."""
    if largest is None:
        largest = np.linalg.norm(np.asarray(matrix, np.float64), ord=2)
    return compiled(
        Matrix(matrix),
        Scaling(jnp.ones_like(b)) if precondition is None else precondition,
        b,
        jnp.asarray(damping, b.dtype),
        largest_eigenvalue=jnp.asarray(largest, b.dtype),
        tolerance=jnp.asarray(tolerance, b.dtype),
        max_iterations=max_iterations,
        **settings,
    )


def dense_solution(matrix, b, damping):
    matrix, b = np.asarray(matrix, np.float64), np.asarray(b, np.float64)
    return np.linalg.solve(matrix + float(damping) * np.eye(b.size), b)


@pytest.mark.parametrize("size", [1, 60])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_solution_image_and_residual_are_those_of_the_system(size, preconditioned, rng):
    matrix = decaying(size, decades=4)
    b = jnp.asarray(rng.normal(size=size))
    scale = 1 / (jnp.diag(matrix) + 1e-3)
    found = solve(matrix, b, 1e-3, Scaling(scale) if preconditioned else None)
    np.testing.assert_allclose(found.solution, dense_solution(matrix, b, 1e-3), rtol=1e-8)
    np.testing.assert_allclose(found.image, matrix @ found.solution, rtol=1e-9, atol=1e-12)
    true = b - matrix @ found.solution - 1e-3 * found.solution
    np.testing.assert_allclose(found.residual, true, atol=1e-10)
    assert found.converged | found.rounded
    assert not found.broken
    assert found.products > found.iterations


@pytest.mark.parametrize("damping", [1e-2, 1e-5])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-4, 1e-8])
def test_the_gap_bounds_what_is_missed_and_is_met(damping, tolerance, rng):
    matrix = decaying(60)
    b = jnp.asarray(rng.normal(size=60))

    def objective(w):
        return 0.5 * jnp.sum((b - matrix @ w) ** 2) + 0.5 * damping * w @ matrix @ w

    least = objective(dense_solution(matrix, b, damping))
    found = solve(matrix, b, damping, tolerance=tolerance)
    w = found.solution
    missed, decrease = objective(w) - least, 0.5 * jnp.sum(b**2) - objective(w)
    bound = 0.5 * jnp.sum(found.residual**2)
    assert missed <= bound * (1 + 1e-9)
    part = bound / (decrease + bound)
    assert missed / (decrease + missed) <= part * (1 + 1e-9)
    np.testing.assert_allclose(found.missed, part, rtol=1e-6)
    assert found.converged
    assert found.missed <= tolerance


def test_a_looser_tolerance_takes_fewer_products(rng):
    matrix = decaying(60)
    b = jnp.asarray(rng.normal(size=60))
    products = [solve(matrix, b, 1e-5, tolerance=t).products for t in (0.1, 1e-3, 1e-8)]
    assert products[0] < products[1] < products[2]


@pytest.mark.parametrize("tolerance", [1e-2, 1e-8])
def test_the_gap_of_the_normal_equations(tolerance, rng):
    jacobian, damping = jnp.asarray(rng.normal(size=(50, 20)) / 7), 1e-2
    r = jnp.asarray(rng.normal(size=50))

    def objective(y):
        return 0.5 * jnp.sum((r - jacobian @ y) ** 2) + 0.5 * damping * jnp.sum(y**2)

    matrix, b = jacobian.T @ jacobian, jacobian.T @ r
    found = solve(matrix, b, damping, tolerance=tolerance, gap=normal_gap)
    missed = objective(found.solution) - objective(dense_solution(matrix, b, damping))
    decrease = 0.5 * jnp.sum(r**2) - objective(found.solution)
    bound = 0.5 * jnp.sum(found.residual**2) / damping
    assert missed <= bound * (1 + 1e-9)
    assert missed <= tolerance * (decrease + missed)
    np.testing.assert_allclose(found.missed, bound / (decrease + bound), rtol=1e-6)


def test_lanes_of_vmap_do_not_disturb_each_other(rng):
    matrix = decaying(30, decades=3)
    b = jnp.asarray(rng.normal(size=(4, 30))).at[2].set(0)
    damping = jnp.asarray([1e-1, 1e-3, 1e-2, 1e-4])

    def run(b, damping):
        return preconditioned_cg(
            lambda x: matrix @ x,
            lambda x: x,
            b,
            damping,
            largest_eigenvalue=jnp.ones(()),
            tolerance=1e-20,
            max_iterations=300,
        )

    together = jax.jit(jax.vmap(run))(b, damping)
    for i in range(4):
        expected = dense_solution(matrix, b[i], damping[i])
        np.testing.assert_allclose(together.solution[i], expected, rtol=1e-7, atol=1e-12)
    assert jnp.all(together.converged | together.rounded)
    assert together.iterations[2] == 0
    assert together.iterations[0] < together.iterations[3]


def test_a_zero_right_hand_side_takes_no_product():
    found = solve(decaying(60), jnp.zeros(60), 1e-3)
    np.testing.assert_array_equal(found.solution, np.zeros(60))
    np.testing.assert_array_equal(found.residual, np.zeros(60))
    assert found.converged
    assert found.missed == 0
    assert found.products == 0


def test_zeros_in_the_right_hand_side_do_no_harm():
    matrix = jnp.diag(jnp.arange(1.0, 6.0))
    b = jnp.asarray([0.0, 1.0, 0.0, 0.0, 2.0])
    found = solve(matrix, b, 1e-3)
    np.testing.assert_allclose(found.solution, b / (jnp.arange(1.0, 6.0) + 1e-3), atol=1e-14)


@pytest.mark.parametrize(
    ("of_rhs", "of_matrix"),
    [(1e-30, 1e-30), (1.0, 1e-30), (1e-30, 1.0), (1e30, 1.0), (1.0, 1e30), (1e30, 1e30)],
)
def test_units_do_not_matter_in_float32(of_rhs, of_matrix):
    matrix = decaying(12, decades=2)
    b = np.cos(np.arange(12.0))
    expected = dense_solution(matrix, b, 0.1) * (of_rhs / of_matrix)
    scaled = jnp.asarray(np.asarray(matrix) * of_matrix, jnp.float32)
    found = solve(
        scaled, jnp.asarray(b * of_rhs, jnp.float32), 0.1 * of_matrix, largest=of_matrix,
        tolerance=1e-10,
    )  # fmt: skip
    assert found.converged
    assert found.iterations <= 14
    np.testing.assert_allclose(np.asarray(found.solution, np.float64), expected, rtol=1e-4)


@pytest.mark.parametrize("units", [1e-30, 1e30])
def test_units_of_the_preconditioner_do_not_matter(units):
    matrix = decaying(12, dtype=jnp.float32, decades=2)
    b = jnp.cos(jnp.arange(12, dtype=jnp.float32))
    factor = jnp.full(12, units, jnp.float32)
    plain = solve(matrix, b, 0.1, tolerance=1e-8)
    scaled = solve(matrix, b, 0.1, Scaling(factor), tolerance=1e-8)
    assert scaled.converged
    assert abs(scaled.iterations - plain.iterations) <= 1
    np.testing.assert_allclose(scaled.solution, plain.solution, rtol=1e-3)


def test_a_large_well_conditioned_system_in_float32():
    n = 100_000
    entries = jnp.linspace(1, 10, n, dtype=jnp.float32)
    rng = np.random.default_rng(0)
    low = jnp.asarray(rng.normal(size=(5, n)), jnp.float32)
    b = jnp.asarray(rng.normal(size=n), jnp.float32)

    @jax.jit
    def run(b):
        return preconditioned_cg(
            lambda x: entries * x + (low @ x) @ low / n,
            lambda x: x,
            b,
            jnp.asarray(1e-2, jnp.float32),
            largest_eigenvalue=jnp.asarray(11, jnp.float32),
            tolerance=1e-9,
            max_iterations=200,
        )

    found = run(b)
    assert found.converged
    assert found.iterations < 60
    w, c = np.asarray(found.solution, np.float64), np.asarray(low, np.float64)
    applied = (np.asarray(entries, np.float64) + 1e-2) * w + (c @ w) @ c / n
    assert np.linalg.norm(b - applied) <= 1e-4 * np.linalg.norm(b)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_at_the_rounding_of_the_matrix_the_solve_ends(dtype, rng):
    matrix = decaying(60, dtype=dtype, decades=4)
    eps = float(jnp.finfo(dtype).eps)
    damping = 64 * eps
    for _ in range(12):
        found = solve(matrix, jnp.asarray(rng.normal(size=60), dtype), damping, tolerance=0.0)
        assert found.rounded
        assert not found.converged
        assert not found.broken
        assert found.iterations < 2000
        left = np.linalg.norm(found.residual)
        assert left <= eps * (np.linalg.norm(found.solution) + np.linalg.norm(found.residual) + 20)


def test_products_in_low_precision_are_not_mistaken_for_a_solution(rng):
    matrix = decaying(60, decades=3)
    b = jnp.asarray(rng.normal(size=60))

    def multiply(x):
        image = matrix @ x
        unit = 1e-3 * jnp.max(jnp.abs(image))
        return jnp.round(image / unit) * unit

    found = compiled(
        multiply,
        lambda x: x,
        b,
        jnp.asarray(1e-3),
        largest_eigenvalue=jnp.ones(()),
        tolerance=1e-16,
        max_iterations=5000,
    )
    true = b - multiply(found.solution) - 1e-3 * found.solution
    np.testing.assert_allclose(found.residual, true, atol=1e-12)
    assert not found.converged
    assert not found.rounded
    assert found.iterations < 5000  # it noticed


@pytest.mark.parametrize("matrix", [-jnp.eye(3), jnp.diag(jnp.asarray([1.0, -2.0, 0.5]))])
@pytest.mark.parametrize("units", [1e-25, 1.0, 1e25])
def test_an_indefinite_matrix_is_a_breakdown_in_any_units(matrix, units):
    found = solve(units * matrix, jnp.ones(3), 0.1 * units, largest=2 * units)
    assert found.broken
    assert not found.converged
    assert jnp.all(jnp.isfinite(found.solution))
    np.testing.assert_allclose(
        found.residual,
        1 - (matrix + 0.1 * jnp.eye(3)) @ found.solution * units,
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("where", ["matrix", "rhs", "preconditioner", "damping"])
def test_what_is_not_finite_is_flagged_and_never_claimed(bad, where):
    matrix, b, scale, damping = jnp.eye(3), jnp.ones(3), jnp.ones(3), 0.1
    if where == "matrix":
        matrix = matrix.at[1, 1].set(bad)
    elif where == "rhs":
        b = b.at[1].set(bad)
    elif where == "preconditioner":
        scale = scale.at[1].set(bad)
    else:
        damping = bad
    found = solve(matrix, b, damping, Scaling(scale), largest=1.0)
    assert found.broken
    assert not found.converged
    assert not found.rounded
    assert jnp.all(jnp.isfinite(found.solution))
    assert found.products <= 4


@pytest.mark.parametrize("largest", [0.0, 1e-6, 1e6, jnp.nan, jnp.inf])
def test_a_wrong_largest_eigenvalue_does_no_harm(largest):
    b = jnp.asarray([1.0, 0, 2])
    found = solve(jnp.diag(jnp.asarray([1.0, 2, 3])), b, 0.1, largest=largest, tolerance=1e-20)
    assert found.converged | found.rounded
    np.testing.assert_allclose(found.solution, b / jnp.asarray([1.1, 2.1, 3.1]), rtol=1e-8)


@pytest.mark.parametrize("scale", [[-1.0, -1, -1], [1.0, -3, 1], [0.0, 0, 0]])
def test_a_preconditioner_that_is_not_definite_is_a_breakdown(scale):
    scale = jnp.asarray(scale)
    found = solve(jnp.diag(jnp.asarray([1.0, 2, 3])), jnp.ones(3), 0.1, Scaling(scale))
    assert found.broken
    assert not found.converged
    assert jnp.all(jnp.isfinite(found.solution))


def test_too_few_iterations_are_no_convergence(rng):
    matrix = decaying(60)
    found = solve(matrix, jnp.asarray(rng.normal(size=60)), 1e-5, max_iterations=7)
    assert found.iterations == 7
    assert found.products == 8
    assert not (found.converged | found.rounded | found.broken)
    assert found.missed > 0


def test_a_good_start_saves_products(rng):
    matrix = decaying(60)
    b = jnp.asarray(rng.normal(size=60))
    cold = solve(matrix, b, 1e-4, tolerance=1e-10)
    near = solve(matrix, b, 1e-4, tolerance=1e-6).solution
    warm = solve(matrix, b, 1e-4, tolerance=1e-10, start=(near, matrix @ near))
    assert warm.converged
    assert warm.products < cold.products
    exact = jnp.asarray(dense_solution(matrix, b, 1e-4))
    done = solve(matrix, b, 1e-4, tolerance=1e-10, start=(exact, matrix @ exact))
    assert done.converged
    assert done.iterations == 0
    assert done.products == 1  # which confirms it
    np.testing.assert_allclose(done.solution, exact, rtol=1e-12)


def test_a_start_with_a_wrong_image_is_found_out(rng):
    matrix = decaying(60)
    b = jnp.asarray(rng.normal(size=60))
    start = jnp.asarray(rng.normal(size=60))
    found = solve(matrix, b, 1e-2, tolerance=1e-12, start=(start, b - 1e-2 * start))
    assert found.converged
    np.testing.assert_allclose(found.solution, dense_solution(matrix, b, 1e-2), rtol=1e-4)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_start_that_is_not_finite_is_ignored(bad, rng):
    matrix, b = decaying(60), jnp.asarray(rng.normal(size=60))
    given = (jnp.full(60, bad), jnp.zeros(60))
    found = solve(matrix, b, 1e-2, start=given)
    assert found.converged | found.rounded
    np.testing.assert_allclose(found.solution, dense_solution(matrix, b, 1e-2), rtol=1e-8)


def test_a_basis_finishes_as_start_and_deflation(rng):
    matrix = decaying(60)
    b = jnp.asarray(rng.normal(size=60))
    damping = 1e-6
    values, vectors = (x[..., ::-1] for x in np.linalg.eigh(matrix))
    basis = jnp.asarray(vectors[:, :30].T)  # a Krylov basis has nearly these, and their images
    y = basis @ b / (jnp.asarray(values[:30]) + damping)
    deflation = SpectralApproximation(basis, jnp.asarray(values[:30]), jnp.asarray(values[29]))
    plain = solve(matrix, b, damping, tolerance=1e-8)
    found = solve(
        matrix, b, damping, deflation.inverse(jnp.asarray(damping)), tolerance=1e-8,
        start=(y @ basis, y @ (basis @ matrix)),
    )  # fmt: skip
    assert found.converged
    assert found.products <= 0.2 * plain.products


def test_the_directions_are_recorded_with_their_images(rng):
    matrix = decaying(60)
    b = jnp.asarray(rng.normal(size=60))
    found = solve(matrix, b, 1e-5, tolerance=1e-6, directions=SearchDirections.empty(12, b))
    directions = found.directions
    assert directions.count == 12 < found.iterations
    np.testing.assert_allclose(jnp.linalg.norm(directions.vectors, axis=1), np.ones(12), rtol=1e-12)
    np.testing.assert_allclose(directions.images, directions.vectors @ matrix, atol=1e-13)
    # Search directions are conjugate.
    products = directions.vectors @ (matrix + 1e-5 * jnp.eye(60)) @ directions.vectors.T
    np.testing.assert_allclose(products, jnp.diag(jnp.diag(products)), atol=1e-6)
    # A second solve does not lose those of the first.
    again = solve(matrix, b, 1e-5, tolerance=1e-6, directions=directions)
    np.testing.assert_array_equal(again.directions.vectors, directions.vectors)


def test_recorded_directions_solve_for_another_damping(rng):
    matrix = decaying(60, decades=4)
    b = jnp.asarray(rng.normal(size=60))
    first = solve(matrix, b, 1e-3, tolerance=1e-14, directions=SearchDirections.empty(60, b))
    w, image = jax.jit(SearchDirections.galerkin)(first.directions, b, jnp.asarray(1e-2))
    np.testing.assert_allclose(image, matrix @ w, atol=1e-9)
    left = b - image - 1e-2 * w
    assert jnp.linalg.norm(left) <= 1e-4 * jnp.linalg.norm(b)
    used = first.directions.vectors[: first.directions.count]
    np.testing.assert_allclose(used @ left, np.zeros(len(used)), atol=1e-7)


def test_misuse_is_named():
    with pytest.raises(ValueError, match="`max_iterations` must be at least 1; got 0"):
        solve(jnp.eye(3), jnp.ones(3), 0.1, max_iterations=0)
