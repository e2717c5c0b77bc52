"""The residual and products with its Jacobian at one point, under a memory policy.

A *memory policy* decides what is stored between two products with J:

- `Materialise` stores J.
- `Keep` stores the linearised residual (`jax.linearize`): the cheapest products. For a kernel
  evaluated inside the residual, what is stored is as large as J itself.
- `Recompute` stores nothing: each product evaluates the residual again (`jvp`, `vjp`).
- `RowBlocks` recomputes by blocks of residual rows: memory is bounded by the block.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core.reductions import column_sum_squares, matmul, times_transpose
from .._problem.residual.base import AbstractResidual


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

    def sum_squared_rows(
        self, weights: Float[Array, " n"] | None = None
    ) -> tuple[Float[Array, " p"], int] | None:
        """`diag(JᵀWJ)`, W diagonal, and the products with J that it cost; None where rows of J are
        not cheap.
        """
        return None

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

    def kept(self) -> "AbstractLinearisation":
        """The same, with what makes repeated products cheaper stored."""
        return self

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        """`V Jᵀ`: `J v` for each row of V, in one pass over the data."""
        return _each_row(self.jvp, v)

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        """`U J`: `Jᵀ u` for each row of U, in one pass over the data."""
        return _each_row(self.vjp, u)


def _each_row(product: Callable[[Array], Array], block: Array) -> Array:
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

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " n"]:
        return matmul(self.jacobian, v)

    def vjp(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        return matmul(u, self.jacobian)

    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None):
        if weights is None:
            return column_sum_squares(self.jacobian), 0
        return column_sum_squares(jnp.sqrt(weights)[:, None] * self.jacobian), 0

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return _each_row(self.jvp, v) if v.shape[0] == 1 else times_transpose(v, self.jacobian)

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        return _each_row(self.vjp, u) if u.shape[0] == 1 else matmul(u, self.jacobian)


class AbstractDifferentiatedLinearisation(AbstractLinearisation):
    """Products that differentiate the residual anew each time."""

    function: eqx.AbstractVar[Any]
    params: eqx.AbstractVar[Float[Array, " p"]]

    @property
    def num_params(self) -> int:
        return self.function.num_params

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " n"]:
        return jax.jvp(self.function, (self.params,), (v,))[1]

    def vjp(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        return jax.vjp(self.function, self.params)[1](u)[0]

    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None):
        return _sum_squared_rows(self.function, self.params, weights)


class RecomputedLinearisation(AbstractDifferentiatedLinearisation):
    """Vectors of a block are multiplied each by itself."""

    function: AbstractResidual
    params: Float[Array, " p"]
    residual: Float[Array, " n"]

    def kept(self) -> "KeptLinearisation":
        return _kept(self.function, self.params)


class RowLinearisation(AbstractDifferentiatedLinearisation):
    """Rows of J are assembled anew each time, some points at a time.

    So one pass over the data serves any number of vectors by a matrix product; a single vector is
    multiplied by differentiation.
    """

    function: AbstractResidual
    params: Float[Array, " p"]
    residual: Float[Array, " n"]

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return self.function.rows_times(self.params, v)

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        return self.function.times_rows(self.params, u)


class KeptLinearisation(AbstractLinearisation):
    """Products that reuse one stored linearisation."""

    function: AbstractResidual
    params: Float[Array, " p"]
    residual: Float[Array, " n"]
    linear: Callable[[Array], Array]  # a pytree, as `jax.linearize` returns it

    @property
    def num_params(self) -> int:
        return self.function.num_params

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " n"]:
        return self.linear(v)

    def vjp(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        return jax.linear_transpose(self.linear, self.params)(u)[0]

    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None):
        return _sum_squared_rows(self.function, self.params, weights)


def _sum_squared_rows(function: AbstractResidual, params, weights):
    exact = function.sum_squared_rows(params, weights)
    return None if exact is None else (exact, function.assembly_products())


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


def _kept(function: AbstractResidual, params: Float[Array, " p"]) -> KeptLinearisation:
    residual, linear = jax.linearize(function, params)
    return KeptLinearisation(function=function, params=params, residual=residual, linear=linear)


def _recomputed(function: AbstractResidual, params: Float[Array, " p"]):
    return RecomputedLinearisation(function=function, params=params, residual=function(params))
