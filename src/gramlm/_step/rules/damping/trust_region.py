"""The trust region of Moré: a bound on the length of a step, from which λ follows."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...._core.arrays import Scalar, safe_divide
from ...._core.checks import check_above, check_between, check_in_order, check_positive
from ...._linear.solver.base import FoundDamping
from ..trial import Trial
from .base import (
    OF_LARGEST,
    AbstractDamping,
    AbstractStepLengths,
)

# The gain ratio of a linear model that was all but exact; arbitrary.
_VERY_GOOD = 0.9


class TrustRegionState(eqx.Module):
    """The radius, infinite before the first trial, and the λ that was used last.

    `streak`: very good steps since the last that was not.
    """

    radius: Float[Array, ""]
    damping: Float[Array, ""]
    streak: Float[Array, ""]


class TrustRegion(AbstractDamping[TrustRegionState]):
    """The λ for which `‖δ(λ)‖_M` is at most a radius Δ (Moré 1978).

    After an accepted trial with a step of length L and the gain ratio ρ,
    `Δ = L / √max(1/growth², 1 − (2ρ − 1)³)`: Nielsen's smooth factor, for the length instead of λ.
    Where ρ > ½ it is at least the Δ before. Each step of ρ > 0.9 after another adds ½ to the
    growth, up to `fastest`, lest a region that was once small stay so. After a rejected trial Δ is
    between `least` and `most` of L, where the parabola through the slope and the two costs has its
    minimum.

    The first trial is at λ = `initial`·λmax(K), and the first Δ is from the length of its step.

    What is bounded is the length, whatever became of J: where J changes by orders of magnitude
    from step to step, as it does where widths of basis functions are trained, a rule for λ has to
    find its way again each time.

    !!! Example

        ```python
        import gramlm

        # A first step that is damped less, and a radius that grows faster.
        solver = gramlm.LevenbergMarquardt(damping=gramlm.TrustRegion(initial=1e-4, growth=2.0))
        ```
    """

    initial: Scalar = 1e-2
    growth: Scalar = 1.5
    fastest: Scalar = 4.0
    least: Scalar = 0.1
    most: Scalar = 0.5

    def __check_init__(self):
        check_positive(self.initial, "initial", OF_LARGEST)
        check_above(self.growth, "growth", 1.0)
        check_above(self.fastest, "fastest", 1.0)
        check_between(self.least, "least", 0.0, 0.99, closed="high")
        check_between(self.most, "most", 0.0, 0.99, closed="high")
        check_in_order(self.least, "least", self.most, "most")

    def init(self, largest_eigenvalue: Float[Array, ""]) -> TrustRegionState:
        damping = jnp.asarray(self.initial * largest_eigenvalue)
        return TrustRegionState(jnp.full_like(damping, jnp.inf), damping, jnp.zeros_like(damping))

    def propose(self, state: TrustRegionState, lengths: AbstractStepLengths) -> FoundDamping:
        return lengths.within(state.radius, state.damping)

    def accepted(self, state: TrustRegionState, trial: Trial) -> TrustRegionState:
        bounded = jnp.clip(trial.gain_ratio, 0.0, 1.0)
        growth = jnp.minimum(self.growth + 0.5 * state.streak, self.fastest)
        least = 1 / growth**2
        scaled = trial.length / jnp.sqrt(jnp.maximum(least, 1 - (2 * bounded - 1) ** 3))
        kept = jnp.maximum(scaled, jnp.where(jnp.isinf(state.radius), 0, state.radius))
        streak = jnp.where(bounded > _VERY_GOOD, state.streak + 1, 0)
        return TrustRegionState(jnp.where(bounded > 0.5, kept, scaled), trial.damping, streak)

    def rejected(self, state: TrustRegionState, trial: Trial) -> TrustRegionState:
        # cost(θ + tv) ≈ cost + t·slope + t²·excess, with the cost at t = 1 as it was found.
        excess = -trial.decrease - trial.slope
        minimum = safe_divide(-trial.slope, 2 * excess)
        factor = jnp.where(jnp.isfinite(trial.decrease), minimum, self.least)
        factor = jnp.where(excess > 0, factor, self.most)
        factor = jnp.clip(factor, self.least, self.most)
        known = jnp.isfinite(trial.length)
        length = jnp.where(known, jnp.minimum(state.radius, trial.length), state.radius)
        # A linear solver that found no step says nothing of its length, but less may be easier: a
        # tenth, which is arbitrary.
        damping = jnp.where(known, trial.damping, 10 * trial.damping)
        return TrustRegionState(factor * length, damping, jnp.zeros_like(state.streak))

    def with_damping(self, state: TrustRegionState, damping: Float[Array, ""]) -> TrustRegionState:
        # As at the start: the radius comes from the length of the step that λ leads to.
        return TrustRegionState(jnp.full_like(damping, jnp.inf), damping, jnp.zeros_like(damping))
