"""No preconditioner."""

from collections.abc import Callable

from jaxtyping import Array, Float, Int

from ..._model.undamped import UndampedSystem
from ..algebra.directions import SearchDirections
from .base import AbstractPreconditioner


class NoPreconditioner(AbstractPreconditioner[None]):
    """The identity: plain conjugate gradients."""

    def init(self, like: Float[Array, " m"]) -> None:
        return None

    def price(self, system: UndampedSystem) -> int:
        return 0

    def build(
        self, system: UndampedSystem, damping: Float[Array, ""], seed: Int[Array, ""], state: None
    ) -> tuple[None, int]:
        return state, 0

    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: None
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        return lambda x: x

    def harvest(self, state: None, directions: SearchDirections) -> None:
        return state
