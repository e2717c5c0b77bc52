"""The basis stays orthonormal whatever it is fed, and what is stored of K is K."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gramlm._linear.algebra.basis import DampedSubspace, Subspace
from gramlm._linear.algebra.blocks import orthonormal
from gramlm._linear.algebra.tall import TallSubspace

LENGTH, ROOM, BLOCK = 60, 42, 7
DTYPES = [jnp.float32, jnp.float64]
ORTHONORMAL = {jnp.float32: 1e-5, jnp.float64: 1e-13}


def decaying(n, p, dtype, condition=1e3):
    """A matrix whose singular values fall geometrically from 1."""
    rng = np.random.default_rng(1)
    k = min(n, p)
    u, v = (np.linalg.qr(rng.normal(size=(size, k)))[0] for size in (n, p))
    return jnp.asarray(u * np.geomspace(1, 1 / condition, k) @ v.T, dtype)


@jax.jit
def extended(space, candidates, matrix):
    return space.extended(candidates, lambda z: z @ matrix)


@jax.jit
def extended_tall(space, candidates, matrix):
    return space.extended(candidates, lambda z: z @ matrix.T, lambda u: u @ matrix)


CANDIDATES = {
    "generic": lambda block, z, images: block,
    "inside the span": lambda block, z, images: block @ z.T @ z,
    "nearly inside the span": lambda block, z, images: block @ z.T @ z + 1e-4 * block[::-1],
    "the basis itself": lambda block, z, images: z[:BLOCK],
    "images": lambda block, z, images: images,
    "repeated rows": lambda block, z, images: block[jnp.asarray([0, 0, 1, 1, 1, 2, 2])],
    "multiples": lambda block, z, images: jnp.arange(1, BLOCK + 1)[:, None] * block[0],
    "nearly parallel rows": lambda block, z, images: block[0] + 1e-5 * block,
    "zero rows": lambda block, z, images: block.at[jnp.asarray([0, 3, 6])].set(0),
    "all zero": lambda block, z, images: 0 * block,
    "scales": lambda block, z, images: block * jnp.logspace(-18, 18, BLOCK)[:, None],
    "tiny": lambda block, z, images: 1e-30 * block,
}


def candidates_of(kind, space, rng):
    block = jnp.asarray(rng.normal(size=(BLOCK, space.vectors.shape[1])))
    known = jnp.asarray(space.vectors, jnp.float64), jnp.asarray(space.last_images(BLOCK), float)
    return CANDIDATES[kind](block, *known).astype(space.dtype)


def fed(kind, dtype, rng):
    """A basis after five blocks, two of which are of one kind."""
    matrix = decaying(LENGTH, LENGTH, dtype)
    matrix = matrix @ matrix.T
    space = Subspace.empty(ROOM, jnp.zeros(LENGTH, dtype))
    for each in ("generic", kind, "generic", kind, "images"):
        space = extended(space, candidates_of(each, space, rng), matrix)
    return space, matrix


def off_orthonormal(z):
    """How far rows are from being orthogonal, and of length one or zero; how many are not zero."""
    gram = np.asarray(z, float) @ np.asarray(z, float).T
    rank = np.diag(gram) > 0.5
    return np.max(np.abs(gram - np.diag(rank.astype(float)))), np.sum(rank)


def whole(projected):
    """The symmetric matrix of which the lower triangle is given."""
    lower = np.tril(np.asarray(projected, float))
    return lower + np.tril(lower, -1).T


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", CANDIDATES)
def test_invariants(kind, dtype, rng):
    space, matrix = fed(kind, dtype, rng)
    z, k = np.asarray(space.vectors, float), np.asarray(matrix, float)
    error, rank = off_orthonormal(z)
    assert error <= ORTHONORMAL[dtype]
    assert space.dtype == space.images.dtype == space.projected.dtype == dtype
    assert space.capacity == ROOM
    assert 5 * BLOCK >= space.count == rank >= 2 * BLOCK
    np.testing.assert_array_equal(z[rank:], 0)
    close = {"atol": 50 * float(jnp.finfo(dtype).eps), "rtol": 0}
    np.testing.assert_allclose(space.images, z @ k, **close)
    np.testing.assert_allclose(np.tril(space.projected), np.tril(z @ k @ z.T), **close)
    last = np.asarray(space.last_images(BLOCK))
    new = int(space.newest)
    np.testing.assert_array_equal(last[BLOCK - new :], space.images[rank - new : rank])
    np.testing.assert_array_equal(last[: BLOCK - new], 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "new"), [("generic", 7), ("repeated rows", 3), ("zero rows", 4)])
def test_the_basis_spans_its_candidates_and_wastes_no_vector(kind, new, dtype, rng):
    matrix = jnp.eye(LENGTH, dtype=dtype)
    space = Subspace.empty(ROOM, jnp.zeros(LENGTH, dtype))
    space = extended(space, candidates_of("generic", space, rng), matrix)
    block = candidates_of(kind, space, rng)
    space = extended(space, block, matrix)
    assert off_orthonormal(space.vectors)[1] == BLOCK + new
    inside = jax.vmap(lambda x: space.combine(space.coordinates(x)))(block)
    scale = jnp.max(jnp.abs(block))
    np.testing.assert_allclose(inside, block, atol=1e2 * float(jnp.finfo(dtype).eps) * scale)


def test_coordinates_combine_and_multiply_are_products_with_z_and_k(rng):
    space, matrix = fed("generic", jnp.float64, rng)
    x, y = jnp.asarray(rng.normal(size=LENGTH)), jnp.asarray(rng.normal(size=ROOM))
    np.testing.assert_allclose(space.coordinates(x), space.vectors @ x, rtol=1e-13)
    np.testing.assert_allclose(space.combine(y), y @ space.vectors, rtol=1e-12)
    np.testing.assert_allclose(space.multiply(y), matrix @ space.combine(y), atol=1e-13)


@jax.jit
def both_factors(spaces, damping):
    """The factor as it grew with the bases, and that of the last one as a whole."""
    grown = DampedSubspace.of(spaces[0], damping)
    for space in spaces[1:]:
        grown = grown.grown(space, BLOCK)
    return grown, DampedSubspace.of(spaces[-1], damping)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_factor_that_grows_is_that_of_the_whole(dtype, rng):
    matrix = decaying(LENGTH, LENGTH, dtype)
    matrix = matrix @ matrix.T
    spaces = [Subspace.empty(ROOM, jnp.zeros(LENGTH, dtype))]
    for kind in ("generic", "zero rows", "images", "inside the span", "images"):
        block = candidates_of(kind, spaces[-1], rng)
        spaces.append(extended(spaces[-1], block, matrix))
    for damping in (1.0, 1e-3):
        grown, at_once = both_factors(spaces, jnp.asarray(damping, dtype))
        eps = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(grown.factor, at_once.factor, atol=200 * eps / damping**0.5)
        np.testing.assert_array_equal(jnp.triu(grown.factor, 1), 0)
        shifted = whole(spaces[-1].projected) + damping * np.eye(ROOM)
        y = rng.normal(size=ROOM)
        found = grown.solve(jnp.asarray(shifted @ y, dtype))
        np.testing.assert_allclose(found, y, atol=100 * eps / damping)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [24, 136])  # below and above the first order that is compiled
def test_ritz_values_of_the_whole_space_are_the_eigenvalues(size, dtype, rng):
    matrix = decaying(size, size, dtype)
    matrix = matrix @ matrix.T
    space = Subspace.empty(size, jnp.zeros(size, dtype))
    for _ in range(size // 8):
        block = jnp.asarray(rng.normal(size=(8, size)), dtype)
        space = extended(space, block, matrix)
    values, vectors = jax.jit(lambda space: space.ritz(space.capacity))(space)
    k = np.asarray(matrix, float)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(k)[::-1], atol=20 * eps)
    assert off_orthonormal(vectors) == (pytest.approx(0, abs=ORTHONORMAL[dtype]), size)
    np.testing.assert_allclose(
        np.asarray(vectors, float) @ k, values[:, None] * vectors, atol=1e2 * eps
    )


def test_ritz_of_a_part_are_descending_bounds_and_zero_beyond_the_count(rng):
    space, matrix = fed("repeated rows", jnp.float64, rng)
    values, vectors = jax.jit(lambda space: space.ritz(space.capacity))(space)
    count, rank = int(space.count), off_orthonormal(space.vectors)[1]
    assert np.all(np.diff(values) <= 0)
    assert np.all(values[:rank] <= np.linalg.eigvalsh(matrix)[::-1][:rank] * (1 + 1e-12))
    np.testing.assert_array_equal(values[count:], 0)
    np.testing.assert_array_equal(vectors[count:], 0)
    # A vector of value zero is no mixture with the rows that are not there.
    outside = vectors[:rank] - vectors[:rank] @ space.vectors.T @ space.vectors
    np.testing.assert_allclose(outside, 0, atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(vectors[:rank], axis=1), 1, rtol=1e-10)


def test_an_empty_basis():
    space = Subspace.empty(ROOM, jnp.zeros(LENGTH))
    values, vectors = jax.jit(lambda space: space.ritz(space.capacity))(space)
    assert space.count == 0
    assert space.capacity == ROOM
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(vectors, 0)
    factor = DampedSubspace.of(space, jnp.asarray(4.0)).factor
    np.testing.assert_array_equal(factor, 2 * jnp.eye(ROOM))


@pytest.mark.parametrize("dtype", DTYPES)
def test_orthonormal_puts_the_least_significant_first(dtype, rng):
    block = jnp.asarray(rng.normal(size=(5, 9)), dtype)
    found = orthonormal(jnp.concatenate([block, block[:2], 0 * block[:1]]), 0.0)
    np.testing.assert_array_equal(found[:3], 0)
    error, rank = off_orthonormal(found)
    assert error <= 30 * float(jnp.finfo(dtype).eps)
    assert rank == 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("condition", [1e1, 1e6])
@pytest.mark.parametrize("kind", ["generic", "images", "repeated rows", "nearly parallel rows"])
def test_a_tall_basis_holds_the_whole_image(kind, condition, dtype, rng):
    a = decaying(90, LENGTH, dtype, condition)
    space = TallSubspace.empty(ROOM, jnp.zeros(90, dtype), LENGTH)
    for each in ("generic", kind, "images", kind, "images"):
        block = candidates_of(each, space.params, rng)
        space = extended_tall(space, block, a)
    z, u, r = (np.asarray(x, float) for x in (space.params.vectors, space.left, space.triangle))
    matrix, eps = np.asarray(a, float), float(jnp.finfo(dtype).eps)
    assert space.params.count == off_orthonormal(z)[1]
    assert off_orthonormal(z)[0] <= ORTHONORMAL[dtype]
    assert off_orthonormal(u)[0] <= ORTHONORMAL[dtype]
    # Nothing of A Zᵀ may get lost: it is what the step is made of.
    np.testing.assert_allclose(r.T @ u, z @ matrix.T, atol=100 * eps)
    projected = whole(space.params.projected)
    np.testing.assert_allclose(projected, z @ matrix.T @ matrix @ z.T, atol=50 * eps)
    y = rng.normal(size=ROOM)
    image = jax.jit(TallSubspace.image)(space, jnp.asarray(y, dtype))
    np.testing.assert_allclose(image, matrix @ (y @ z), atol=500 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tall_basis_solves_its_least_squares_problem_without_squaring_it(dtype, rng):
    a = decaying(90, LENGTH, dtype, 1e4)
    space = TallSubspace.empty(ROOM, jnp.zeros(90, dtype), LENGTH)
    for each in ("generic", "images", "generic", "images", "generic"):
        block = candidates_of(each, space.params, rng)
        space = extended_tall(space, block, a)
    b = jnp.asarray(rng.normal(size=90), dtype)
    restricted = np.asarray(a, float) @ np.asarray(space.params.vectors, float).T
    # Damping below the rounding of AᵀA in float32, and of float64.
    damping = 1e-9 if dtype == jnp.float32 else 1e-17
    gradient = a.T @ b
    y = jax.jit(TallSubspace.solve)(space, gradient, b, jnp.asarray(damping, dtype))
    stacked = np.concatenate([restricted, damping**0.5 * np.eye(ROOM)])
    right = np.concatenate([np.asarray(b, float), np.zeros(ROOM)])
    expected = np.linalg.lstsq(stacked, right, rcond=None)[0]
    error = np.linalg.norm(y - expected) / np.linalg.norm(expected)
    assert error <= 1e2 * float(jnp.finfo(dtype).eps) * np.linalg.cond(stacked)
    assert error <= 0.05


def test_bases_in_a_batch_are_those_alone(rng):
    matrix = decaying(LENGTH, LENGTH, jnp.float64)
    blocks = jnp.asarray(rng.normal(size=(3, BLOCK, LENGTH)))
    space = Subspace.empty(ROOM, jnp.zeros(LENGTH))
    batch = jax.vmap(partial(extended, space), in_axes=(0, None))(blocks, matrix @ matrix.T)
    for i, block in enumerate(blocks):
        alone = extended(space, block, matrix @ matrix.T)
        inside = lambda z: z.T @ z  # noqa: E731
        np.testing.assert_allclose(inside(batch.vectors[i]), inside(alone.vectors), atol=1e-12)
