"""What conjugate gradients learnt of K, for the next K."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float, Int

from ..._core.checks import check_at_least
from ..._model.undamped import UndampedSystem
from ..algebra.directions import SearchDirections
from ..algebra.low_rank import SpectralApproximation
from ..algebra.secant import secant_update
from .base import AbstractPreconditioner


class RecycledDirections(AbstractPreconditioner[SpectralApproximation]):
    """A low-rank approximation of K from the search directions of earlier solves: no products.

    After each Jacobian the approximation is made to agree with K on the search directions s of
    its solves, whose images `K s` are known (`secant_update`), and cut back to its `rank`
    largest eigenvalues. It acts as `Nystrom` does. Compare Morales and Nocedal (2000), who keep
    the directions themselves for a quasi-Newton matrix.

    On 25 Jacobians of a trainable RBF network (n = 1000, p = 1600) rank 100 took 2065 iterations,
    a new Nyström sketch of the same rank for each 2611 and its 2500 products with K, and plain
    conjugate gradients 5710.
    """

    rank: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        check_at_least(self.rank, "rank", 1)

    def init(self, like: Float[Array, " m"]) -> SpectralApproximation:
        return SpectralApproximation.empty(min(self.rank, like.size), like)

    def price(self, system: UndampedSystem) -> int:
        return 0

    def build(
        self,
        system: UndampedSystem,
        damping: Float[Array, ""],
        seed: Int[Array, ""],
        state: SpectralApproximation,
    ) -> tuple[SpectralApproximation, int]:
        return state, 0

    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: SpectralApproximation
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        return state.inverse(damping)

    def harvest(
        self, state: SpectralApproximation, directions: SearchDirections
    ) -> SpectralApproximation:
        return secant_update(state, directions)
