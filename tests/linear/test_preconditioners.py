"""Preconditioners are definite, are what they say, and save iterations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from gramlm._linear.algebra.cg import preconditioned_cg
from gramlm._linear.algebra.low_rank import SpectralApproximation
from gramlm._linear.algebra.secant import secant_update
from gramlm._problem.residual.canonical import canonical
from support.linear import F32, F64, decaying
from support.problems import METRICS, SHAPES, sine_problem

DUAL, NORMAL = gramlm.Form.dual, gramlm.Form.normal
PSD = lx.positive_semidefinite_tag
PLAIN = gramlm.NoPreconditioner()
SEED = jnp.asarray(3)


def system_of(jacobian, dtype=F64, *, metric="identity", form=gramlm.Form.auto):
    """The undamped system of a dense Jacobian."""
    jacobian = jnp.asarray(jacobian, dtype)
    n, p = jacobian.shape
    m = METRICS[metric](p, dtype) or lx.IdentityLinearOperator(jax.ShapeDtypeStruct((p,), dtype))
    at = gramlm.extend.MaterialisedLinearisation(jnp.ones(n, dtype), jacobian)
    largest = np.linalg.norm(np.asarray(jacobian, float), ord=2) ** 2
    return gramlm.extend.UndampedSystem.of(at, m, jnp.asarray(largest, dtype), form)


def gram_of(system):
    """K in float64, where the metric is the identity."""
    j = np.asarray(system.linearisation.jacobian, float)
    return j @ j.T if system.dual else j.T @ j


@eqx.filter_jit
def built(preconditioner, system, damping, state=None):
    """The state for a system, going on from one of another system, and the products it took."""
    if state is None:
        state = preconditioner.init(jnp.zeros((system.size,), system.dtype))
    return preconditioner.build(system, damping, SEED, state)


@eqx.filter_jit
def matrix_of(preconditioner, system, damping, state):
    apply = preconditioner.at(system, damping, state)
    return jax.vmap(apply)(jnp.eye(system.size, dtype=system.dtype))


@eqx.filter_jit
def solved(system, damping, b, inverse):
    """By conjugate gradients with the matrix of a preconditioner, so that it compiles but once."""
    return preconditioned_cg(
        system.multiply,
        lambda x: inverse @ x,
        b,
        damping,
        largest_eigenvalue=system.largest,
        tolerance=1e-6,
        max_iterations=2000,
        directions=gramlm.extend.SearchDirections.empty(160, b),
    )


def solved_by(preconditioner, system, damping, b, state=None):
    """With the preconditioner built for the system, or in a state from elsewhere."""
    if state is None:
        state, _ = built(preconditioner, system, damping)
    return solved(system, damping, b, matrix_of(preconditioner, system, damping, state))


# The system of which everything below is a preconditioner.


@pytest.mark.parametrize(
    ("metric", "form", "memory"),
    [
        ("identity", DUAL, gramlm.Keep()),
        ("diagonal", DUAL, gramlm.Materialise()),
        ("diagonal", NORMAL, gramlm.Materialise()),
        ("dense", NORMAL, gramlm.Keep()),
    ],
)
def test_the_system_is_that_of_dense_algebra(metric, form, memory, rng):
    n, p = SHAPES["wide"]
    problem = sine_problem(n, p)
    function, flat = canonical(problem.residual_fn, problem.params, problem.args)
    operator = METRICS[metric](p) or lx.IdentityLinearOperator(jax.ShapeDtypeStruct((p,), F64))

    @eqx.filter_jit
    def products(x, y):
        at = memory.linearise(function, flat)[0]
        system = gramlm.extend.UndampedSystem.of(at, operator, jnp.ones(()), form)
        return {
            "push": system.push(y),
            "pull": system.pull(x[0]),
            "multiply": system.multiply(x[0]),
            "multiply_block": system.multiply_block(x),
            "rows": system.rows(jnp.asarray(system.size - 2), 4),
            "diagonal": system.diagonal(SEED, 4000),
            "facts": (system.size, system.stored),
        }

    factor = np.linalg.cholesky(np.asarray(operator.as_matrix()))
    b = np.linalg.solve(factor, np.asarray(problem.jacobian).T).T  # J L⁻ᵀ
    b = b if form is DUAL else b.T
    x, y = rng.normal(size=(3, b.shape[0])), rng.normal(size=b.shape[1])
    found = products(jnp.asarray(x), jnp.asarray(y))
    expected = {
        "push": b @ y,
        "pull": x[0] @ b,
        "multiply": b @ (b.T @ x[0]),
        "multiply_block": x @ b @ b.T,
        "rows": np.concatenate([b, np.zeros((2, b.shape[1]))])[-4:],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12)
    stored = isinstance(memory, gramlm.Materialise) and metric != "dense"
    assert found["facts"] == (b.shape[0], stored)
    diagonal, cost = found["diagonal"]
    np.testing.assert_allclose(diagonal, np.sum(b * b, axis=1), rtol=1e-10 if stored else 0.2)
    assert cost == (0 if stored else 4000)


# Properties that all have.

ALL = {
    "none": PLAIN,
    "jacobi": gramlm.Jacobi(),
    "block": gramlm.BlockJacobi(4),
    "nystrom": gramlm.Nystrom(6, block_size=3),
    "cholesky": gramlm.PivotedCholesky(6, block_size=3),
    "recycled": gramlm.RecycledDirections(4),
    "user": gramlm.FixedPreconditioner(
        lambda op: lx.DiagonalLinearOperator(1 / jnp.diag(op.as_matrix()))
    ),
}


@pytest.mark.parametrize("name", ALL)
def test_symmetric_and_positive_definite(name):
    preconditioner, eps = ALL[name], float(jnp.finfo(F32).eps)
    systems = [
        system_of(jacobian, F32, metric="diagonal")
        for jacobian in (decaying(30, 19, 1e3), decaying(30, 19, 1e3, seed=1), np.zeros((30, 19)))
    ]
    damping = jnp.asarray(256 * eps, F32)
    state, _ = built(preconditioner, systems[0], damping)
    nothing, _ = built(preconditioner, systems[2], damping)
    # A state is still in use for other Jacobians, and other λ.
    cases = [(systems[0], damping, state), (systems[2], damping, nothing)]
    cases += [(systems[1], factor * damping, state) for factor in (1.0, 1e3, 1e6)]
    for system, shift, known in cases:
        matrix = np.asarray(matrix_of(preconditioner, system, shift, known), float)
        size = np.linalg.norm(matrix, ord=2)
        np.testing.assert_allclose(matrix, matrix.T, atol=float(30 * eps * size))
        assert np.linalg.eigvalsh(matrix + matrix.T)[0] > 0


# What each is.


@pytest.mark.parametrize(("size", "form"), [(1, DUAL), (5, NORMAL), (5, DUAL), (20, DUAL)])
def test_block_jacobi_is_the_inverse_of_diagonal_blocks(size, form):
    system, damping = system_of(decaying(12, 13), form=form), jnp.asarray(0.1)
    gram = gram_of(system)
    block = np.arange(len(gram)) // size
    expected = np.linalg.inv(np.where(block[:, None] == block, gram, 0) + 0.1 * np.eye(len(gram)))
    preconditioners = [gramlm.BlockJacobi(size), *([gramlm.Jacobi()] if size == 1 else [])]
    for preconditioner in preconditioners:
        state, products = built(preconditioner, system, damping)
        matrix = matrix_of(preconditioner, system, damping, state)
        np.testing.assert_allclose(matrix, expected, atol=1e-11)
        assert products == preconditioner.price(system)


def test_blocks_that_rounding_makes_indefinite_stay_definite(rng):
    jacobian = np.ones((8, 9)) * rng.normal(size=9)  # of rank one
    system = system_of(jacobian, F32)
    preconditioner, damping = gramlm.BlockJacobi(8), jnp.asarray(1e-9, F32)
    state, _ = built(preconditioner, system, damping)
    matrix = np.asarray(matrix_of(preconditioner, system, damping, state), float)
    assert np.all(np.isfinite(matrix))
    assert np.all(np.diag(matrix) > 0)


def test_jacobi_undoes_scales_and_blocks_follow_the_order_of_the_points(rng):
    b = jnp.asarray(rng.normal(size=240))
    scales = 10.0 ** -rng.uniform(0, 3, size=240)
    scaled = system_of(scales[:, None] * rng.normal(size=(240, 300)))
    # On a kernel whose points are sorted, neighbours are what couples.
    x = np.sort(rng.uniform(size=240))
    kernel = np.exp(-np.abs(x[:, None] - x) / 0.02) + 1e-6 * np.eye(240)
    sorted_points = system_of(np.pad(np.linalg.cholesky(kernel), ((0, 0), (0, 60))))
    for system, damping, preconditioner in (
        (scaled, 1e-8 * scaled.largest, gramlm.Jacobi()),
        (sorted_points, jnp.asarray(1e-3), gramlm.BlockJacobi(40)),
    ):
        plain = solved_by(PLAIN, system, damping, b)
        assert 3 * solved_by(preconditioner, system, damping, b).iterations <= plain.iterations


LOW_RANK = {
    "nystrom": lambda rank: gramlm.Nystrom(rank, block_size=8),
    "cholesky": lambda rank: gramlm.PivotedCholesky(rank, block_size=8),
}


@pytest.mark.parametrize(("name", "dtype"), [("nystrom", F64), ("cholesky", F32)])
def test_a_matrix_of_low_rank_is_inverted(name, dtype, rng):
    jacobian = rng.normal(size=(50, 20)) @ rng.normal(size=(20, 60)) / 30
    system, damping = system_of(jacobian, dtype), jnp.asarray(1e-3, dtype)
    preconditioner = LOW_RANK[name](24)
    state, products = built(preconditioner, system, damping)
    matrix = np.asarray(matrix_of(preconditioner, system, damping, state), float)
    error = matrix @ (gram_of(system) + 1e-3 * np.eye(50)) - np.eye(50)
    # An error ε·λmax of K is one of ε·λmax/λ here.
    assert np.linalg.norm(error, ord=2) <= 32 * jnp.finfo(dtype).eps * system.largest / damping
    used = np.any(np.asarray(state.vectors) != 0, axis=1)
    assert 20 <= np.sum(used) == state.used
    np.testing.assert_allclose(state.vectors @ state.vectors.T, np.diag(1.0 * used), atol=1e-5)
    assert products == 48
    assert np.all(np.diff(state.values) <= 0)


@pytest.mark.parametrize(("name", "dtype"), [("nystrom", F32), ("cholesky", F64)])
def test_a_decaying_spectrum_takes_a_fifth_of_the_iterations(name, dtype, rng):
    system = system_of(decaying(240, 300, 1e4), dtype)
    b, damping = jnp.asarray(rng.normal(size=240), dtype), jnp.asarray(64 * 2.0**-23, dtype)
    plain = solved_by(PLAIN, system, damping, b)
    preconditioner = LOW_RANK[name](160)
    found = solved_by(preconditioner, system, damping, b)
    assert found.converged | found.rounded
    assert 5 * found.iterations <= plain.iterations
    # Exact eigenvectors of the same number are not much better.
    values, vectors = np.linalg.eigh(gram_of(system))
    best = SpectralApproximation(
        jnp.asarray(vectors[:, :-161:-1].T, dtype), jnp.asarray(values[:-161:-1], dtype),
        jnp.asarray(values[-160], dtype),
    )  # fmt: skip
    limit = solved_by(preconditioner, system, damping, b, best)
    assert found.iterations <= 3 * limit.iterations + 5


def test_nystrom_adapts_its_rank_and_goes_on_from_what_it_knows(rng):
    jacobian = decaying(240, 300, 1e4)
    moved = jacobian * rng.uniform(0.9, 1.1, size=(240, 1))
    before, now = system_of(jacobian), system_of(moved)
    preconditioner = gramlm.Nystrom(64, block_size=16)
    empty = preconditioner.init(jnp.zeros(240))
    counts = []
    for damping in (1.0, 0.1, 1e-8):
        state, products = built(preconditioner, before, jnp.asarray(damping), empty)
        assert 2 * state.used == products
        assert (state.remainder <= 0.1 * damping) | (state.used == 64)
        counts.append(int(products))
    assert counts[0] < counts[1] < counts[2] == 128 == preconditioner.price(before)
    b, damping = jnp.asarray(rng.normal(size=240)), jnp.asarray(1e-8)
    fresh = solved_by(preconditioner, now, damping, b)
    warm, _ = built(preconditioner, now, damping, state)
    warm = solved_by(preconditioner, now, damping, b, warm)
    assert warm.iterations <= 0.85 * fresh.iterations


# Recycling.


def directions_of(matrix, vectors):
    directions = gramlm.extend.SearchDirections.empty(len(vectors), vectors[0])
    for vector in vectors:
        directions = directions.added(vector, matrix @ vector, jnp.asarray(True))
    return directions


def test_the_secant_update_agrees_with_the_matrix_on_what_was_seen(rng):
    a = jnp.asarray(rng.normal(size=(2, 20, 20)))
    old, new = a[0] @ a[0].T / 20, a[1] @ a[1].T / 20
    values, vectors = jnp.linalg.eigh(old)
    before = SpectralApproximation(vectors[:, ::-1].T, values[::-1], values[0])
    seen = jnp.asarray(rng.normal(size=(5, 20)))
    update = jax.jit(secant_update)
    after = update(before, directions_of(new, seen))
    matrix = after.vectors.T @ (after.values[:, None] * after.vectors)
    np.testing.assert_allclose(matrix @ seen.T, new @ seen.T, atol=1e-9)
    assert np.linalg.eigvalsh(matrix)[0] >= -1e-12
    # K̂ ← Y C⁻¹ Yᵀ + (I − Y C⁻¹ Sᵀ) K̂ (I − S C⁻¹ Yᵀ)
    s, y = seen.T, new @ seen.T
    core = jnp.linalg.inv(s.T @ y)
    rest = jnp.eye(20) - y @ core @ s.T
    np.testing.assert_allclose(matrix, y @ core @ y.T + rest @ old @ rest.T, atol=1e-9)
    # Nothing seen, or seen badly, changes nothing.
    empty = gramlm.extend.SearchDirections.empty(5, seen[0])
    for directions in (empty, directions_of(jnp.full((20, 20), jnp.nan), seen)):
        same = update(before, directions)
        for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(same), strict=True):
            np.testing.assert_array_equal(one, other)


def test_directions_of_one_solve_precondition_the_next(rng):
    jacobian = decaying(240, 300, 1e4)
    moved = jacobian * rng.uniform(0.99, 1.01, size=(240, 1))
    b, damping = jnp.asarray(rng.normal(size=(2, 240))), jnp.asarray(1e-6)
    plain = solved_by(PLAIN, system_of(jacobian), damping, b[0])
    preconditioner = gramlm.RecycledDirections(100)
    state = jax.jit(preconditioner.harvest)(preconditioner.init(b[0]), plain.directions)
    after = solved_by(preconditioner, system_of(moved), damping, b[1], state)
    assert after.converged
    assert 3 * after.iterations <= plain.iterations


# The user's own.


@pytest.mark.parametrize(
    ("form", "metric"),
    [(DUAL, "dense"), (NORMAL, "diagonal"), (NORMAL, "dense")],
)
def test_the_inverse_of_the_user_is_that_of_the_whitened_system(form, metric):
    system, damping = system_of(decaying(9, 12), metric=metric, form=form), jnp.asarray(1e-3)

    def inverse(operator):
        return lx.MatrixLinearOperator(jnp.linalg.inv(operator.as_matrix()), PSD)

    kind = gramlm.GramOperator if form is DUAL else gramlm.NormalOperator
    fixed = inverse(kind(system.linearisation, damping, system.metric))
    factor = np.linalg.cholesky(np.asarray(system.metric.as_matrix()))
    b = np.linalg.solve(factor, decaying(9, 12).T).T
    b = b if form is DUAL else b.T
    expected = np.linalg.inv(b @ b.T + 1e-3 * np.eye(len(b)))
    for given in (inverse, fixed) if metric == "dense" else (inverse,):
        matrix = matrix_of(gramlm.FixedPreconditioner(given), system, damping, None)
        np.testing.assert_allclose(matrix, expected, rtol=1e-7, atol=1e-8)


def test_misuse_is_named():
    system = system_of(decaying(5, 6))
    user = gramlm.FixedPreconditioner
    with pytest.raises(TypeError, match="operator"):
        user(3.0)
    with pytest.raises(ValueError, match="tagged as positive definite"):
        user(lx.MatrixLinearOperator(jnp.eye(5)))
    wrong = user(lx.MatrixLinearOperator(jnp.eye(4), PSD))
    with pytest.raises(ValueError, match=r"must map \(5,\) to \(5,\).*got 4 by 4"):
        wrong.at(system, jnp.asarray(1.0), None)
    with pytest.raises(TypeError, match="operator"):
        user(lambda op: jnp.eye(5)).at(system, jnp.asarray(1.0), None)
    for make in (
        lambda: gramlm.Jacobi(0), lambda: gramlm.BlockJacobi(0), lambda: gramlm.Nystrom(0),
        lambda: gramlm.Nystrom(fraction=0.0), lambda: gramlm.PivotedCholesky(0),
        lambda: gramlm.RecycledDirections(0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must"):
            make()
