"""A randomised low-rank approximation of K."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core.arrays import Scalar
from ..._core.checks import check_at_least, check_positive
from ..._core.reductions import nonzero_rows
from ..._model.undamped import UndampedSystem
from ..algebra.basis import Subspace
from ..algebra.directions import SearchDirections
from ..algebra.low_rank import SpectralApproximation, even_blocks, nystrom
from ..algebra.secant import secant_update
from .base import AbstractPreconditioner

# This part of a block of test vectors is drawn anew although there are eigenvectors to go on from.
# With 10, 25, 50 and all 100 of 100 vectors new, the Jacobians of a trainable RBF network took
# 1775, 1966, 2239 and 2611 iterations; with the exact eigenvectors 1612.
_NEW_PART = 0.25


class Nystrom(AbstractPreconditioner[SpectralApproximation]):
    """Nyström's approximation of K from a random sketch `KΩ`, of a rank that adapts to λ.

    `K ≈ (KΩ)(ΩᵀKΩ)⁺(KΩ)ᵀ = Uᵀ diag(μ) U`, and the preconditioner is
    `Uᵀ diag(1/(μ + λ)) U + (I − UᵀU)/(τ + λ)`, τ the least μ (Frangella, Tropp and Udell 2023).
    The sketch grows by blocks until τ is at most `fraction`·λ, or the rank `max_rank`. Its test
    vectors are random signs at first; for later Jacobians they are the eigenvectors of the
    approximation before, but for a few in the first block. Between sketches the search directions
    of conjugate gradients keep it up to date (`RecycledDirections`).

    `2·max_rank` products with J at most, `(max_rank, m)` numbers.

    !!! Example

        ```python
        import gramlm

        linear = gramlm.PreconditionedCG(gramlm.Nystrom(max_rank=64))
        solver = gramlm.LevenbergMarquardt(linear_solver=linear)
        ```
    """

    max_rank: int = eqx.field(static=True, default=128)
    block_size: int = eqx.field(static=True, default=32)
    fraction: Scalar = 0.1

    def __check_init__(self):
        check_at_least(self.max_rank, "max_rank", 1)
        check_at_least(self.block_size, "block_size", 1)
        check_positive(self.fraction, "fraction")

    def init(self, like: Float[Array, " m"]) -> SpectralApproximation:
        return SpectralApproximation.empty(
            even_blocks(self.max_rank, self.block_size, like.size)[0], like
        )

    def price(self, system: UndampedSystem) -> int:
        return 2 * even_blocks(self.max_rank, self.block_size, system.size)[0]

    def build(
        self,
        system: UndampedSystem,
        damping: Float[Array, ""],
        seed: Int[Array, ""],
        state: SpectralApproximation,
    ):
        rank, block = even_blocks(self.max_rank, self.block_size, system.size)
        key = jax.random.key(seed)
        candidates = _interleaved(state.vectors, block)

        def unfinished(sketch: _Sketch):
            coarse = sketch.approximation.remainder > self.fraction * damping
            return (sketch.drawn < rank) & ((sketch.drawn == 0) | coarse)

        def grow(sketch: _Sketch) -> _Sketch:
            start = sketch.drawn
            old = jax.lax.dynamic_slice(
                candidates, (start, jnp.zeros_like(start)), (block, system.size)
            )
            signs = jax.random.rademacher(
                jax.random.fold_in(key, start), (block, system.size), system.dtype
            )
            wanted = jnp.where(nonzero_rows(old)[:, None], old, signs)
            space = sketch.space.extended(wanted, system.multiply_block)
            factor, _, shift = nystrom(space.vectors, space.images)
            approximation = SpectralApproximation.of_factor(factor, rank, shift=shift)
            return _Sketch(space, start + block, approximation)

        like = jnp.zeros((system.size,), system.dtype)
        none = jnp.zeros((), jnp.int32)
        start = _Sketch(Subspace.empty(rank, like), none, SpectralApproximation.empty(rank, like))
        end = jax.lax.while_loop(unfinished, grow, start)
        return end.approximation, 2 * end.drawn

    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: SpectralApproximation
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        return state.inverse(damping)

    def harvest(
        self, state: SpectralApproximation, directions: SearchDirections
    ) -> SpectralApproximation:
        return secant_update(state, directions)


class _Sketch(NamedTuple):
    space: Subspace
    drawn: Int[Array, ""]  # test vectors so far
    approximation: SpectralApproximation


def _interleaved(vectors: Float[Array, "k m"], block: int) -> Float[Array, "k m"]:
    """The vectors in order, after a gap of zero rows at the end of the first block."""
    new = max(1, int(_NEW_PART * block))
    gap = jnp.zeros((new, vectors.shape[1]), vectors.dtype)
    head = vectors[: block - new]
    return jnp.concatenate([head, gap, vectors[block - new : vectors.shape[0] - new]])
