"""Diagonal blocks of K."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float, Int

from ..._core.checks import check_at_least
from ..._core.reductions import HIGHEST, all_finite, matmul
from ..._model.undamped import UndampedSystem
from ..algebra.directions import SearchDirections
from .base import AbstractPreconditioner


class BlockJacobi(AbstractPreconditioner[Float[Array, "k b b"]]):
    """`(blockdiag(K) + λI)⁻¹` with consecutive blocks of `block_size`, by Cholesky for each λ.

    For residuals whose neighbours in the order given belong together: points of one data set,
    sorted in space; in the normal form, the parameters of one layer. It needs rows of J, and where
    J is not stored they cost a product each, m in all.
    """

    block_size: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        check_at_least(self.block_size, "block_size", 1)

    def _shape(self, size: int) -> tuple[int, int]:
        block = min(self.block_size, size)
        return -(-size // block), block

    def init(self, like: Float[Array, " m"]) -> Float[Array, "k b b"]:
        count, block = self._shape(like.size)
        return jnp.zeros((count, block, block), like.dtype)

    def price(self, system: UndampedSystem) -> int:
        # With J stored the blocks take the work of so many products.
        return self._shape(system.size)[1] if system.stored else system.size

    def build(
        self,
        system: UndampedSystem,
        damping: Float[Array, ""],
        seed: Int[Array, ""],
        state: Float[Array, "k b b"],
    ):
        count, block = self._shape(system.size)

        def gram(start: Int[Array, ""]) -> Float[Array, "b b"]:
            rows = system.rows(start, block)
            return matmul(rows, rows.T)

        return jax.lax.map(gram, jnp.arange(count) * block), self.price(system)

    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: Float[Array, "k b b"]
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        count, block, _ = state.shape
        eye = jnp.eye(block, dtype=state.dtype)

        def inverse_factor(gram: Float[Array, "b b"]) -> Float[Array, "b b"]:
            inverse = jsl.solve_triangular(
                jnp.linalg.cholesky(gram + damping * eye), eye, lower=True
            )
            # A block that rounding makes indefinite is left at its diagonal.
            diagonal = jnp.diag(1 / jnp.sqrt(jnp.diag(gram) + damping))
            return jnp.where(all_finite(inverse), inverse, diagonal)

        # L⁻ᵀL⁻¹ with L⁻¹ formed is semidefinite whatever its rounding.
        factors = jax.vmap(inverse_factor)(state)

        def apply(x: Float[Array, " m"]) -> Float[Array, " m"]:
            blocks = jnp.pad(x, (0, count * block - x.size)).reshape(count, block)
            half = jnp.einsum("kij,kj->ki", factors, blocks, precision=HIGHEST)
            whole = jnp.einsum("kji,kj->ki", factors, half, precision=HIGHEST)
            return whole.reshape(-1)[: x.size]

        return apply

    def harvest(
        self, state: Float[Array, "k b b"], directions: SearchDirections
    ) -> Float[Array, "k b b"]:
        return state
