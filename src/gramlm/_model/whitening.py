"""The inverse of a metric as a product, of its factors or of itself and the identity."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import lineax as lx
from jaxtyping import Array, Float

from .metric import metric_inverse


class AbstractSplit(eqx.Module):
    """`M⁻¹ = S T`, so that `J M⁻¹ Jᵀ = (J S)(T Jᵀ)`. Blocks of k vectors have them as rows."""

    @abc.abstractmethod
    def row(self, g: Float[Array, " p"]) -> Float[Array, " p"]:
        """`T g`."""

    @abc.abstractmethod
    def rows(self, g: Float[Array, "k p"]) -> Float[Array, "k p"]:
        """`T g` for each row."""

    @abc.abstractmethod
    def step(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """`S y`."""

    @abc.abstractmethod
    def steps(self, y: Float[Array, "k p"]) -> Float[Array, "k p"]:
        """`S y` for each row."""


class Inverse(AbstractSplit):
    """`T = M⁻¹` and `S = I`: for products alone no factor is needed. None is the identity."""

    metric: lx.AbstractLinearOperator | None

    def row(self, g: Float[Array, " p"]) -> Float[Array, " p"]:
        return g if self.metric is None else metric_inverse(self.metric, g)

    def rows(self, g: Float[Array, "k p"]) -> Float[Array, "k p"]:
        return jax.vmap(self.row)(g)

    def step(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        return y

    def steps(self, y: Float[Array, "k p"]) -> Float[Array, "k p"]:
        return y


class Whitening(AbstractSplit):
    """A factor `M = L Lᵀ`, by which J becomes `J L⁻ᵀ` and a step `δ = L⁻ᵀ y`: `T = L⁻¹ = Sᵀ`.

    `factor` is None for the identity, the vector `√diag(M)` for a diagonal metric, and the
    Cholesky factor L, (p, p), for any other.
    """

    factor: Array | None

    @property
    def diagonal(self) -> bool:
        """Whether L is diagonal."""
        return self.factor is None or self.factor.ndim == 1

    def row(self, g: Float[Array, " p"]) -> Float[Array, " p"]:
        return self.rows(g[None])[0]

    def rows(self, g: Float[Array, "k p"]) -> Float[Array, "k p"]:
        if self.factor is None:
            return g
        if self.factor.ndim == 1:
            return g / self.factor
        return jsl.solve_triangular(self.factor, g.T, lower=True).T

    def step(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        if self.factor is None:
            return y
        if self.factor.ndim == 1:
            return y / self.factor
        return jsl.solve_triangular(self.factor, y, lower=True, trans=1)

    def steps(self, y: Float[Array, "k p"]) -> Float[Array, "k p"]:
        return jax.vmap(self.step)(y)

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
