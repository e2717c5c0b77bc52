"""Linear maps of residual space: weights, and what a loss makes of J."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import lineax as lx
from jaxtyping import Array, Float


class AbstractRowFactor(eqx.Module):
    """A matrix L that multiplies r and J from the left."""

    @abc.abstractmethod
    def times(self, x: Float[Array, "n k"]) -> Float[Array, "m k"]:
        """`L x`."""

    @abc.abstractmethod
    def transposed(self, u: Float[Array, "m k"]) -> Float[Array, "n k"]:
        """`Lᵀ u`."""

    @property
    @abc.abstractmethod
    def squares(self) -> Float[Array, " n"] | None:
        """`diag(L)²` where L is diagonal, and None elsewhere."""

    def vector(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        """`L x` for one vector."""
        return self.times(x[:, None])[:, 0]


class DiagonalFactor(AbstractRowFactor):
    """`diag(values)`; a row that counts for nothing may be NaN."""

    values: Float[Array, " n"]

    def times(self, x: Float[Array, "n k"]) -> Float[Array, "n k"]:
        values = self.values[:, None]
        return jnp.where(values == 0, 0, values * x)

    def transposed(self, u: Float[Array, "n k"]) -> Float[Array, "n k"]:
        return self.times(u)

    @property
    def squares(self) -> Float[Array, " n"]:
        return self.values**2


class InverseTriangle(AbstractRowFactor):
    """`C⁻¹` for a lower triangle C."""

    triangle: Float[Array, "n n"]

    def times(self, x: Float[Array, "n k"]) -> Float[Array, "n k"]:
        return jsl.solve_triangular(self.triangle, x, lower=True)

    def transposed(self, u: Float[Array, "n k"]) -> Float[Array, "n k"]:
        return jsl.solve_triangular(self.triangle, u, lower=True, trans=1)

    @property
    def squares(self) -> None:
        return None


class OperatorFactor(AbstractRowFactor):
    """Any lineax operator."""

    operator: lx.AbstractLinearOperator

    def times(self, x: Float[Array, "n k"]) -> Float[Array, "m k"]:
        return jax.vmap(self.operator.mv, in_axes=1, out_axes=1)(x)

    def transposed(self, u: Float[Array, "m k"]) -> Float[Array, "n k"]:
        return jax.vmap(self.operator.T.mv, in_axes=1, out_axes=1)(u)

    @property
    def squares(self) -> None:
        return None


class ProductFactor(AbstractRowFactor):
    """`left · right`."""

    left: AbstractRowFactor
    right: AbstractRowFactor

    def times(self, x: Float[Array, "n k"]) -> Float[Array, "m k"]:
        return self.left.times(self.right.times(x))

    def transposed(self, u: Float[Array, "m k"]) -> Float[Array, "n k"]:
        return self.right.transposed(self.left.transposed(u))

    @property
    def squares(self) -> Float[Array, " n"] | None:
        left, right = self.left.squares, self.right.squares
        return None if left is None or right is None else left * right


def product(
    left: AbstractRowFactor | None, right: AbstractRowFactor | None
) -> AbstractRowFactor | None:
    """`left · right`, where None is the identity."""
    if left is None or right is None:
        return right if left is None else left
    return ProductFactor(left, right)
