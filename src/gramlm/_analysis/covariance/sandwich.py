"""Covariances that take the scatter of each residual from the residual itself."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core.arrays import safe_divide
from ..._core.reductions import column_lengths, matmul
from ..._problem.segment import Blocks


def sandwich_factor(
    factor: Float[Array, "p k"], blocks: Blocks, noise: Float[Array, ""], widening: Float[Array, ""]
) -> Float[Array, "p k"]:
    """F with `Σ = s² F Fᵀ = widening·H⁻¹ (Σ gᵢgᵢᵀ) H⁻¹`, gᵢ the gradient of a block.

    `factor` is that of `(J̃ᵀJ̃)⁻¹`, `noise` is s. H is J̃ᵀJ̃ without what it has beyond the curvature
    of the loss; where it is not positive definite everything is NaN (Huber 1967; White 1980).
    """
    # J̃ F has orthonormal columns, so that all of this is well conditioned.
    rows = matmul(blocks.rows, factor)
    middle = jnp.eye(rows.shape[1], dtype=rows.dtype) - matmul(
        rows.T, blocks.excess[:, None] * rows
    )
    values, directions = jnp.linalg.eigh(middle)
    convex = jnp.all(values > 0)
    inverse = matmul(directions / jnp.where(convex, values, 1), directions.T)
    shares = safe_divide(blocks.sizes, noise)
    triangle = jnp.linalg.qr(shares[:, None] * rows, mode="r")
    found = jnp.sqrt(widening) * matmul(matmul(factor, inverse), triangle.T)
    return jnp.where(convex, found, jnp.nan)


def deviation(residual: Float[Array, " n"], degrees: Array) -> Float[Array, ""]:
    """`√(‖r‖²/degrees)`, by the length, whose square may overflow or underflow."""
    return column_lengths(residual[:, None])[0] / jnp.sqrt(degrees)
