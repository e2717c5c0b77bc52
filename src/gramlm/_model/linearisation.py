"""The residual and products with its Jacobian at one point."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core.reductions import column_sum_squares, matmul, times_transpose
from .._problem.residual.base import AbstractResidual

# `diag(JᵀWJ)`, (p,), and the products with J that it cost.
SquaredRows = tuple[Float[Array, " p"], int]


class Source(NamedTuple):
    """A residual function, and the point at which it is linearised."""

    function: AbstractResidual
    params: Float[Array, " p"]


class AbstractLinearisation(eqx.Module):
    """`r` and products with `J = ∂r/∂θ` at one point.

    Vectors of parameters have the shape (p,), of residuals (n,); blocks of k vectors have them
    as rows, (k, p) and (k, n).
    """

    residual: eqx.AbstractVar[Float[Array, " n"]]

    @property
    @abc.abstractmethod
    def num_params(self) -> int:
        """p, the number of parameters."""

    @property
    def num_residuals(self) -> int:
        """n, the number of residuals."""
        return self.residual.shape[0]

    @abc.abstractmethod
    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " n"]:
        """`J v`."""

    @abc.abstractmethod
    def vjp(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        """`Jᵀ u`."""

    @property
    @abc.abstractmethod
    def stored(self) -> Float[Array, "n p"] | None:
        """J where it is stored as a matrix, and None where it is not."""

    @property
    @abc.abstractmethod
    def source(self) -> Source | None:
        """The residual function of which it is the linearisation; None where that is not known."""

    @abc.abstractmethod
    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        """`V Jᵀ`: `J v` for each row of V, in one pass over the data if that is possible."""

    @abc.abstractmethod
    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        """`U J`: `Jᵀ u` for each row of U, in one pass over the data if that is possible."""

    @abc.abstractmethod
    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None) -> SquaredRows | None:
        """`diag(JᵀWJ)`, W diagonal, and the products with J that it cost; None where rows of J are
        not cheap.
        """

    @abc.abstractmethod
    def kept(self) -> "AbstractLinearisation":
        """The same, with what makes repeated products cheaper stored."""

    def column_norms_squared(
        self, seed: Int[Array, ""], num_probes: int
    ) -> tuple[Float[Array, " p"], int]:
        """`diag(JᵀJ)`, and the products with J that it cost.

        Exact where rows of J are cheap; otherwise the mean of `(Jᵀz)²` over `num_probes` random
        sign vectors z drawn from `seed`, whose expectation it is (Bekas, Kokiopoulou and Saad
        2007).
        """
        exact = self.sum_squared_rows()
        return _probed(self, seed, num_probes) if exact is None else exact


class AbstractProductLinearisation(AbstractLinearisation):
    """One of which nothing is known but products: to inherit from, with `num_params`, `jvp` and
    `vjp`.
    """

    @property
    def stored(self) -> None:
        return None

    @property
    def source(self) -> None:
        return None

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return each_row(self.jvp, v)

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        return each_row(self.vjp, u)

    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None) -> None:
        return None

    def kept(self) -> AbstractLinearisation:
        return self


def each_row(
    product: Callable[[Float[Array, " a"]], Float[Array, " b"]], block: Float[Array, "k a"]
) -> Float[Array, "k b"]:
    """A product with each row of a block by itself."""
    # One vector by itself: with an axis of one, the compiler may lay arrays out the wrong way
    # round (a network of 4096 points: 110 ms for the two products, 60 without).
    return product(block[0])[None] if block.shape[0] == 1 else jax.vmap(product)(block)


class MaterialisedLinearisation(AbstractLinearisation):
    """J as a dense matrix, (n, p)."""

    residual: Float[Array, " n"]
    jacobian: Float[Array, "n p"]

    @property
    def num_params(self) -> int:
        return self.jacobian.shape[1]

    @property
    def stored(self) -> Float[Array, "n p"]:
        return self.jacobian

    @property
    def source(self) -> None:
        return None

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " n"]:
        return matmul(self.jacobian, v)

    def vjp(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        return matmul(u, self.jacobian)

    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None) -> SquaredRows:
        if weights is None:
            return column_sum_squares(self.jacobian), 0
        return column_sum_squares(jnp.sqrt(weights)[:, None] * self.jacobian), 0

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return each_row(self.jvp, v) if v.shape[0] == 1 else times_transpose(v, self.jacobian)

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        return each_row(self.vjp, u) if u.shape[0] == 1 else matmul(u, self.jacobian)

    def kept(self) -> "MaterialisedLinearisation":
        return self


def _probed(linearisation: AbstractLinearisation, seed: Int[Array, ""], num_probes: int):
    n, p = linearisation.num_residuals, linearisation.num_params
    dtype = linearisation.residual.dtype
    signs = jax.random.rademacher(jax.random.key(seed), (num_probes, n), dtype)
    # One probe after another: a block would need the memory of one.
    total = jax.lax.fori_loop(
        0,
        num_probes,
        lambda i, acc: acc + linearisation.vjp(signs[i]) ** 2,
        jnp.zeros((p,), dtype),
    )
    return total / num_probes, num_probes
