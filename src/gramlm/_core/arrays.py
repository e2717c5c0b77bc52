"""Arrays: small ones that many places need, and divisions that are safe."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

# What a number in a public field may be: a Python number, or a scalar array.
Scalar = Real[ArrayLike, ""]

# Unit vectors that are multiplied at a time, where each of them takes an evaluation: all 1020 rows
# of the Jacobian of a small Poisson problem at once took 7.9 GB and 7.2 s, by blocks of 128 they
# took 0.8 GB and 2.2 s.
VECTORS_AT_A_TIME = 128


def safe_divide(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`a / b`, and 0 where `b` is 0."""
    zero = b == 0
    return jnp.where(zero, 0, a / jnp.where(zero, 1, b))


def unit_rows(start: Any, count: int, size: int, dtype: Any) -> Float[Array, "count size"]:
    """Rows `start … start + count` of the identity; rows beyond `size` are zero."""
    rows = start + jnp.arange(count)
    return (rows[:, None] == jnp.arange(size)[None, :]).astype(dtype)


def map_blocks(
    block: Callable[[Any], Float[Array, "count m"]], size: int, count: int
) -> Float[Array, "size m"]:
    """Stacks `block(start)` for `start = 0, count, 2·count, …` into `size` rows.

    The blocks are evaluated one after another, so that only one is being worked on at a time.
    """
    if count >= size:
        return block(jnp.zeros((), jnp.int32))[:size]
    num_blocks = -(-size // count)
    stacked = jax.lax.map(block, jnp.arange(num_blocks) * count)
    return stacked.reshape(num_blocks * count, *stacked.shape[2:])[:size]


def symmetrised(matrix: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The lower triangle, mirrored."""
    return jnp.tril(matrix) + jnp.tril(matrix, -1).T


def scattered_signs(size: int, dtype: Any) -> Float[Array, " size"]:
    """A fixed vector of ±1 without visible pattern (multiplicative hashing, Knuth).

    Where any generic vector will do this compiles in a tenth of the time of a random one.
    """
    hashed = (jnp.arange(size, dtype=jnp.uint32) + 1) * jnp.uint32(2654435761)
    hashed = (hashed ^ (hashed >> 15)) * jnp.uint32(2246822519)
    return jnp.where((hashed >> 16) & 1 == 1, 1, -1).astype(dtype)


def as_array(leaf: Any) -> Any:
    """A Python number as an array, so that its value is not compiled in; anything else as it is.

    Weakly typed, as the number was: a float64 scale must not make float32 residuals float64.
    """
    if isinstance(leaf, bool) or not isinstance(leaf, int | float | complex):
        return leaf
    return jnp.asarray(leaf if isinstance(leaf, complex) else float(leaf))
