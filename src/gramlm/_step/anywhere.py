"""Steps without bounds."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._linear.solver.base import FoundDamping, LinearStep
from .._model.linearisation import AbstractLinearisation
from .region import AbstractRegion, AbstractSubproblem
from .trial import Trials


class Unconstrained(AbstractSubproblem):
    """Without bounds: one factorisation serves all trials, and a solution is the step."""

    at: AbstractLinearisation
    rhs: Float[Array, " n"]

    def serves(self, trials: Trials) -> Bool[Array, ""]:
        return jnp.asarray(True)

    def tolerance(self, forcing: Float[Array, ""]) -> Float[Array, ""]:
        return forcing

    def damping(self, propose, at) -> FoundDamping:
        return propose()

    def completed(
        self, solution: LinearStep, first: Bool[Array, ""] | bool
    ) -> tuple[LinearStep, None]:
        return solution, None

    def tried(self, demand: None) -> bool:
        return True

    def promise(self, demand: None, predicted: Float[Array, ""]) -> Float[Array, ""]:
        return predicted

    def concluded(self, before: Trials, after: Trials, demand: None) -> Trials:
        return after


class Anywhere(AbstractRegion):
    """All of parameter space."""

    at: AbstractLinearisation
    several: bool = eqx.field(static=True, init=False, default=False)

    def start(self) -> None:
        return None

    def another(self, trials: Trials) -> Bool[Array, ""]:
        return jnp.asarray(False)

    def taken_up(self, search: None) -> None:
        return None

    def subproblem(self, search: None) -> Unconstrained:
        return Unconstrained(self.at, self.at.residual)
