"""Residuals of which nothing is known but that they are functions of the parameters."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core.arrays import VECTORS_AT_A_TIME, map_blocks, unit_rows
from ..._core.checks import described
from ..._core.flatten import FlatSpec, flatten_residual
from .base import AbstractResidual, Reduce, Reduced
from .outputs import Part, output_spec


class PlainResidual(AbstractResidual):
    """Any function of the parameters."""

    function: Callable[[PyTree], PyTree]
    params_spec: FlatSpec
    size: int = eqx.field(static=True)
    scale: Float[Array, ""] | None = None
    block_size: int | None = eqx.field(static=True, default=None)

    @property
    def cheap_rows(self) -> bool:
        return False

    def __call__(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        residual = flatten_residual(self.function(self.params_spec.unflatten(params)))
        if residual.shape != (self.size,):
            raise ValueError(
                f"`residual_fn` returned {residual.size} residuals where it had returned "
                f"{self.size} before. Its size must not change within a solve."
            )
        return residual if self.scale is None else residual / self.scale

    def structure(self, params: Float[Array, " p"]) -> PyTree:
        return jax.eval_shape(
            lambda q: jax.tree.map(jnp.asarray, self.function(self.params_spec.unflatten(q))),
            params,
        )

    def flatten_output(self, output: PyTree) -> Float[Array, " n"]:
        return flatten_residual(output)

    def unflatten_output(self, vector: Float[Array, " n"], params: Float[Array, " p"]) -> PyTree:
        return output_spec(self.structure(params)).unflatten(vector)

    def parts(self, params: Float[Array, " p"]) -> tuple[PyTree[Part], str]:
        return jax.tree.map(Part.of, self.structure(params)), "the residual"

    def value_and_jacobian(self, params: Float[Array, " p"]):
        if self.block_size is None:
            n, p = self.size, self.num_params
            num_blocks = -(-min(n, p) // VECTORS_AT_A_TIME)
            count = -(-min(n, p) // num_blocks)
            if n <= p:
                residual, vjp = jax.vjp(self, params)
                rows = jax.vmap(lambda u: vjp(u)[0])
                units = partial(unit_rows, count=count, size=n, dtype=params.dtype)
                return residual, map_blocks(lambda start: rows(units(start)), n, count)
            residual, jvp = jax.linearize(self, params)
            units = partial(unit_rows, count=count, size=p, dtype=params.dtype)
            columns = map_blocks(lambda start: jax.vmap(jvp)(units(start)), p, count)
            return residual, columns.T
        return self(params), self._jacobian_in_blocks(params, self.block_size)

    def _jacobian_in_blocks(self, params: Float[Array, " p"], count: int) -> Float[Array, "n p"]:
        # Each block linearises anew, so nothing that a backward pass stores outlives its block.
        n, p = self.size, self.num_params

        def rows(start):
            vjp = jax.vjp(self, params)[1]
            return jax.vmap(lambda u: vjp(u)[0])(unit_rows(start, count, n, params.dtype))

        def columns(start):
            units = unit_rows(start, count, p, params.dtype)
            return jax.vmap(lambda v: jax.jvp(self, (params,), (v,))[1])(units)

        return map_blocks(rows, n, count) if n <= p else map_blocks(columns, p, count).T

    def assembly_products(self) -> int:
        return min(self.size, self.num_params)

    def triangle(self, params: Float[Array, " p"]) -> Float[Array, "m p"]:
        return jnp.linalg.qr(self.value_and_jacobian(params)[1], mode="r")

    def map_rows(self, params: Float[Array, " p"], reduce: Reduce) -> Reduced:
        n = self.size
        if n > self.num_params:
            return reduce(self.value_and_jacobian(params)[1])
        pull = jax.vmap(lambda u, vjp=jax.vjp(self, params)[1]: vjp(u)[0])
        count = min(self.block_size or VECTORS_AT_A_TIME, n)

        def block(start):
            return jnp.stack(reduce(pull(unit_rows(start, count, n, params.dtype))), axis=1)

        return tuple(map_blocks(block, n, count).T)

    def sum_squared_rows(
        self, params: Float[Array, " p"], weights: Float[Array, " n"] | None = None
    ) -> None:
        return None

    def rows_times(self, params: Float[Array, " p"], v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return jax.vmap(lambda x: jax.jvp(self, (params,), (x,))[1])(v)

    def times_rows(self, params: Float[Array, " p"], u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        vjp = jax.vjp(self, params)[1]
        return jax.vmap(lambda x: vjp(x)[0])(u)

    def divided(self, scale: Float[Array, ""]) -> "PlainResidual":
        return dataclasses.replace(self, scale=scale)

    def in_blocks(self, block_size: int, assemble: bool = True) -> "PlainResidual":
        return dataclasses.replace(
            self, function=_Checkpointed(self.function), block_size=block_size
        )

    def by_points(self, count: int) -> "PlainResidual":
        return self

    def sample(self, count: int) -> "PlainResidual":
        return self


class _Checkpointed(eqx.Module):
    """Recomputes a function in its backward pass instead of storing its intermediates."""

    function: Callable[[PyTree], Any]

    def __call__(self, params: PyTree) -> Any:
        return eqx.filter_checkpoint(self.function)(params)


class Bound(eqx.Module):
    """A residual function with its arguments; a module, so that arrays in it stay leaves."""

    function: Callable[..., Any]
    args: PyTree
    accepts: bool = eqx.field(static=True)

    def __call__(self, params: PyTree) -> Any:
        return self.function(params, self.args) if self.accepts else self.function(params)


class FirstOutput(eqx.Module):
    """Drops the aux output of a residual function."""

    function: Callable[[PyTree], Any]

    def __call__(self, params: PyTree) -> Any:
        return split_aux(self.function(params))[0]


def split_aux(output: Any) -> tuple[Any, Any]:
    """The pair that a residual with `has_aux=True` returns, checked."""
    if not (isinstance(output, tuple) and len(output) == 2):
        raise TypeError(
            "With `has_aux=True`, `residual_fn` must return a pair `(residual, aux)`; got "
            f"{described(output)}."
        )
    return output
