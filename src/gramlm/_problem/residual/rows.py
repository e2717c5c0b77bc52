"""Residuals made of rows, `r_i = f(θ, x_i)`, mapped over data sets.

Rows are worth a factor n: all rows of the Jacobian cost one backward pass over the data, where a
plain residual needs one for each.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core.flatten import FlatSpec, flatten_residual
from ..._core.reductions import column_sum_squares, matmul, times_transpose
from .base import AbstractResidual

# Data points whose rows are assembled at a time, unless a memory policy says otherwise: enough
# for the products to be efficient, few enough for the temporaries not to matter.
_POINTS_AT_A_TIME = 256


class RowResidual(AbstractResidual):
    """Blocks of rows, each a function of one data point."""

    functions: tuple[Callable[..., Any], ...]
    datasets: tuple[PyTree, ...]
    params_spec: FlatSpec
    sizes: tuple[int, ...] = eqx.field(static=True)  # residuals of one point, for each function
    size: int = eqx.field(static=True)
    scale: Float[Array, ""] | None = None
    block_size: int | None = eqx.field(static=True, default=None)
    assemble: bool = eqx.field(static=True, default=True)

    def _point(self, function: Callable[..., Any]):
        def residual(params: Float[Array, " p"], x: PyTree) -> Float[Array, " m"]:
            value = flatten_residual(function(self.params_spec.unflatten(params), x))
            return value if self.scale is None else value / self.scale

        return residual

    def __call__(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        blocks = []
        for function, data in zip(self.functions, self.datasets, strict=True):
            point = self._point(function)
            count = jax.tree.leaves(data)[0].shape[0]
            if self.block_size is None or count <= self.block_size:
                values = jax.vmap(point, in_axes=(None, 0))(params, data)
            else:
                remembered = jax.checkpoint(point)
                values = jax.lax.map(
                    lambda x, f=remembered: f(params, x), data, batch_size=self.block_size
                )
            blocks.append(values.reshape(-1))
        return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks)

    def value_and_jacobian(self, params: Float[Array, " p"]):
        values, rows = [], []
        for linearised, data, _ in self._linearised(params):
            r, j = _assembled(linearised, data, self._points)
            values.append(r)
            rows.append(j)
        if len(rows) == 1:
            return values[0], rows[0]
        return jnp.concatenate(values), jnp.concatenate(rows)

    def assembly_products(self) -> int:
        return max(min(m, self.num_params) for m in self.sizes)

    def sum_squared_rows(
        self, params: Float[Array, " p"], weights: Float[Array, " n"] | None = None
    ) -> Float[Array, " p"] | None:
        if not self.assemble:
            return None
        total, start = jnp.zeros_like(params), 0
        for linearised, data, m in self._linearised(params):

            def add(sums, block, rows=linearised):
                points, factors = block
                found = self._rows(rows, points)
                weighted = found if factors is None else factors.reshape(-1, 1) * found
                return sums + column_sum_squares(weighted)

            count = jax.tree.leaves(data)[0].shape[0]
            part = None
            if weights is not None:
                part = jnp.sqrt(weights[start : start + count * m]).reshape(count, m)
            start += count * m
            total = _folded(add, total, (data, part), self._points)
        return total

    def rows_times(self, params: Float[Array, " p"], v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        """`V Jᵀ`: rows of J are assembled some points at a time, and multiplied with all of V."""
        images = []
        for linearised, data, _ in self._linearised(params):

            def multiply(points, rows=linearised):
                return times_transpose(v, self._rows(rows, points)).T

            batches, rest = batched(data, self._points)
            if batches is not None:
                images.append(jax.lax.map(multiply, batches).reshape(-1, v.shape[0]))
            if rest is not None:
                images.append(multiply(rest))
        return jnp.concatenate(images).T

    def times_rows(self, params: Float[Array, " p"], u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        """`U J`, likewise."""
        total = jnp.zeros((u.shape[0], self.num_params), u.dtype)
        start = 0
        for linearised, data, m in self._linearised(params):

            def add(sums, block, rows=linearised):
                points, weights = block  # (count, …), (count, m, k)
                flat = self._rows(rows, points)
                return sums + matmul(weights.reshape(-1, u.shape[0]).T, flat)

            count = jax.tree.leaves(data)[0].shape[0]
            part = u[:, start : start + count * m].T.reshape(count, m, u.shape[0])
            start += count * m
            total = _folded(add, total, (data, part), self._points)
        return total

    @property
    def _points(self) -> int:
        return self.block_size or _POINTS_AT_A_TIME

    def _linearised(self, params: Float[Array, " p"]):
        """For each function `x -> (residual (m,), rows (m, p))`, its data, and m."""
        for function, data, m in zip(self.functions, self.datasets, self.sizes, strict=True):
            linearised = _point_linearisation(self._point(function), m, self.num_params)
            yield partial(linearised, params), data, m

    def _rows(self, linearised, points: PyTree) -> Float[Array, "rows p"]:
        return jax.vmap(linearised)(points)[1].reshape(-1, self.num_params)

    def divided(self, scale: Float[Array, ""]) -> "RowResidual":
        return dataclasses.replace(self, scale=scale)

    def in_blocks(self, block_size: int, assemble: bool = True) -> "RowResidual":
        return dataclasses.replace(self, block_size=block_size, assemble=assemble)

    def sample(self, count: int) -> "RowResidual":
        """The residual of the first `count` points of each data set."""
        datasets = tuple(jax.tree.map(lambda x: x[:count], data) for data in self.datasets)
        counts = [jax.tree.leaves(data)[0].shape[0] for data in datasets]
        size = sum(m * count for m, count in zip(self.sizes, counts, strict=True))
        return dataclasses.replace(self, datasets=datasets, size=size)


def _point_linearisation(point, m: int, p: int):
    """`(params, x) -> (residual (m,), rows (m, p))` for one data point."""

    def linearised(params, x):
        if m <= p:
            value, vjp = jax.vjp(lambda q: point(q, x), params)
            return value, jax.vmap(lambda u: vjp(u)[0])(jnp.eye(m, dtype=params.dtype))
        value, jvp = jax.linearize(lambda q: point(q, x), params)
        return value, jax.vmap(jvp, out_axes=1)(jnp.eye(p, dtype=params.dtype))

    return linearised


def _assembled(linearised, data: PyTree, batch: int):
    """The residual (n,) and the rows (n, p) of all points, `batch` of them at a time.

    Written into one array: stacked and reshaped blocks would be read, on a CPU, by loops where a
    matrix product is wanted. The last batch overlaps the one before it.
    """
    count = jax.tree.leaves(data)[0].shape[0]

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


def _folded(add, total: Array, data: PyTree, size: int) -> Array:
    """`add(total, points)` over all of the data, `size` points at a time."""
    batches, rest = batched(data, size)
    if batches is not None:
        total = jax.lax.scan(lambda sums, points: (add(sums, points), None), total, batches)[0]
    return total if rest is None else add(total, rest)


def batched(data: PyTree, size: int) -> tuple[PyTree | None, PyTree | None]:
    """Full batches of `size` points, stacked, and the points that are left over."""
    count = jax.tree.leaves(data)[0].shape[0]
    full = count // size * size
    stacked = jax.tree.map(lambda x: x[:full].reshape(-1, size, *x.shape[1:]), data)
    rest = jax.tree.map(lambda x: x[full:], data)
    return (stacked if full else None), (rest if full < count else None)
