"""Linear maps of residual space: weights, and what a loss makes of J."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import lineax as lx
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from .._core.reductions import all_finite


class AbstractRowFactor(eqx.Module):
    """A matrix L, (m, n), that multiplies r and J from the left."""

    @property
    @abc.abstractmethod
    def identity(self) -> bool:
        """Whether L is the identity, which nothing is to be computed for."""

    @property
    @abc.abstractmethod
    def diagonal(self) -> bool:
        """Whether L is diagonal."""

    @property
    @abc.abstractmethod
    def new_rows(self) -> int | None:
        """m, where its rows are others than those of the residual; None where they are the same."""

    @abc.abstractmethod
    def times(self, x: Float[Array, "n *k"]) -> Float[Array, "m *k"]:
        """`L x` for one vector, or for the columns of a matrix."""

    @abc.abstractmethod
    def transposed(self, u: Float[Array, "m *k"]) -> Float[Array, "n *k"]:
        """`Lᵀ u`, likewise."""

    @abc.abstractmethod
    def squares(self, weights: Float[Array, " m"] | None) -> Float[Array, " n"] | None:
        """`diag(LᵀWL)` for a diagonal L and W; None is the identity, on both sides."""

    @abc.abstractmethod
    def count(self, size: int) -> Int[Array, ""]:
        """How many of n = `size` residuals count for something."""

    @property
    @abc.abstractmethod
    def sound(self) -> Bool[Array, ""]:
        """Whether its numbers can be those of weights."""

    @abc.abstractmethod
    def guarding(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        """x, and an error at run time if traced numbers turn out to be no weights."""


class Unweighted(AbstractRowFactor):
    """The identity."""

    @property
    def identity(self) -> bool:
        return True

    @property
    def diagonal(self) -> bool:
        return True

    @property
    def new_rows(self) -> None:
        return None

    def times(self, x: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        return x

    def transposed(self, u: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        return u

    def squares(self, weights: Float[Array, " n"] | None) -> Float[Array, " n"] | None:
        return weights

    def count(self, size: int) -> Int[Array, ""]:
        return jnp.asarray(size, jnp.int32)

    @property
    def sound(self) -> Bool[Array, ""]:
        return jnp.asarray(True)

    def guarding(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        return x


class DiagonalFactor(AbstractRowFactor):
    """`diag(values)`; a row that counts for nothing may be NaN."""

    values: Float[Array, " n"]

    @property
    def identity(self) -> bool:
        return False

    @property
    def diagonal(self) -> bool:
        return True

    @property
    def new_rows(self) -> None:
        return None

    def times(self, x: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        values = self.values if x.ndim == 1 else self.values[:, None]
        return jnp.where(values == 0, 0, values * x)

    def transposed(self, u: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        return self.times(u)

    def squares(self, weights: Float[Array, " n"] | None) -> Float[Array, " n"]:
        return self.values**2 if weights is None else weights * self.values**2

    def count(self, size: int) -> Int[Array, ""]:
        return jnp.sum(self.values != 0).astype(jnp.int32)

    @property
    def sound(self) -> Bool[Array, ""]:
        # Roots of the weights: those of negative ones are NaN.
        return all_finite(self.values)

    def guarding(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        if not isinstance(self.values, Tracer):
            return x
        return eqx.error_if(x, ~self.sound, "`weights` must be finite and not negative.")


class AbstractMixingFactor(AbstractRowFactor):
    """One that mixes the rows."""

    @property
    def identity(self) -> bool:
        return False

    @property
    def diagonal(self) -> bool:
        return False

    def squares(self, weights: Float[Array, " m"] | None) -> Float[Array, " n"]:
        raise TypeError(f"`squares` is of diagonal factors; this is {type(self).__name__}.")

    def count(self, size: int) -> Int[Array, ""]:
        return jnp.asarray(size, jnp.int32)

    @property
    def sound(self) -> Bool[Array, ""]:
        return jnp.asarray(True)

    def guarding(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        return x


class InverseTriangle(AbstractMixingFactor):
    """`C⁻¹` for a lower triangle C."""

    triangle: Float[Array, "n n"]

    @property
    def new_rows(self) -> None:
        return None

    def times(self, x: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        return jsl.solve_triangular(self.triangle, x, lower=True)

    def transposed(self, u: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        return jsl.solve_triangular(self.triangle, u, lower=True, trans=1)


class OperatorFactor(AbstractMixingFactor):
    """Any lineax operator."""

    operator: lx.AbstractLinearOperator

    @property
    def new_rows(self) -> int:
        return self.operator.out_size()

    def times(self, x: Float[Array, "n *k"]) -> Float[Array, "m *k"]:
        return _columns(self.operator, x)

    def transposed(self, u: Float[Array, "m *k"]) -> Float[Array, "n *k"]:
        return _columns(self.operator.T, u)


def _columns(operator: lx.AbstractLinearOperator, x: Array) -> Array:
    return operator.mv(x) if x.ndim == 1 else jax.vmap(operator.mv, in_axes=1, out_axes=1)(x)


class ProductFactor(AbstractRowFactor):
    """`left · right`, neither of them the identity."""

    left: AbstractRowFactor
    right: AbstractRowFactor

    @property
    def identity(self) -> bool:
        return False

    @property
    def diagonal(self) -> bool:
        return self.left.diagonal and self.right.diagonal

    @property
    def new_rows(self) -> int | None:
        return self.right.new_rows if self.left.new_rows is None else self.left.new_rows

    def times(self, x: Float[Array, "n *k"]) -> Float[Array, "m *k"]:
        return self.left.times(self.right.times(x))

    def transposed(self, u: Float[Array, "m *k"]) -> Float[Array, "n *k"]:
        return self.right.transposed(self.left.transposed(u))

    def squares(self, weights: Float[Array, " m"] | None) -> Float[Array, " n"] | None:
        return self.right.squares(self.left.squares(weights))

    def count(self, size: int) -> Int[Array, ""]:
        return self.right.count(size)

    @property
    def sound(self) -> Bool[Array, ""]:
        return self.left.sound & self.right.sound

    def guarding(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        return self.left.guarding(self.right.guarding(x))


def product(left: AbstractRowFactor, right: AbstractRowFactor) -> AbstractRowFactor:
    """`left · right`."""
    if left.identity:
        return right
    return left if right.identity else ProductFactor(left, right)
