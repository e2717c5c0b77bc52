"""The point at which a step is tried."""

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float

from .._core.reductions import all_finite
from .._core.results import CRITERIA
from .._model.model import Model
from .._problem.flat import FlatProblem
from .rules.termination import Termination
from .stationarity import AbstractStationarity

# A step that leaves less of the cost does not approach a root where J is singular.
_LEAP = 1e-3


class Point(eqx.Module):
    """Everything known at the iterate before a step is tried."""

    problem: FlatProblem
    params: Float[Array, " p"]
    model: Model
    metric: lx.AbstractLinearOperator
    gradient: Float[Array, " p"]
    gradient_norm: Float[Array, ""]
    largest: Float[Array, ""]
    stationarity: AbstractStationarity
    termination: Termination
    noise: Float[Array, ""]  # the relative gradient that rounding the parameters may bring about
    scale: Float[Array, ""]  # by which the residual, and so its cost, is divided
    initial_cost: Float[Array, ""]  # infinite where this is the start
    lowest_cost: Float[Array, ""]  # so far
    creeping_from: Float[Array, ""]  # the cost after the last step that removed nearly all of it
    least_predicted: Float[Array, ""]  # of all steps

    @property
    def residual(self) -> Float[Array, " n"]:
        return self.model.residual

    @property
    def cost(self) -> Float[Array, ""]:
        return self.problem.cost(self.residual)

    @property
    def first_cost(self) -> Float[Array, ""]:
        """That of the start, in the units of the user."""
        return jnp.where(jnp.isinf(self.initial_cost), self.unscaled(self.cost), self.initial_cost)

    def unscaled(self, cost: Float[Array, ""]) -> Float[Array, ""]:
        """A cost in the units of the user."""
        return cost * self.scale * self.scale

    @property
    def finite(self) -> Bool[Array, ""]:
        return all_finite(self.residual) & all_finite(self.gradient) & jnp.isfinite(self.largest)

    def creeps_from(self, accepted: Bool[Array, ""], cost: Float[Array, ""]) -> Float[Array, ""]:
        """`creeping_from` after a step."""
        before = jnp.where(jnp.isinf(self.creeping_from), self.cost, self.creeping_from)
        leap = accepted & (cost < _LEAP * self.cost)
        return jnp.where(leap, cost, before)

    def hides(self, decrease: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether rounding of r and of the parameters hides a decrease of this size."""
        eps = float(jnp.finfo(decrease.dtype).eps)
        noise = jnp.minimum(16 * eps + 8 * self.noise, eps**0.5)
        return jnp.abs(decrease) <= noise * self.cost

    def arrived(self) -> CRITERIA:
        """The tolerance that the point itself meets, if any."""
        # Squares that underflow, where the start had ordinary ones, have vanished all the same.
        underflown = (self.cost == 0) & (self.scale <= 1)
        return self.termination.at_iterate(
            cost=self.unscaled(self.cost),
            initial_cost=self.first_cost,
            zero=jnp.all(self.residual == 0) | underflown,
            creeping_from=self.unscaled(self.creeping_from),
            relative_gradient=self.stationarity.relative_gradient,
        )
