"""The rules that decide on trials, and what they learn from each."""

import dataclasses

import equinox as eqx
from jaxtyping import Array, Float

from ..._core.arrays import Scalar
from ..state import RuleStates
from .acceptance import AbstractAcceptance
from .damping.base import AbstractDamping
from .forcing import AbstractForcing
from .trial import Trial


class Rules(eqx.Module):
    """What decides on a trial: choices of the solver.

    - `damping_floor`: the least λ, in multiples of the rounding of K.
    """

    damping: AbstractDamping
    forcing: AbstractForcing
    acceptance: AbstractAcceptance
    damping_floor: Scalar

    def init(self, flat: Float[Array, " p"], largest: Float[Array, ""]) -> RuleStates:
        """The states before the first trial, from an estimate of λmax(K)."""
        return RuleStates(
            damping=self.damping.init(largest),
            forcing=self.forcing.init(flat),
            acceptance=self.acceptance.init(flat),
        )

    def after_accepted(
        self,
        states: RuleStates,
        trial: Trial,
        cost_before: Float[Array, ""],
        cost: Float[Array, ""],
    ) -> RuleStates:
        """What the rules learn from a trial that is accepted; costs are those of the scaled r."""
        return RuleStates(
            damping=self.damping.accepted(states.damping, trial),
            forcing=self.forcing.accepted(states.forcing, cost_before, cost),
            acceptance=self.acceptance.accepted(states.acceptance, trial),
        )

    def after_rejected(self, states: RuleStates, trial: Trial) -> RuleStates:
        """What the damping rule learns from one that is rejected."""
        return dataclasses.replace(states, damping=self.damping.rejected(states.damping, trial))
