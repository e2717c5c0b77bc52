"""The point at which a step is tried."""

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float

from .._core.reductions import all_finite
from .._model.model import Model
from .._problem.flat import FlatProblem
from .region import AbstractRegion
from .rounding import Rounding
from .state import Past
from .stationarity import AbstractStationarity


class Point(eqx.Module):
    """Everything known at the iterate before a step is tried.

    - `gradient`, (p,), and its norm `‖Jᵀr‖_{M⁻¹}`; `largest`: an estimate of λmax(JM⁻¹Jᵀ).
    - `scale`: by which the residual, and so its cost by the square, is divided.
    - `initial_cost`: at the start, in the units of the user. `past`: of the steps before.
    """

    problem: FlatProblem
    params: Float[Array, " p"]
    model: Model
    region: AbstractRegion
    metric: lx.AbstractLinearOperator
    gradient: Float[Array, " p"]
    gradient_norm: Float[Array, ""]
    largest: Float[Array, ""]
    cost: Float[Array, ""]
    stationarity: AbstractStationarity
    rounding: Rounding
    scale: Float[Array, ""]
    initial_cost: Float[Array, ""]
    past: Past

    @property
    def residual(self) -> Float[Array, " n"]:
        return self.model.residual

    def unscaled(self, cost: Float[Array, ""]) -> Float[Array, ""]:
        """A cost in the units of the user."""
        return cost * self.scale * self.scale

    @property
    def finite(self) -> Bool[Array, ""]:
        return all_finite(self.residual) & all_finite(self.gradient) & jnp.isfinite(self.largest)
