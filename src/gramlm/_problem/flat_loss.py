"""The loss of a whole residual, and what it makes of r and J."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.arrays import safe_divide
from .row_factor import AbstractMixingFactor, AbstractRowFactor, DiagonalFactor, Unweighted
from .segment import (
    AbstractSegment,
    Blocks,
    Correction,
    half_decrease,
    half_squares,
    single_blocks,
)


class AbstractFlatLoss(eqx.Module):
    """What a residual costs."""

    @abc.abstractmethod
    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        """The cost, squared residual units."""

    @abc.abstractmethod
    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        """`cost(before) − cost(after)`, without the cancellation of nearly equal sums."""

    @abc.abstractmethod
    def divided(self, scale: Float[Array, ""]) -> "AbstractFlatLoss":
        """The loss of residuals that have been divided by a number."""

    @abc.abstractmethod
    def corrected(
        self, residual: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], AbstractRowFactor]:
        """r̃, and L of `J̃ = L J`: the least squares that have the slope of the cost, and about its
        curvature.
        """

    @abc.abstractmethod
    def blocks(
        self,
        residual: Float[Array, " n"],
        corrected: Float[Array, " n"],
        jacobian: Float[Array, "n p"],
    ) -> Blocks:
        """Those of r, of the r̃ and the J̃ that `corrected` makes of it."""


class Squares(AbstractFlatLoss):
    """`½‖r‖²`."""

    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        return half_squares(residual)

    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        return half_decrease(before, after)

    def divided(self, scale: Float[Array, ""]) -> "Squares":
        return self

    def corrected(
        self, residual: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], AbstractRowFactor]:
        return residual, Unweighted()

    def blocks(
        self,
        residual: Float[Array, " n"],
        corrected: Float[Array, " n"],
        jacobian: Float[Array, "n p"],
    ) -> Blocks:
        return single_blocks(corrected, jacobian)


class FlatLoss(AbstractFlatLoss):
    """`½Σρ(s)` over the segments of a residual."""

    segments: tuple[AbstractSegment, ...]

    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        total = jnp.zeros((), residual.dtype)
        for segment in self.segments:
            total += segment.cost(residual)
        return total

    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        total = jnp.zeros((), before.dtype)
        for segment in self.segments:
            total += segment.decrease(before, after)
        return total

    def divided(self, scale: Float[Array, ""]) -> "FlatLoss":
        return FlatLoss(tuple(segment.divided(scale) for segment in self.segments))

    def corrected(
        self, residual: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], AbstractRowFactor]:
        """r̃ and the factor of J̃, whose least squares have the slope of the loss and, along r as
        far as it is positive, its curvature (Triggs et al. 2000, §4.3).

        `J̃ = √ρ′ (I − α rrᵀ/‖r‖²) J`, `r̃ = √ρ′/(1 − α) r` with `(1 − α)² = 1 + 2sρ″/ρ′`, which is
        kept at a tenth at least, as where ρ is concave it may be zero or negative.
        """
        parts = [segment.correction(residual) for segment in self.segments]
        weight, stretch, turn = (
            jnp.concatenate([getattr(part, name) for part in parts]) for name in Correction._fields
        )
        if all(segment.layout.single for segment in self.segments):
            return stretch * residual, DiagonalFactor(weight - turn)
        lengths = [s.layout.sums(s.of(residual) ** 2) for s in self.segments]
        spread = [s.layout.spread(jnp.sqrt(x)) for s, x in zip(self.segments, lengths, strict=True)]
        unit = safe_divide(residual, jnp.concatenate(spread))
        return stretch * residual, BlockFactor(weight, turn, unit, self.segments)

    def blocks(
        self,
        residual: Float[Array, " n"],
        corrected: Float[Array, " n"],
        jacobian: Float[Array, "n p"],
    ) -> Blocks:
        parts = [segment.blocks(residual, corrected, jacobian) for segment in self.segments]
        return Blocks(*(jnp.concatenate(part) for part in zip(*parts, strict=True)))


class BlockFactor(AbstractMixingFactor):
    """`diag(weight) − turn·uuᵀ` for each block, u a unit vector of it."""

    weight: Float[Array, " n"]
    turn: Float[Array, " n"]
    unit: Float[Array, " n"]
    segments: tuple[AbstractSegment, ...]

    @property
    def new_rows(self) -> None:
        return None

    def times(self, x: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        def scaled(values: Float[Array, " n"], x: Array) -> Array:
            return (values if x.ndim == 1 else values[:, None]) * x

        along = scaled(self.unit, x)
        sums = [s.layout.spread(s.layout.sums(s.of(along))) for s in self.segments]
        return scaled(self.weight, x) - scaled(self.turn * self.unit, jnp.concatenate(sums))

    def transposed(self, u: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        return self.times(u)
