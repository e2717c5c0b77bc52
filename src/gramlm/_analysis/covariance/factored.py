"""Covariances `Σ = s² F Fᵀ`, from the singular values of a small triangle or of J."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..._core.flatten import FlatSpec
from ..._core.reductions import all_finite, column_lengths, matmul
from .base import AbstractCovariance


class FactoredCovariance(AbstractCovariance):
    """`Σ = s² F Fᵀ`; infinite for what J does not determine.

    A linear function `aᵀθ` counts as undetermined where its part in the null space of J, by
    singular values at the threshold, would have a larger variance than all the rest: then rounding
    alone may have made up what it is. Standard errors and diagonals are infinite there,
    covariances, correlations and samples NaN. A function whose variance is finite keeps it,
    whatever the others are.

    **Attributes:** those of `AbstractCovariance`, and

    - `factor`: F, (p, k). `noise`: s, the standard deviation of a residual, or 1.
    - `loose`: as F, of the null space, with singular values at the threshold; None where the null
      space is left out.
    - `rank`: the rank of J, or of J with the prior below it.
    """

    params: Float[Array, " p"]
    params_spec: FlatSpec
    factor: Float[Array, "p k"]
    loose: Float[Array, "p k"] | None
    noise: Float[Array, ""]
    rank: Int[Array, ""]
    degrees_of_freedom: Float[Array, ""]

    @eqx.filter_jit
    def mv_block(self, vectors: Float[Array, "k p"]) -> Float[Array, "k p"]:
        images = self.noise * matmul(matmul(vectors, self.factor), self.noise * self.factor.T)
        if self.loose is None:
            return images
        undefined = self._undetermined(vectors)[:, None] | self._undetermined(None)
        return jnp.where(undefined, jnp.nan, images)

    @eqx.filter_jit
    def deviations(self) -> Float[Array, " p"]:
        return self._deviations(self.factor, self._undetermined(None))

    @eqx.filter_jit
    def deviations_of(self, functionals: Float[Array, "k p"]) -> Float[Array, " k"]:
        return self._deviations(matmul(functionals, self.factor), self._undetermined(functionals))

    def missed(self) -> Float[Array, " p"]:
        return jnp.zeros_like(self.params)

    def missed_of(self, functionals: Float[Array, "k p"]) -> Float[Array, " k"]:
        return jnp.zeros_like(functionals[:, 0])

    @eqx.filter_jit
    def correlation(self) -> Float[Array, "p p"]:
        # Of F alone, so that a residual of zero has one too.
        lengths = column_lengths(self.factor.T)
        rows = self.factor / lengths[:, None]
        undetermined = self._undetermined(None)
        rows = jnp.where(undetermined[:, None], jnp.nan, rows)
        return jnp.clip(matmul(rows, rows.T), -1, 1)

    def draw(self, key: PRNGKeyArray, count: int) -> Float[Array, "count p"]:
        normal = jax.random.normal(key, (count, self.factor.shape[1]), self.factor.dtype)
        draws = self.noise * matmul(normal, self.factor.T)
        return jnp.where(self._undetermined(None), jnp.nan, draws)

    def _deviations(self, rows: Float[Array, "m k"], undetermined: Bool[Array, " m"]):
        return jnp.where(undetermined, jnp.inf, self.noise * column_lengths(rows.T))

    def _undetermined(self, functionals: Float[Array, "m p"] | None) -> Bool[Array, " m"]:
        """For each row, or for each parameter."""
        if self.loose is None:
            count = self.params.size if functionals is None else len(functionals)
            return jnp.zeros((count,), bool)
        parts = (self.loose, self.factor)
        if functionals is not None:
            parts = tuple(matmul(functionals, part) for part in parts)
        loose, firm = (column_lengths(part.T) for part in parts)
        return loose > firm


def scaled_factors(
    triangle: Float[Array, "m p"], rtol: Float[Array, ""]
) -> tuple[Float[Array, "p p"], Float[Array, "p p"], Int[Array, ""]]:
    """F with `(RᵀR)⁻¹ = F Fᵀ` where R has full rank, the loose factor, and the rank.

    Columns of R are divided by their lengths S. With `R S⁻¹ = U σ Vᵀ` it is `F = S⁻¹ V σ⁻¹`: RᵀR is
    never formed, and no unit of a parameter matters (Stewart 1987, on column scaling).
    """
    m, p = triangle.shape
    usable = all_finite(triangle)
    triangle = jnp.where(usable, triangle, 0)
    lengths = column_lengths(triangle)
    scales = jnp.where(lengths > 0, lengths, 1)
    padded = jnp.concatenate([triangle / scales, jnp.zeros((max(p - m, 0), p), triangle.dtype)])
    _, values, directions = jnp.linalg.svd(padded, full_matrices=False)
    threshold = jnp.where(values[0] > 0, rtol * values[0], 1)
    kept = values > threshold
    rows = directions.T / scales[:, None]
    factor = rows * jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    loose = rows * jnp.where(kept, 0, 1 / threshold)
    return jnp.where(usable, factor, jnp.nan), loose, jnp.sum(kept).astype(jnp.int32)


def minimum_norm_factor(
    rows: Float[Array, "m p"], rtol: Float[Array, ""]
) -> tuple[Float[Array, "p k"], Int[Array, ""]]:
    """F with `J⁺J⁺ᵀ = F Fᵀ`, and the rank, for J or the triangle of `J = QR`."""
    values, directions = right_singular(rows)
    kept = values > rtol * values[0]
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    factor = jnp.where(all_finite(values), directions.T * inverse, jnp.nan)
    return factor, jnp.sum(kept).astype(jnp.int32)


def right_singular(
    rows: Float[Array, "m p"],
) -> tuple[Float[Array, " k"], Float[Array, "k p"]]:
    """Singular values, largest first, and right singular vectors as rows; NaN if an entry is."""
    usable = all_finite(rows)
    rows = jnp.where(usable, rows, 0)
    if rows.shape[0] < rows.shape[1]:
        # Of a square triangle: 3 times as fast for n = 1000, p = 4000.
        q, r = jnp.linalg.qr(rows.T)
        left, values, _ = jnp.linalg.svd(r)
        directions = matmul(q, left).T
    else:
        _, values, directions = jnp.linalg.svd(rows, full_matrices=False)
    return jnp.where(usable, values, jnp.nan), directions


def relative_threshold(n: int, p: int, dtype) -> float:
    """`8ε√max(n, p)`: what rounding may leave of a singular value of zero, beside the largest.

    Entries of J have errors of some ε that do not add up in one direction; how many, 8, is
    arbitrary.
    """
    return float(8 * jnp.finfo(dtype).eps * max(n, p) ** 0.5)
