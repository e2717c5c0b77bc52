"""A partial Cholesky factorisation of K."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core.arrays import symmetrised
from ..._core.checks import check_at_least
from ..._core.reductions import column_sum_squares, matmul
from ..._model.undamped import UndampedSystem
from ..algebra.directions import SearchDirections
from ..algebra.low_rank import SpectralApproximation, even_blocks
from .base import AbstractPreconditioner


class PivotedCholesky(AbstractPreconditioner[SpectralApproximation]):
    """`K ≈ FᵀF` from `rank` rows of K, drawn with probability proportional to what is missing.

    Randomly pivoted Cholesky (Chen, Epperly, Tropp and Webber 2023), in blocks of `block_size`
    pivots drawn without replacement from the diagonal of `K − FᵀF`. The rows of K are products
    with unit vectors, a block at a time. diag(K) is exact where rows of J are at hand, and
    otherwise estimated from `num_probes` products; an error there makes other pivots, not a wrong
    factor. F is held by its eigenvectors, as in `Nystrom`.

    `2·rank + num_probes` products with J, `(rank, m)` numbers.
    """

    rank: int = eqx.field(static=True, default=128)
    block_size: int = eqx.field(static=True, default=32)
    num_probes: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        for name in ("rank", "block_size", "num_probes"):
            check_at_least(getattr(self, name), name, 1)

    def init(self, like: Float[Array, " m"]) -> SpectralApproximation:
        return SpectralApproximation.empty(
            even_blocks(self.rank, self.block_size, like.size)[0], like
        )

    def price(self, system: UndampedSystem) -> int:
        diagonal = 0 if system.stored else self.num_probes
        return 2 * even_blocks(self.rank, self.block_size, system.size)[0] + diagonal

    def build(
        self,
        system: UndampedSystem,
        damping: Float[Array, ""],
        seed: Int[Array, ""],
        state: SpectralApproximation,
    ):
        rank, block = even_blocks(self.rank, self.block_size, system.size)
        key = jax.random.key(seed)
        diagonal, products = system.diagonal(seed, self.num_probes)
        eps = jnp.finfo(system.dtype).eps

        def add(i: Int[Array, ""], carry):
            factor, missing = carry
            # The largest of log-weights with Gumbel noise are a draw without replacement.
            noise = jax.random.gumbel(jax.random.fold_in(key, i), missing.shape, missing.dtype)
            pivots = jax.lax.top_k(jnp.log(missing) + noise, block)[1]
            units = jax.nn.one_hot(pivots, system.size, dtype=system.dtype)
            rows = system.multiply_block(units) - matmul(factor[:, pivots].T, factor)
            core = symmetrised(rows[:, pivots])
            values, rotation = jnp.linalg.eigh(core)
            # Below the rounding of K rows depend on earlier ones, and are dropped.
            kept = values > block * eps * jnp.maximum(system.largest, values[-1])
            root = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
            added = matmul((rotation * root).T, rows)
            factor = jax.lax.dynamic_update_slice(factor, added, (i * block, jnp.zeros_like(i)))
            missing = jnp.maximum(missing - column_sum_squares(added), 0)
            return factor, missing.at[pivots].set(0)

        empty = jnp.zeros((rank, system.size), system.dtype)
        factor, _ = jax.lax.fori_loop(0, rank // block, add, (empty, diagonal))
        found = SpectralApproximation.of_factor(factor, rank)
        # Fewer pivots than there is room for leave nothing.
        remainder = jnp.where(found.used < rank, 0, found.remainder)
        found = SpectralApproximation(found.vectors, found.values, remainder)
        return found, 2 * rank + products

    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: SpectralApproximation
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        return state.inverse(damping)

    def harvest(
        self, state: SpectralApproximation, directions: SearchDirections
    ) -> SpectralApproximation:
        return state
