"""The λ that belongs to a length of the step: the secular equation `‖δ(λ)‖_M = Δ`.

With the eigenvalues μ of K and the squares q of the coordinates of `L⁻¹Jᵀr` along its vectors,
`‖δ(λ)‖²_M = Σ q/(μ + λ)²`. Its inverse root, `1/‖δ(λ)‖`, is close to a straight line in λ, and is
one where a single μ counts: so it is that to which Newton's method is applied (Hebden 1973, Moré
1978), inside of a bracket.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int

from ..._core.arrays import safe_divide

# Relative accuracy of the length: where a step costs a factorisation that of Moré's MINPACK.
# Where it costs next to nothing, finer than any rule asks for; that is arbitrary.
COARSE = 0.1
FINE = 1e-3

# Values of λ that are looked at. Arbitrary.
_MAX_ITERATIONS = 30


class LengthBound(eqx.Module):
    """A bound on the length of a step, to which a λ ≥ `least` belongs.

    - `rhs`, (n,), and `metric`: those of the step `δ(λ)`. `tolerance`: how exactly to solve for it.
    - `radius`: the bound on `‖δ(λ)‖_M`; where it is infinite, λ is `guess`.
    - `guess`: a λ to start from.
    """

    rhs: Float[Array, " n"]
    metric: lx.AbstractLinearOperator
    radius: Float[Array, ""]
    guess: Float[Array, ""]
    least: Float[Array, ""]
    tolerance: Float[Array, ""]

    def met(
        self, damping: Float[Array, ""], length: Float[Array, ""], accuracy: float
    ) -> Bool[Array, ""]:
        """Whether this λ will do: the length is right, or shorter with the least λ."""
        close = jnp.abs(length - self.radius) <= accuracy * self.radius
        return close | ((damping <= self.least) & (length <= self.radius))


class Bracket(NamedTuple):
    """λ between bounds at which the step is too long and too short, and the length at it."""

    damping: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]

    @classmethod
    def around(cls, bound: LengthBound) -> "Bracket":
        """All λ from `least` on."""
        start = jnp.maximum(bound.guess, bound.least)
        return cls(start, bound.least, jnp.full_like(start, jnp.inf))

    def narrowed(
        self, length: Float[Array, ""], slope: Float[Array, ""], radius: Float[Array, ""]
    ) -> "Bracket":
        """After a look at λ: its length, and minus its derivative over the length."""
        damping = self.damping
        # What is not finite is too long: more damping can only help.
        too_long = ~(length <= radius)
        low = jnp.where(too_long, damping, self.low)
        high = jnp.where(too_long, self.high, damping)
        newton = damping + (length - radius) / radius * safe_divide(jnp.ones_like(slope), slope)
        middle = jnp.where(jnp.isinf(high), 10 * damping, jnp.sqrt(low) * jnp.sqrt(high))
        inside = (newton > low) & (newton < high)
        # Below the least λ lies nothing: if the bracket still reaches to it, look there.
        bottom = (newton <= low) & ~too_long & (low == self.low)
        following = jnp.where(inside, newton, jnp.where(bottom, low, middle))
        return Bracket(following, low, high)


def root(
    look: Callable[..., tuple[Float[Array, ""], Float[Array, ""], tuple]],
    extra: tuple,
    bound: LengthBound,
    accuracy: float,
    max_iterations: int = _MAX_ITERATIONS,
) -> tuple[Float[Array, ""], tuple]:
    """The λ of a bound.

    `look(λ, extra) -> (length, slope, extra)` carries whatever it learns in `extra`.
    """

    def unfinished(carry):
        _, _, done, count, _ = carry
        return ~done & (count < max_iterations)

    def advance(carry):
        bracket, _, _, count, extra = carry
        length, slope, extra = look(bracket.damping, extra)
        done = bound.met(bracket.damping, length, accuracy)
        following = bracket.narrowed(length, slope, bound.radius)
        return following, bracket.damping, done, count + 1, extra

    bracket = Bracket.around(bound)
    count: Int[Array, ""] = jnp.zeros((), jnp.int32)
    start = (bracket, bracket.damping, jnp.isinf(bound.radius), count, extra)
    bracket, damping, done, _, extra = jax.lax.while_loop(unfinished, advance, start)
    # Out of iterations: the λ that would have been looked at next.
    return jnp.where(done, damping, bracket.damping), extra


def spectral_root(
    values: Float[Array, " k"],
    coordinates: Float[Array, " k"],
    bound: LengthBound,
) -> Float[Array, ""]:
    """The λ of a bound, from the eigenvalues μ and the coordinates of `L⁻¹Jᵀb` along theirs."""
    size = jnp.max(jnp.abs(coordinates))  # which may be far from 1
    coordinates = safe_divide(coordinates, size)

    def look(damping: Float[Array, ""], extra: tuple):
        parts = safe_divide(coordinates, values + damping)
        total = jnp.sum(parts**2)
        slope = safe_divide(jnp.sum(safe_divide(parts**2, values + damping)), total)
        return size * jnp.sqrt(total), slope, extra

    return root(look, (), bound, FINE)[0]
