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
from .base import AbstractResidual, Reduce, Reduced
from .batches import assembled, batched, count_of, folded, mapped
from .outputs import Part, is_complex, output_spec

# Data points whose rows are assembled at a time, unless a memory policy says otherwise. Arbitrary:
# enough for products to be efficient, few enough for temporaries not to matter.
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

    @property
    def cheap_rows(self) -> bool:
        return True

    def __call__(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        blocks = []
        for function, data in zip(self.functions, self.datasets, strict=True):
            point = self._point(function)
            if self.block_size is None or count_of(data) <= self.block_size:
                values = jax.vmap(point, in_axes=(None, 0))(params, data)
            else:
                remembered = jax.checkpoint(point)
                values = jax.lax.map(
                    lambda x, f=remembered: f(params, x), data, batch_size=self.block_size
                )
            blocks.append(values.reshape(-1))
        return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks)

    def structure(self, params: Float[Array, " p"]) -> PyTree:
        return _alone(self._structures(params))

    def flatten_output(self, output: PyTree) -> Float[Array, " n"]:
        blocks = (output,) if len(self.functions) == 1 else output
        return jnp.concatenate([jax.vmap(flatten_residual)(block).reshape(-1) for block in blocks])

    def unflatten_output(self, vector: Float[Array, " n"], params: Float[Array, " p"]) -> PyTree:
        blocks, start = [], 0
        for structure, data, m in zip(
            self._structures(params), self.datasets, self.sizes, strict=True
        ):
            stop = start + m * count_of(data)
            point = output_spec(jax.tree.map(_of_one_point, structure))
            blocks.append(jax.vmap(point.unflatten)(vector[start:stop].reshape(-1, m)))
            start = stop
        return _alone(tuple(blocks))

    def parts(self, params: Float[Array, " p"]) -> tuple[PyTree[Part], str]:
        # The arrays of a point lie side by side: one loss for all of them.
        parts = []
        for structure, data, m in zip(
            self._structures(params), self.datasets, self.sizes, strict=True
        ):
            leaves, count = jax.tree.leaves(structure), count_of(data)
            if len(leaves) == 1:
                parts.append(Part.of(leaves[0], count))
            elif any(map(is_complex, leaves)):
                parts.append(Part(count, count * m, None))
            else:
                parts.append(Part.of(jax.ShapeDtypeStruct((count, m), leaves[0].dtype), count))
        return _alone(tuple(parts)), "the functions of `Rows`"

    def value_and_jacobian(self, params: Float[Array, " p"]):
        values, rows = [], []
        for linearised, data, _ in self._linearised(params):
            r, j = assembled(linearised, data, self._points)
            values.append(r)
            rows.append(j)
        if len(rows) == 1:
            return values[0], rows[0]
        return jnp.concatenate(values), jnp.concatenate(rows)

    def assembly_products(self) -> int:
        return max(min(m, self.num_params) for m in self.sizes)

    def triangle(self, params: Float[Array, " p"]) -> Float[Array, "p p"]:
        triangle = jnp.zeros((params.size, params.size), params.dtype)
        for linearised, data, m in self._linearised(params):

            def join(triangle, points, linearised=linearised):
                rows = assembled(linearised, points, self._points)[1]
                return jnp.linalg.qr(jnp.concatenate([triangle, rows]), mode="r")

            # A block has no fewer rows than the triangle that it joins.
            triangle = folded(join, triangle, data, max(self._points, -(-params.size // m)))
        return triangle

    def map_rows(self, params: Float[Array, " p"], reduce: Reduce) -> Reduced:
        blocks = []
        for linearised, data, _ in self._linearised(params):

            def reduced(points, linearised=linearised):
                return jnp.stack(reduce(self._rows(linearised, points)))

            blocks.append(mapped(reduced, data, self._points))
        return tuple(blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1))

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

            count = count_of(data)
            part = None
            if weights is not None:
                part = jnp.sqrt(weights[start : start + count * m]).reshape(count, m)
            start += count * m
            total = folded(add, total, (data, part), self._points)
        return total

    def rows_times(self, params: Float[Array, " p"], v: Float[Array, "k p"]) -> Float[Array, "k n"]:
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
        total = jnp.zeros((u.shape[0], self.num_params), u.dtype)
        start = 0
        for linearised, data, m in self._linearised(params):

            def add(sums, block, rows=linearised):
                points, weights = block  # (count, …), (count, m, k)
                flat = self._rows(rows, points)
                return sums + matmul(weights.reshape(-1, u.shape[0]).T, flat)

            count = count_of(data)
            part = u[:, start : start + count * m].T.reshape(count, m, u.shape[0])
            start += count * m
            total = folded(add, total, (data, part), self._points)
        return total

    def divided(self, scale: Float[Array, ""]) -> "RowResidual":
        return dataclasses.replace(self, scale=scale)

    def in_blocks(self, block_size: int, assemble: bool = True) -> "RowResidual":
        return dataclasses.replace(self, block_size=block_size, assemble=assemble)

    def by_points(self, count: int) -> "RowResidual":
        return self.in_blocks(count)

    def sample(self, count: int) -> "RowResidual":
        datasets = tuple(jax.tree.map(lambda x: x[:count], data) for data in self.datasets)
        counts = [count_of(data) for data in datasets]
        size = sum(m * count for m, count in zip(self.sizes, counts, strict=True))
        return dataclasses.replace(self, datasets=datasets, size=size)

    @property
    def _points(self) -> int:
        return self.block_size or _POINTS_AT_A_TIME

    def _point(self, function: Callable[..., Any]):
        def residual(params: Float[Array, " p"], x: PyTree) -> Float[Array, " m"]:
            value = flatten_residual(function(self.params_spec.unflatten(params), x))
            return value if self.scale is None else value / self.scale

        return residual

    def _structures(self, params: Float[Array, " p"]) -> tuple[PyTree, ...]:
        """What each function returns at all of its points."""

        def structure(function, data):
            mapped = jax.vmap(function, in_axes=(None, 0))
            return jax.eval_shape(
                lambda q, x: mapped(self.params_spec.unflatten(q), x), params, data
            )

        return tuple(map(structure, self.functions, self.datasets))

    def _linearised(self, params: Float[Array, " p"]):
        """For each function `x -> (residual (m,), rows (m, p))`, its data, and m."""
        for function, data, m in zip(self.functions, self.datasets, self.sizes, strict=True):
            linearised = _point_linearisation(self._point(function), m, self.num_params)
            yield partial(linearised, params), data, m

    def _rows(self, linearised, points: PyTree) -> Float[Array, "rows p"]:
        return jax.vmap(linearised)(points)[1].reshape(-1, self.num_params)


def _point_linearisation(point, m: int, p: int):
    """`(params, x) -> (residual (m,), rows (m, p))` for one data point."""

    def linearised(params, x):
        if m <= p:
            value, vjp = jax.vjp(lambda q: point(q, x), params)
            return value, jax.vmap(lambda u: vjp(u)[0])(jnp.eye(m, dtype=params.dtype))
        value, jvp = jax.linearize(lambda q: point(q, x), params)
        return value, jax.vmap(jvp, out_axes=1)(jnp.eye(p, dtype=params.dtype))

    return linearised


def _of_one_point(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _alone(blocks: tuple[Any, ...]) -> Any:
    """One for each function; of a single function not a tuple."""
    return blocks[0] if len(blocks) == 1 else blocks
