"""The factor of a metric, by which J is whitened."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import lineax as lx
from jaxtyping import Array, Float


class Whitening(eqx.Module):
    """A factor `M = L Lᵀ`, by which J becomes `J L⁻ᵀ` and a step `δ = L⁻ᵀ y`.

    `factor` is None for the identity, the vector `√diag(M)` for a diagonal metric, and the
    Cholesky factor L, (p, p), for any other.
    """

    factor: Array | None

    def rows(self, jacobian: Float[Array, "n p"]) -> Float[Array, "n p"]:
        """`J L⁻ᵀ`."""
        if self.factor is None:
            return jacobian
        if self.factor.ndim == 1:
            return jacobian / self.factor
        return jsl.solve_triangular(self.factor, jacobian.T, lower=True).T

    def step(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """`L⁻ᵀ y`."""
        if self.factor is None:
            return y
        if self.factor.ndim == 1:
            return y / self.factor
        return jsl.solve_triangular(self.factor, y, lower=True, trans=1)

    def transposed_matrix(self, size: int, dtype: Any) -> Float[Array, "p p"]:
        """`Lᵀ`, so that `‖δ‖_M = ‖Lᵀδ‖`."""
        if self.factor is None:
            return jnp.eye(size, dtype=dtype)
        return jnp.diag(self.factor) if self.factor.ndim == 1 else self.factor.T


def whitening(metric: lx.AbstractLinearOperator) -> Whitening:
    """The factor of a metric; a Cholesky factorisation unless it is diagonal."""
    if isinstance(metric, lx.IdentityLinearOperator):
        return Whitening(None)
    if lx.is_diagonal(metric):
        return Whitening(jnp.sqrt(lx.diagonal(metric)))
    return Whitening(jnp.linalg.cholesky(metric.as_matrix()))
