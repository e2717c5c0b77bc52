"""Linear maps of residual space: weights, and what a loss makes of J."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import lineax as lx
from jaxtyping import Array, Bool, Float

from .._linearisation import AbstractLinearisation, MaterialisedLinearisation


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


class FactoredLinearisation(AbstractLinearisation):
    """`L J P`: rows of J combined by L, and the columns of parameters that are held left out."""

    inner: AbstractLinearisation
    residual: Float[Array, " m"]
    left: AbstractRowFactor | None
    free: Bool[Array, " p"] | None

    @property
    def num_params(self) -> int:
        return self.inner.num_params

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " m"]:
        image = self.inner.jvp(self._freed(v))
        return image if self.left is None else self.left.vector(image)

    def vjp(self, u: Float[Array, " m"]) -> Float[Array, " p"]:
        pulled = u if self.left is None else self.left.transposed(u[:, None])[:, 0]
        return self._freed(self.inner.vjp(pulled))

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k m"]:
        images = self.inner.jvp_block(self._freed(v))
        return images if self.left is None else self.left.times(images.T).T

    def vjp_block(self, u: Float[Array, "k m"]) -> Float[Array, "k p"]:
        pulled = u if self.left is None else self.left.transposed(u.T).T
        return self._freed(self.inner.vjp_block(pulled))

    def sum_squared_rows(
        self, weights: Float[Array, " m"] | None = None
    ) -> tuple[Float[Array, " p"], int] | None:
        squares = None if self.left is None else self.left.squares
        if self.left is not None and squares is None:
            return None
        if weights is not None:
            squares = weights if squares is None else weights * squares
        known = self.inner.sum_squared_rows(squares)
        return None if known is None else (self._freed(known[0]), known[1])

    def kept(self) -> "FactoredLinearisation":
        return eqx.tree_at(lambda at: at.inner, self, self.inner.kept())

    def _freed(self, v: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        return v if self.free is None else jnp.where(self.free, v, 0)


def factored(
    at: AbstractLinearisation,
    residual: Float[Array, " m"],
    left: AbstractRowFactor | None,
    free: Bool[Array, " p"] | None = None,
) -> AbstractLinearisation:
    """`L J P` for a linearisation, with `residual` in the place of r; itself where both are None.

    A stored J stays one.
    """
    if left is None and free is None:
        return at
    if isinstance(at, MaterialisedLinearisation):
        jacobian = at.jacobian if left is None else left.times(at.jacobian)
        # What is held may have a derivative that is not finite.
        held = jacobian if free is None else jnp.where(free, jacobian, 0)
        return MaterialisedLinearisation(residual, held)
    return FactoredLinearisation(inner=at, residual=residual, left=left, free=free)
