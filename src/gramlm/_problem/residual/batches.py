"""Data points some at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def count_of(data: PyTree) -> int:
    """The number of points of a data set."""
    return jax.tree.leaves(data)[0].shape[0]


def batched(data: PyTree, size: int) -> tuple[PyTree | None, PyTree | None]:
    """Full batches of `size` points, stacked, and the points that are left over."""
    count = count_of(data)
    full = count // size * size
    stacked = jax.tree.map(lambda x: x[:full].reshape(-1, size, *x.shape[1:]), data)
    rest = jax.tree.map(lambda x: x[full:], data)
    return (stacked if full else None), (rest if full < count else None)


def folded(add: Callable[[Array, PyTree], Array], total: Array, data: PyTree, size: int) -> Array:
    """`add(total, points)` over all of the data, `size` points at a time."""
    batches, rest = batched(data, size)
    if batches is not None:
        total = jax.lax.scan(lambda sums, points: (add(sums, points), None), total, batches)[0]
    return total if rest is None else add(total, rest)


def mapped(function: Callable[[PyTree], Array], data: PyTree, size: int) -> Array:
    """`function(points)`, whose last axis is that of the rows, over all of the data."""
    batches, rest = batched(data, size)
    parts = []
    if batches is not None:
        stacked = jnp.moveaxis(jax.lax.map(function, batches), 0, -2)
        parts.append(stacked.reshape(*stacked.shape[:-2], -1))
    if rest is not None:
        parts.append(function(rest))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def assembled(linearised: Callable[[Any], tuple[Array, Array]], data: PyTree, batch: int):
    """The residual (n,) and the rows (n, p) of all points, `batch` of them at a time.

    Written into one array: stacked and reshaped blocks would be read, on a CPU, by loops where a
    matrix product is wanted. The last batch overlaps the one before it.
    """
    count = count_of(data)

    def block(points):
        values, rows = jax.vmap(linearised)(points)
        return values.reshape(-1), rows.reshape(-1, rows.shape[-1])

    if count <= batch:
        return block(data)
    first = jax.eval_shape(block, jax.tree.map(lambda x: x[:batch], data))
    m = first[0].shape[0] // batch

    def write(i, carry):
        start = jnp.minimum(i * batch, count - batch)
        points = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, batch), data)
        return jax.tree.map(
            lambda all_of_it, part: jax.lax.dynamic_update_slice_in_dim(
                all_of_it, part, m * start, axis=0
            ),
            carry,
            block(points),
        )

    room = jax.tree.map(lambda s: jnp.zeros((count * m, *s.shape[1:]), s.dtype), first)
    return jax.lax.fori_loop(0, -(-count // batch), write, room)
