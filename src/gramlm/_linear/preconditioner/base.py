"""The seam for preconditioners: one approximation of K, answered for any λ, kept while it serves.

    init ──▶ state ── build(K) ──▶ state ── at(λ) ──▶ x ↦ (K + λI)⁻¹x, about
               ▲                     │
               └────── harvest ◀─────┘

A state is a pytree of arrays. It may be older than the Jacobian it is used for: `build` costs
products with J, and is called when that pays. `harvest` costs none: it learns from the search
directions of the solves that were made.
"""

import abc
from collections.abc import Callable
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, Float, Int

from ..._model.undamped import UndampedSystem
from ..algebra.directions import SearchDirections

State = TypeVar("State")


class AbstractPreconditioner(eqx.Module, Generic[State]):
    """Approximates `(K + λI)⁻¹` by something symmetric, positive definite and cheap to apply."""

    @abc.abstractmethod
    def init(self, like: Float[Array, " m"]) -> State:
        """The state that knows nothing, for K of the order and dtype of `like`."""

    @abc.abstractmethod
    def price(self, system: UndampedSystem) -> int:
        """The products with J that `build` may take; with 0 it is called at each Jacobian."""

    @abc.abstractmethod
    def build(
        self, system: UndampedSystem, damping: Float[Array, ""], seed: Int[Array, ""], state: State
    ) -> tuple[State, Int[Array, ""] | int]:
        """The state for this K, and the products with J that it took.

        `damping`: the λ of the last solve, or a first guess; `seed` differs from call to call;
        `state` is that of an earlier Jacobian; what learns nothing from K returns it as it is.
        """

    @abc.abstractmethod
    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: State
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        """`x ↦ M⁻¹x ≈ (K + λI)⁻¹x`, (m,) to (m,), in any units, from the state."""

    @abc.abstractmethod
    def harvest(self, state: State, directions: SearchDirections) -> State:
        """The state for the next Jacobian, given search directions and their images under K."""
