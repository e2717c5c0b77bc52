"""Posterior covariances by what the data add to a prior, for more parameters than data."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._core.arrays import VECTORS_AT_A_TIME, map_blocks, unit_rows
from ..._core.flatten import FlatSpec
from ..._core.reductions import column_lengths, column_sum_squares, matmul
from .base import AbstractCovariance
from .prior import PriorFactor


class PosteriorCovariance(AbstractCovariance):
    """`Σ = L (I − Vᵀ diag(s²/(1+s²)) V) Lᵀ`, the covariance of a Gaussian posterior.

    `P = L Lᵀ` is the prior, and s and V are the singular values and right singular vectors of
    `J L/σ`, or of as much of it as a basis knows. It is `(P⁻¹ + JᵀJ/σ²)⁻¹`, k·p numbers.

    **Attributes:** those of `AbstractCovariance`, and

    - `prior`: L. `values`: s, (k,). `directions`: V, (k, p), orthonormal rows.
    - `probes`: random directions of what the basis does not know, (m, p), parameter units; none of
      them where Σ is exact.
    """

    params: Float[Array, " p"]
    params_spec: FlatSpec
    prior: PriorFactor
    values: Float[Array, " k"]
    directions: Float[Array, "k p"]
    probes: Float[Array, "m p"]
    degrees_of_freedom: Float[Array, ""]

    @eqx.filter_jit
    def mv_block(self, vectors: Float[Array, "k p"]) -> Float[Array, "k p"]:
        white = self.prior.transposed(vectors)
        return self.prior.times(shrunk(white, self.directions, self._learned))

    @eqx.filter_jit
    def deviations(self) -> Float[Array, " p"]:
        size, dtype = self.params.size, self.params.dtype
        if not self.prior.diagonal:
            count = min(VECTORS_AT_A_TIME, size)
            return map_blocks(
                lambda start: self.deviations_of(unit_rows(start, count, size, dtype))[:, None],
                size,
                count,
            )[:, 0]
        rest = jnp.maximum(1 - column_sum_squares(self.directions), 0)
        known = column_sum_squares(self.directions * self._left[:, None])
        return self.prior.factor * self._refined(rest, jnp.sqrt(rest + known))

    @eqx.filter_jit
    def deviations_of(self, functionals: Float[Array, "k p"]) -> Float[Array, " k"]:
        return self._lengths(self.prior.transposed(functionals))

    def missed(self) -> Float[Array, " p"]:
        return column_sum_squares(self.probes) if len(self.probes) else jnp.zeros_like(self.params)

    def missed_of(self, functionals: Float[Array, "k p"]) -> Float[Array, " k"]:
        if not len(self.probes):
            return jnp.zeros_like(functionals[:, 0])
        return column_sum_squares(matmul(self.probes, functionals.T))

    @eqx.filter_jit
    def correlation(self) -> Float[Array, "p p"]:
        deviations = self.deviations()
        return jnp.clip(self.as_matrix() / deviations / deviations[:, None], -1, 1)

    def draw(self, key: PRNGKeyArray, count: int) -> Float[Array, "count p"]:
        normal = jax.random.normal(key, (count, self.params.size), self.params.dtype)
        # The square root of I − Vᵀ diag(s²/(1+s²)) V.
        return self.prior.times(shrunk(normal, self.directions, 1 - self._left))

    @property
    def _left(self) -> Float[Array, " k"]:
        """`1/√(1+s²)`: what is left of a standard deviation."""
        return 1 / jnp.hypot(1.0, self.values)

    @property
    def _learned(self) -> Float[Array, " k"]:
        return learned(self.values)

    def _lengths(self, white: Float[Array, "k p"]) -> Float[Array, " k"]:
        """`‖Σ^½ y‖` by the parts of y in and outside of V, so that nothing cancels."""
        inside = matmul(white, self.directions.T)
        outside = white - matmul(inside, self.directions)
        parts = jnp.concatenate([outside, inside * self._left], axis=1)
        return column_lengths(parts.T)

    def _refined(self, rest: Float[Array, " p"], rough: Float[Array, " p"]) -> Float[Array, " p"]:
        """With those parameters anew of which next to nothing lies outside of V: `1 − ΣV²` has
        cancelled there."""
        size, dtype = rest.size, rest.dtype
        count = min(VECTORS_AT_A_TIME, size)
        order = jnp.argsort(rest)
        cancelled = jnp.sum(rest < jnp.finfo(dtype).eps ** 0.5)

        def again(i, found):
            which = jax.lax.dynamic_slice_in_dim(order, i * count, count)
            units = (which[:, None] == jnp.arange(size)).astype(dtype)
            return found.at[which].set(self._lengths(units))

        return jax.lax.fori_loop(0, -(-cancelled // count), again, rough)


def learned(values: Float[Array, " k"]) -> Float[Array, " k"]:
    """`s²/(1+s²)`, the part of a variance that the data take away."""
    return (values / jnp.hypot(1.0, values)) ** 2


def shrunk(
    white: Float[Array, "k p"], directions: Float[Array, "m p"], by: Float[Array, " m"]
) -> Float[Array, "k p"]:
    """`(I − Vᵀ diag(by) V) y` for each row."""
    return white - matmul(matmul(white, directions.T) * by, directions)
