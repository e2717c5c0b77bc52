"""Reductions and matrix products, all pinned to the highest precision.

Every sum over residuals or parameters in the package goes through this module, so that
there is one place to change when residual rows live on several devices.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

HIGHEST = jax.lax.Precision.HIGHEST


def dot(a: Float[Array, " m"], b: Float[Array, " m"]) -> Float[Array, ""]:
    """Inner product of two vectors."""
    return jnp.vdot(a, b, precision=HIGHEST)


def matmul(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`a @ b` without the reduced-precision shortcuts of accelerators."""
    return jnp.matmul(a, b, precision=HIGHEST)


def sum_squares(x: Float[Array, " m"]) -> Float[Array, ""]:
    """Squared Euclidean norm."""
    return dot(x, x)


def norm(x: Float[Array, " m"]) -> Float[Array, ""]:
    """Euclidean norm."""
    return jnp.sqrt(sum_squares(x))


def column_sum_squares(matrix: Float[Array, "n p"]) -> Float[Array, " p"]:
    """Squared Euclidean norm of every column."""
    return jnp.sum(matrix * matrix, axis=0)


def all_finite(x: Float[Array, "..."]) -> Bool[Array, ""]:
    """Whether no entry is NaN or infinite."""
    return jnp.all(jnp.isfinite(x))


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
        return block(jnp.asarray(0))[:size]
    num_blocks = -(-size // count)
    stacked = jax.lax.map(block, jnp.arange(num_blocks) * count)
    return stacked.reshape(num_blocks * count, *stacked.shape[2:])[:size]


def symmetric_product(a: Float[Array, "m q"], num_blocks: int = 4) -> Float[Array, "m m"]:
    """`a aᵀ` by block rows of its lower triangle, mirrored: symmetric to the last bit.

    With b block rows it costs `(b + 1) / 2b` of a full product.
    """
    m = a.shape[0]
    if m < 64 * num_blocks:
        full = matmul(a, a.T)
        return jnp.tril(full) + jnp.tril(full, -1).T
    edges = [round(i * m / num_blocks) for i in range(num_blocks + 1)]
    rows = []
    for lo, hi in pairwise(edges):
        row = matmul(a[lo:hi], a[:hi].T)
        rows.append(jnp.pad(row, ((0, 0), (0, m - hi))))
    lower = jnp.tril(jnp.concatenate(rows))
    return lower + jnp.tril(lower, -1).T
