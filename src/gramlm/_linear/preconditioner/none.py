"""No preconditioner."""

from collections.abc import Callable

from jaxtyping import Array, Float

from ..._model.undamped import UndampedSystem
from .base import AbstractPreconditioner


class NoPreconditioner(AbstractPreconditioner[None]):
    """The identity: plain conjugate gradients."""

    def init(self, like: Float[Array, " m"]) -> None:
        return None

    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: None
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        return lambda x: x
