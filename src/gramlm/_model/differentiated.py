"""Linearisations that differentiate the residual function for their products."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._problem.residual.base import AbstractResidual
from .linearisation import AbstractLinearisation, Source, SquaredRows, each_row


class AbstractDifferentiatedLinearisation(AbstractLinearisation):
    """Products that differentiate the residual anew each time."""

    function: eqx.AbstractVar[AbstractResidual]
    params: eqx.AbstractVar[Float[Array, " p"]]

    @property
    def num_params(self) -> int:
        return self.function.num_params

    @property
    def stored(self) -> None:
        return None

    @property
    def source(self) -> Source:
        return Source(self.function, self.params)

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " n"]:
        return jax.jvp(self.function, (self.params,), (v,))[1]

    def vjp(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        return jax.vjp(self.function, self.params)[1](u)[0]

    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None) -> SquaredRows | None:
        return _sum_squared_rows(self.function, self.params, weights)


class RecomputedLinearisation(AbstractDifferentiatedLinearisation):
    """Vectors of a block are multiplied each by itself."""

    function: AbstractResidual
    params: Float[Array, " p"]
    residual: Float[Array, " n"]

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return each_row(self.jvp, v)

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        return each_row(self.vjp, u)

    def kept(self) -> "KeptLinearisation":
        return kept_at(self.function, self.params)


class RowLinearisation(AbstractDifferentiatedLinearisation):
    """Rows of J are assembled anew each time, some points at a time.

    So one pass over the data serves any number of vectors by a matrix product; a single vector is
    multiplied by differentiation.
    """

    function: AbstractResidual
    params: Float[Array, " p"]
    residual: Float[Array, " n"]

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return self.function.rows_times(self.params, v)

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        return self.function.times_rows(self.params, u)

    def kept(self) -> "RowLinearisation":
        return self


class KeptLinearisation(AbstractLinearisation):
    """Products that reuse one stored linearisation."""

    function: AbstractResidual
    params: Float[Array, " p"]
    residual: Float[Array, " n"]
    linear: Callable[[Array], Array]  # a pytree, as `jax.linearize` returns it

    @property
    def num_params(self) -> int:
        return self.function.num_params

    @property
    def stored(self) -> None:
        return None

    @property
    def source(self) -> Source:
        return Source(self.function, self.params)

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " n"]:
        return self.linear(v)

    def vjp(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        return jax.linear_transpose(self.linear, self.params)(u)[0]

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return each_row(self.jvp, v)

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        return each_row(self.vjp, u)

    def kept(self) -> "KeptLinearisation":
        return self

    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None) -> SquaredRows | None:
        return _sum_squared_rows(self.function, self.params, weights)


def _sum_squared_rows(
    function: AbstractResidual, params: Float[Array, " p"], weights: Float[Array, " n"] | None
) -> SquaredRows | None:
    exact = function.sum_squared_rows(params, weights)
    return None if exact is None else (exact, function.assembly_products())


def kept_at(function: AbstractResidual, params: Float[Array, " p"]) -> KeptLinearisation:
    """A residual linearised once, and stored so."""
    residual, linear = jax.linearize(function, params)
    return KeptLinearisation(function=function, params=params, residual=residual, linear=linear)


def recomputed_at(
    function: AbstractResidual, params: Float[Array, " p"]
) -> RecomputedLinearisation:
    """A residual of which nothing is stored but its value."""
    return RecomputedLinearisation(function=function, params=params, residual=function(params))
