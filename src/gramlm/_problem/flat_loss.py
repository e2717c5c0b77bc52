"""The loss of a whole residual, and what it makes of r and J."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.arrays import safe_divide
from .._core.reductions import dot, sum_squares
from .loss import AbstractLoss, AbstractScaledLoss, PerBlock, slopes
from .row_factor import AbstractRowFactor, DiagonalFactor

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


class Segment(eqx.Module):
    """Residuals `start … stop` with one loss, None for squares, of blocks of one layout.

    - `unit`: the loss is that of `unit` times the residual, in squares of it; None is 1.
    """

    loss: AbstractLoss | None
    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)
    layout: Layout = eqx.field(static=True)
    unit: Float[Array, ""] | None = None

    def divided(self, scale: Float[Array, ""]) -> "Segment":
        """For residuals that have been divided by a number."""
        loss = None if self.loss is None else _divided(self.loss, scale)
        if loss is not None:
            return dataclasses.replace(self, loss=loss)
        return dataclasses.replace(self, unit=scale)

    def squares(self, residual: Float[Array, " n"]) -> Float[Array, " m"]:
        """Those of the norms of its blocks, as the loss takes them."""
        part = self.of(residual)
        return self.layout.sums((part if self.unit is None else self.unit * part) ** 2)

    def rho(self, residual: Float[Array, " n"]) -> Float[Array, " m"]:
        """ρ of its blocks."""
        assert self.loss is not None
        rho = self.loss.rho(self.squares(residual))
        return rho if self.unit is None else rho / self.unit**2

    def of(self, x: Float[Array, "n *k"]) -> Float[Array, "m *k"]:
        """Its part of what belongs to all residuals."""
        return x[self.start : self.stop]


class Correction(NamedTuple):
    """`r̃ = stretch·r` and `J̃ = (weight − turn·rrᵀ/‖r‖²) J` for each block."""

    weight: Array
    stretch: Array
    turn: Array


class Blocks(NamedTuple):
    """What a corrected problem is for each block of residuals, (b, …).

    - `rows`: the derivative of the norm of r̃, `uᵀJ̃` with u along r̃. `sizes`: ‖r̃‖, so that
      `sizes·rows` is the block's part of the gradient.
    - `excess`: what J̃ᵀJ̃ has of `rowsᵀ rows` beyond the curvature of the loss.
    """

    rows: Float[Array, "b p"]
    sizes: Float[Array, " b"]
    excess: Float[Array, " b"]


class BlockFactor(AbstractRowFactor):
    """`diag(weight) − turn·uuᵀ` for each block, u a unit vector of it."""

    weight: Float[Array, " n"]
    turn: Float[Array, " n"]
    unit: Float[Array, " n"]
    segments: tuple[Segment, ...]

    def times(self, x: Float[Array, "n k"]) -> Float[Array, "n k"]:
        along = self.unit[:, None] * x
        sums = [s.layout.spread(s.layout.sums(s.of(along))) for s in self.segments]
        return self.weight[:, None] * x - (self.turn * self.unit)[:, None] * jnp.concatenate(sums)

    def transposed(self, u: Float[Array, "n k"]) -> Float[Array, "n k"]:
        return self.times(u)

    @property
    def squares(self) -> None:
        return None


class FlatLoss(eqx.Module):
    """`½Σρ(s)` over the segments of a residual."""

    segments: tuple[Segment, ...]

    def divided(self, scale: Float[Array, ""]) -> "FlatLoss":
        """The loss of residuals that have been divided by a number."""
        return FlatLoss(tuple(segment.divided(scale) for segment in self.segments))

    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        total = jnp.zeros((), residual.dtype)
        for segment in self.segments:
            if segment.loss is None:
                total += 0.5 * sum_squares(segment.of(residual))
            else:
                total += 0.5 * jnp.sum(segment.rho(residual))
        return total

    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        """`cost(before) − cost(after)`, by differences of terms rather than of sums."""
        total = jnp.zeros((), before.dtype)
        for segment in self.segments:
            if segment.loss is None:
                old, new = segment.of(before), segment.of(after)
                total += 0.5 * dot(old - new, old + new)
            else:
                total += 0.5 * jnp.sum(segment.rho(before) - segment.rho(after))
        return total

    def corrected(
        self, residual: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], AbstractRowFactor]:
        """r̃ and the factor of J̃, whose least squares have the slope of the loss and, along r as
        far as it is positive, its curvature (Triggs et al. 2000, §4.3).

        `J̃ = √ρ′ (I − α rrᵀ/‖r‖²) J`, `r̃ = √ρ′/(1 − α) r` with `(1 − α)² = 1 + 2sρ″/ρ′`, which is
        kept at a tenth at least, as where ρ is concave it may be zero or negative.
        """
        parts = [_correction(segment, residual) for segment in self.segments]
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
        """Those of r, of the r̃ and the J̃ that `corrected` makes of it."""
        parts = [_blocks(segment, residual, corrected, jacobian) for segment in self.segments]
        return Blocks(*(jnp.concatenate(part) for part in zip(*parts, strict=True)))


def _blocks(segment: Segment, residual: Array, corrected: Array, jacobian: Array) -> Blocks:
    rest, rows = segment.of(corrected), segment.of(jacobian)
    if segment.loss is None:
        return Blocks(jnp.sign(rest)[:, None] * rows, jnp.abs(rest), jnp.zeros_like(rest))
    layout, newton = segment.layout, _newton(segment, residual)[1]
    sizes = jnp.sqrt(layout.sums(rest**2))
    along = safe_divide(rest, layout.spread(sizes))
    excess = 1 - newton / jnp.maximum(newton, LEAST_CURVATURE)
    return Blocks(layout.sums(along[:, None] * rows), sizes, excess)


def _newton(segment: Segment, residual: Float[Array, " n"]) -> tuple[Array, Array]:
    """ρ′, and `1 + 2sρ″/ρ′`, for each block."""
    assert segment.loss is not None
    squares = segment.squares(residual)
    _, slope, curvature = slopes(segment.loss, squares)
    slope = jnp.maximum(slope, 0)
    return slope, 1 + 2 * safe_divide(squares * curvature, slope)


def _correction(segment: Segment, residual: Float[Array, " n"]) -> Correction:
    count = segment.stop - segment.start
    if segment.loss is None:
        one = jnp.ones((count,), residual.dtype)
        return Correction(one, one, jnp.zeros_like(one))
    slope, newton = _newton(segment, residual)
    kept = jnp.sqrt(jnp.maximum(newton, LEAST_CURVATURE))
    root = jnp.where(slope > 0, jnp.sqrt(jnp.where(slope > 0, slope, 1)), 0)
    of_blocks = (root, root / kept, root * (1 - kept))
    return Correction(*(segment.layout.spread(x) for x in of_blocks))


def _divided(loss: AbstractLoss, scale: Float[Array, ""]) -> AbstractLoss | None:
    """The loss of residuals divided by a number, where that is a loss of its kind."""
    if isinstance(loss, PerBlock):
        inner = _divided(loss.loss, scale)
        return None if inner is None else dataclasses.replace(loss, loss=inner)
    if isinstance(loss, AbstractScaledLoss):
        # By the scale, as the squares of what was divided may leave the range of exponents.
        return dataclasses.replace(loss, scale=jnp.asarray(loss.scale, scale.dtype) / scale)
    return None
