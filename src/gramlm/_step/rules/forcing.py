"""Forcing: how exactly each linear system is solved.

A forcing term η is a bound on what may be left of a linear system. With `ρ = b − (K + λI) w` and
the model `P(w) = ½‖b − Kw‖² + ½λ wᵀKw`, weak duality gives `P(w) − min P ≤ ½‖ρ‖²`; a solver stops
once `½‖ρ‖² ≤ η²(½‖b‖² − P(w) + ½‖ρ‖²)`, so that no more than the part η² of the decrease is missed.
Where a step can remove nearly all of b this is the familiar `‖ρ‖ ≤ η‖b‖`.
"""

import abc
from typing import Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core.arrays import Scalar, safe_divide
from ..._core.checks import check_between, check_in_order, check_positive

State = TypeVar("State")


class AbstractForcing(eqx.Module, Generic[State]):
    """Says how exactly to solve for the velocity and for the acceleration of a step."""

    @abc.abstractmethod
    def init(self, like: Float[Array, "..."]) -> State:
        """The state before the first step; `like` has the dtype of the computation."""

    @abc.abstractmethod
    def velocity(self, state: State) -> Float[Array, ""]:
        """η for the Levenberg–Marquardt step itself."""

    @abc.abstractmethod
    def acceleration(self, state: State) -> Float[Array, ""]:
        """η for the geodesic correction, which is small and may be cruder."""

    @abc.abstractmethod
    def accepted(
        self, state: State, cost_before: Float[Array, ""], cost: Float[Array, ""]
    ) -> State:
        """The state after an accepted step."""


class FixedForcing(AbstractForcing[Float[Array, ""]]):
    """The same η throughout."""

    velocity_term: Scalar = 0.03
    acceleration_term: Scalar = 0.3

    def __check_init__(self):
        check_between(self.velocity_term, "velocity_term", 0, 1, closed="neither")
        check_between(self.acceleration_term, "acceleration_term", 0, 1, closed="neither")

    def init(self, like: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.asarray(self.velocity_term, like.dtype)

    def velocity(self, state: Float[Array, ""]) -> Float[Array, ""]:
        return state

    def acceleration(self, state: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.acceleration_term, state.dtype)

    def accepted(self, state, cost_before, cost) -> Float[Array, ""]:
        return state


class EisenstatWalker(AbstractForcing[Float[Array, ""]]):
    """Choice 2 of Eisenstat and Walker (1996): η = γ(‖r‖/‖r before‖)^α, with their safeguard.

    Where steps gain much the next system is solved more exactly, up to `smallest`; where they
    gain little it would be wasted, and η stays at `largest`, from which it starts. It does not
    fall faster than `γη^α` as long as that is above 0.1. The acceleration is solved
    to `acceleration_factor` times the η of the velocity, at most 0.5.
    """

    largest: Scalar = 0.1
    smallest: Scalar = 0.01
    gamma: Scalar = 0.9
    alpha: Scalar = 1.618
    acceleration_factor: Scalar = 3.0

    def __check_init__(self):
        check_between(self.largest, "largest", 0, 1, closed="neither")
        check_between(self.smallest, "smallest", 0, 1, closed="neither")
        check_between(self.gamma, "gamma", 0, 1, closed="high")
        check_between(self.alpha, "alpha", 0, 2, closed="high")
        check_in_order(self.smallest, "smallest", self.largest, "largest")
        check_positive(self.acceleration_factor, "acceleration_factor")

    def init(self, like: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.asarray(self.largest, like.dtype)

    def velocity(self, state: Float[Array, ""]) -> Float[Array, ""]:
        return state

    def acceleration(self, state: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.minimum(self.acceleration_factor * state, 0.5)

    def accepted(self, state, cost_before, cost) -> Float[Array, ""]:
        ratio = jnp.sqrt(safe_divide(cost, cost_before))
        term = self.gamma * ratio**self.alpha
        guard = self.gamma * state**self.alpha
        term = jnp.where(guard > 0.1, jnp.maximum(term, guard), term)
        return jnp.clip(term, self.smallest, self.largest)
