"""Blocks of vectors against an orthonormal basis that fills its room from the front."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float, Int

from ..._core.arrays import Scalar
from ..._core.reductions import all_finite, matmul, times_transpose

# About as many vectors of a basis are worked on at a time, and none where there are none yet.
# Arbitrary.
_PART = 256

# A basis of no more numbers than these, 8 MB in float64, is worked on as a whole, used or not: it
# takes no time, and a loop less is compiled. Arbitrary.
_SMALL = 2**20

# Rows of about unit length whose Gram matrix has no eigenvalue below this are independent.
# Arbitrary.
_INDEPENDENT = 1e-3


def over_used(
    vectors: Float[Array, "k m"],
    count: Int[Array, ""],
    body: Callable[[Int[Array, ""], Array, Float[Array, "c m"]], Array],
    init: Array,
) -> Array:
    """`body(start, carry, vectors[start : start + c])` over those of the vectors that are in use.

    The last part may reach beyond them, where the vectors are zero.
    """
    if vectors.size <= _SMALL:
        return body(jnp.zeros((), count.dtype), init, vectors)
    capacity = vectors.shape[0]
    part = next((c for c in range(_PART, _PART // 4, -1) if capacity % c == 0), capacity)

    def advance(i, carry):
        start = i * part
        return body(start, carry, jax.lax.dynamic_slice_in_dim(vectors, start, part))

    return jax.lax.fori_loop(0, -(-count // part), advance, init)


def combined(
    y: Float[Array, "*b k"], vectors: Float[Array, "k m"], count: Int[Array, ""]
) -> Float[Array, "*b m"]:
    """`y` times the first `count` of the vectors."""

    def add(start: Int[Array, ""], sums: Float[Array, "*b m"], part: Float[Array, "c m"]):
        columns = jax.lax.dynamic_slice_in_dim(y, start, part.shape[0], y.ndim - 1)
        return sums + matmul(columns, part)

    sums = jnp.zeros((*y.shape[:-1], vectors.shape[1]), y.dtype)
    return over_used(vectors, count, add, sums)


def outside(
    block: Float[Array, "b m"], basis: Float[Array, "k m"], count: Int[Array, ""]
) -> Float[Array, "b m"]:
    """What the rows of a block have outside of the first `count` vectors, orthonormal ones."""

    def subtract(_, rest: Float[Array, "b m"], part: Float[Array, "c m"]):
        return rest - matmul(times_transpose(block, part), part)

    return over_used(basis, count, subtract, block)


def orthonormal(block: Float[Array, "b m"], least: Scalar) -> Float[Array, "b m"]:
    """Rows of length one that span those of a block, and zero rows, first.

    Dropped are directions of a squared length of at most `least`, and those that are rounding
    errors of others. By the Cholesky factor of the Gram matrix of the rows, or where they are
    nearly dependent by its eigenvectors (Stathopoulos and Wu 2002), in ascending order.
    """
    gram = matmul(block, block.T)
    size, eps = block.shape[0], jnp.finfo(block.dtype).eps
    identity = jnp.eye(size, dtype=block.dtype)

    def triangular() -> Float[Array, "b b"]:
        return jsl.solve_triangular(jnp.linalg.cholesky(gram), identity, lower=True)

    def spectral() -> Float[Array, "b b"]:
        values, vectors = jnp.linalg.eigh(gram)
        kept = values > jnp.maximum(8 * size * eps * values[-1], least)
        scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
        return scale[:, None] * vectors.T

    sure = jnp.maximum(jnp.asarray(least, block.dtype), _INDEPENDENT)
    independent = all_finite(jnp.linalg.cholesky(gram - sure * identity))
    return matmul(jax.lax.cond(independent, triangular, spectral), block)
