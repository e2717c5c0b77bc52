"""Parts of a residual that have one loss, and what it makes of them."""

import abc
import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.arrays import safe_divide
from .._core.reductions import dot, sum_squares
from .loss import AbstractKnownLoss, slopes

# Of the curvature ρ′ that a loss has at 0, at least this part is kept along r, where Newton's
# would be less or negative. Eight regressions with outliers and soft L1 took 249 Jacobians with 1,
# which is iteratively reweighted least squares, 187 with 0.3, 173 with 0.1, and with 0.02 445, one
# not solved.
LEAST_CURVATURE = 0.1


class Layout(NamedTuple):
    """How residuals that follow one another form blocks: an array of these axes, of which a block
    takes all of the second, real and imaginary parts, and all of the last.
    """

    outer: int
    parts: int
    inner: int
    block: int

    @property
    def single(self) -> bool:
        """Whether each residual is a block by itself."""
        return self.parts * self.block == 1

    def sums(self, x: Float[Array, "m *k"]) -> Float[Array, "b *k"]:
        """Sums over the blocks."""
        return jnp.sum(x.reshape(*self, *x.shape[1:]), axis=(1, 3)).reshape(-1, *x.shape[1:])

    def spread(self, x: Float[Array, "b *k"]) -> Float[Array, "m *k"]:
        """What belongs to a block, for each of its residuals."""
        rest = x.shape[1:]
        apart = x.reshape(self.outer, 1, self.inner, 1, *rest)
        return jnp.broadcast_to(apart, (*self, *rest)).reshape(-1, *rest)


class Correction(NamedTuple):
    """`r̃ = stretch·r` and `J̃ = (weight − turn·rrᵀ/‖r‖²) J` for each block, spread over it, (m,)."""

    weight: Float[Array, " m"]
    stretch: Float[Array, " m"]
    turn: Float[Array, " m"]


class Blocks(NamedTuple):
    """What a corrected problem is for each block of residuals, (b, …).

    - `rows`: the derivative of the norm of r̃, `uᵀJ̃` with u along r̃. `sizes`: ‖r̃‖, so that
      `sizes·rows` is the block's part of the gradient.
    - `excess`: what J̃ᵀJ̃ has of `rowsᵀ rows` beyond the curvature of the loss.
    """

    rows: Float[Array, "b p"]
    sizes: Float[Array, " b"]
    excess: Float[Array, " b"]


def half_squares(residual: Float[Array, " m"]) -> Float[Array, ""]:
    """`½‖r‖²`."""
    return 0.5 * sum_squares(residual)


def half_decrease(before: Float[Array, " m"], after: Float[Array, " m"]) -> Float[Array, ""]:
    """`½‖before‖² − ½‖after‖²`, without the cancellation of nearly equal sums."""
    return 0.5 * dot(before - after, before + after)


def single_blocks(residual: Float[Array, " m"], jacobian: Float[Array, "m p"]) -> Blocks:
    """Every residual a block by itself, and no loss."""
    rows = jnp.sign(residual)[:, None] * jacobian
    return Blocks(rows, jnp.abs(residual), jnp.zeros_like(residual))


class AbstractSegment(eqx.Module):
    """Residuals `start … stop` with one loss."""

    start: eqx.AbstractVar[int]
    stop: eqx.AbstractVar[int]
    layout: eqx.AbstractVar[Layout]

    def of(self, x: Float[Array, "n *k"]) -> Float[Array, "m *k"]:
        """Its part of what belongs to all residuals."""
        return x[self.start : self.stop]

    @abc.abstractmethod
    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        """`½Σρ(s)` over its blocks."""

    @abc.abstractmethod
    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        """`cost(before) − cost(after)`, by differences of terms rather than of sums."""

    @abc.abstractmethod
    def divided(self, scale: Float[Array, ""]) -> "AbstractSegment":
        """For residuals that have been divided by a number."""

    @abc.abstractmethod
    def correction(self, residual: Float[Array, " n"]) -> Correction:
        """What it makes of r and J, as in `FlatLoss.corrected`."""

    @abc.abstractmethod
    def blocks(
        self,
        residual: Float[Array, " n"],
        corrected: Float[Array, " n"],
        jacobian: Float[Array, "n p"],
    ) -> Blocks:
        """Those of r, and of the r̃ and J̃ that `FlatLoss.corrected` makes of it and J."""


class SquaresSegment(AbstractSegment):
    """Residuals that cost their squares, each a block by itself."""

    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)
    layout: Layout = eqx.field(static=True)

    @classmethod
    def of_range(cls, start: int, stop: int) -> "SquaresSegment":
        """Of these residuals."""
        return cls(start=start, stop=stop, layout=Layout(1, 1, stop - start, 1))

    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        return half_squares(self.of(residual))

    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        return half_decrease(self.of(before), self.of(after))

    def divided(self, scale: Float[Array, ""]) -> "SquaresSegment":
        return self

    def correction(self, residual: Float[Array, " n"]) -> Correction:
        one = jnp.ones((self.stop - self.start,), residual.dtype)
        return Correction(one, one, jnp.zeros_like(one))

    def blocks(
        self,
        residual: Float[Array, " n"],
        corrected: Float[Array, " n"],
        jacobian: Float[Array, "n p"],
    ) -> Blocks:
        return single_blocks(self.of(corrected), self.of(jacobian))


class LossSegment(AbstractSegment):
    """Residuals with a loss, of blocks of one layout.

    - `unit`: the loss is that of `unit` times the residual, in squares of it; None is 1.
    """

    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)
    layout: Layout = eqx.field(static=True)
    loss: AbstractKnownLoss
    unit: Float[Array, ""] | None = None

    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(self._rho(residual))

    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(self._rho(before) - self._rho(after))

    def divided(self, scale: Float[Array, ""]) -> "LossSegment":
        loss, unit = self.loss.divided(scale)
        return dataclasses.replace(self, loss=loss, unit=unit)

    def correction(self, residual: Float[Array, " n"]) -> Correction:
        slope, newton = self._newton(residual)
        kept = jnp.sqrt(jnp.maximum(newton, LEAST_CURVATURE))
        root = jnp.where(slope > 0, jnp.sqrt(jnp.where(slope > 0, slope, 1)), 0)
        of_blocks = (root, root / kept, root * (1 - kept))
        return Correction(*(self.layout.spread(x) for x in of_blocks))

    def blocks(
        self,
        residual: Float[Array, " n"],
        corrected: Float[Array, " n"],
        jacobian: Float[Array, "n p"],
    ) -> Blocks:
        rest, rows = self.of(corrected), self.of(jacobian)
        layout, newton = self.layout, self._newton(residual)[1]
        sizes = jnp.sqrt(layout.sums(rest**2))
        along = safe_divide(rest, layout.spread(sizes))
        excess = 1 - newton / jnp.maximum(newton, LEAST_CURVATURE)
        return Blocks(layout.sums(along[:, None] * rows), sizes, excess)

    def _squares(self, residual: Float[Array, " n"]) -> Float[Array, " b"]:
        """Those of the norms of its blocks, as the loss takes them."""
        part = self.of(residual)
        return self.layout.sums((part if self.unit is None else self.unit * part) ** 2)

    def _rho(self, residual: Float[Array, " n"]) -> Float[Array, " b"]:
        rho = self.loss.rho(self._squares(residual))
        return rho if self.unit is None else rho / self.unit**2

    def _newton(self, residual: Float[Array, " n"]) -> tuple[Array, Array]:
        """ρ′, and `1 + 2sρ″/ρ′`, for each block."""
        squares = self._squares(residual)
        _, slope, curvature = slopes(self.loss, squares)
        slope = jnp.maximum(slope, 0)
        return slope, 1 + 2 * safe_divide(squares * curvature, slope)
