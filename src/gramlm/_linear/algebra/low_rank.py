"""Matrices known by some of their eigenvectors, and the shifted inverses of these."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core.arrays import symmetrised
from ..._core.reductions import matmul, nonzero_rows, sum_all_squares


class SpectralApproximation(eqx.Module):
    """`K ≈ Uᵀ diag(μ) U + τ(I − UᵀU)`, U with orthonormal rows.

    **Attributes:** `vectors` U, (k, m), by falling eigenvalue, the unused ones zero; `values`
    μ ≥ 0, (k,); `remainder` τ ≥ 0, in place of all other eigenvalues.
    """

    vectors: Float[Array, "k m"]
    values: Float[Array, " k"]
    remainder: Float[Array, ""]

    @classmethod
    def empty(cls, rank: int, like: Float[Array, " m"]) -> "SpectralApproximation":
        """Nothing known: `K ≈ 0`."""
        vectors = jnp.zeros((rank, like.size), like.dtype)
        return cls(vectors, jnp.zeros(rank, like.dtype), jnp.zeros((), like.dtype))

    @classmethod
    def of_factor(
        cls,
        factor: Float[Array, "q m"],
        rank: int,
        *,
        shift: Float[Array, ""] | float = 0.0,
        limit: Int[Array, ""] | int | None = None,
    ) -> "SpectralApproximation":
        """The `rank` largest eigenpairs of `FᵀF − shift·I` on the rows of F; τ is the least kept.

        `limit`: keep no more than these, where that is known only at run time.
        """
        basis, triangle = jnp.linalg.qr(factor.T)
        rotation, singular, _ = jnp.linalg.svd(triangle)
        used = singular > jnp.finfo(factor.dtype).eps * singular.size * singular[0]
        if limit is not None:
            used = used & (jnp.arange(singular.size) < limit)
        values = jnp.where(used, jnp.maximum(singular**2 - shift, 0), 0)[:rank]
        used = used[:rank]
        vectors = jnp.where(used[:, None], matmul(basis, rotation[:, :rank]).T, 0)
        return cls(vectors, values, jnp.min(jnp.where(used, values, values[0])))

    @property
    def rank(self) -> int:
        """k, the number of eigenvectors there is room for."""
        return self.values.shape[0]

    @property
    def used(self) -> Int[Array, ""]:
        """The number of eigenvectors that there are."""
        return jnp.sum(nonzero_rows(self.vectors), dtype=jnp.int32)

    def inverse(
        self, damping: Float[Array, ""]
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        """`x ↦ (K + λI)⁻¹x`."""
        rest = 1 / (self.remainder + damping)
        excess = 1 / (self.values + damping) - rest
        u = self.vectors
        return lambda x: rest * x + matmul(excess * matmul(u, x), u)


def nystrom(
    tests: Float[Array, "k m"], images: Float[Array, "k m"]
) -> tuple[Float[Array, "k m"], Float[Array, "k m"], Float[Array, ""]]:
    """A factor F of Nyström's approximation `K ≈ (KΩ)(ΩᵀKΩ)⁺(KΩ)ᵀ = FᵀF − shift·(a projection)`.

    From orthonormal test vectors, the rows of Ω, and their images; rows of zeros in both are let
    be. Returns F, X in the span of the test vectors with `X Fᵀ = I` where F is not zero, and the
    shift that keeps the core definite in rounding (Tropp, Yurtsever, Udell and Cevher 2017,
    algorithm 3; here what remains indefinite is left out, so that nothing can fail).
    """
    shift = jnp.finfo(tests.dtype).eps * jnp.sqrt(sum_all_squares(images))
    shifted = images + shift * tests
    values, rotation = jnp.linalg.eigh(symmetrised(matmul(tests, shifted.T)))
    definite = (values > shift) & (shift > 0)
    root = jnp.where(definite, 1 / jnp.sqrt(jnp.where(definite, values, 1)), 0)
    rotation = (rotation * root).T
    return matmul(rotation, shifted), matmul(rotation, tests), shift


def even_blocks(rank: int, block_size: int, size: int) -> tuple[int, int]:
    """A rank of at most `rank` and `size`, and the size of the even blocks that make it up."""
    rank = min(rank, size)
    count = -(-rank // block_size)
    return rank // count * count, rank // count
