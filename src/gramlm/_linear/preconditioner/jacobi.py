"""The diagonal of K."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core.checks import check_at_least
from ..._model.undamped import UndampedSystem
from ..algebra.directions import SearchDirections
from .base import AbstractPreconditioner


class Jacobi(AbstractPreconditioner[Float[Array, " m"]]):
    """`(diag(K) + λI)⁻¹`: for residuals, or parameters, of very different scale.

    The diagonal is exact where rows of J are at hand, and otherwise estimated from `num_probes`
    products, to a relative error of about `√(2/num_probes)`.
    """

    num_probes: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        check_at_least(self.num_probes, "num_probes", 1)

    def init(self, like: Float[Array, " m"]) -> Float[Array, " m"]:
        return jnp.zeros_like(like)

    def price(self, system: UndampedSystem) -> int:
        return 0 if system.stored else self.num_probes

    def build(
        self,
        system: UndampedSystem,
        damping: Float[Array, ""],
        seed: Int[Array, ""],
        state: Float[Array, " m"],
    ):
        return system.diagonal(seed, self.num_probes)

    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: Float[Array, " m"]
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        scale = 1 / (state + damping)
        return lambda x: scale * x

    def harvest(
        self, state: Float[Array, " m"], directions: SearchDirections
    ) -> Float[Array, " m"]:
        return state
