"""Weights of residuals: numbers, a covariance of their errors, or any linear map."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .row_factor import AbstractRowFactor, DiagonalFactor, InverseTriangle, OperatorFactor


class AbstractWeighting(eqx.Module):
    """A linear map W of the flat residual: the cost becomes `½‖W r‖²`."""

    @abc.abstractmethod
    def factor(self, size: int, dtype: jnp.dtype) -> AbstractRowFactor:
        """W for n = `size` residuals of a dtype."""


class NoiseCovariance(AbstractWeighting):
    """The covariance Σ of the errors of the residuals: the cost is `½ rᵀΣ⁻¹r`.

    `matrix`: (n, n), symmetric positive definite, in squared residual units; an array or a lineax
    operator. It is factorised once, here, by Cholesky, as a matrix unless it is diagonal.

    Raises `ValueError` if it is not positive definite.

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm

        times = jnp.linspace(0.0, 1.0, 5)
        covariance = jnp.exp(-jnp.abs(times[:, None] - times)) + 0.01 * jnp.eye(5)
        y = jnp.array([0.9, 1.0, 1.2, 1.1, 1.0])
        weights = gramlm.NoiseCovariance(covariance)
        solution = gramlm.solve(lambda level: level - y, 0.0, weights=weights)
        ones = jnp.linalg.solve(covariance, jnp.ones(5))
        assert jnp.allclose(solution.value, ones @ y / jnp.sum(ones), rtol=1e-4)
        ```
    """

    root: Float[Array, "n n"] | Float[Array, " n"]

    def __init__(self, matrix: Array | np.ndarray | lx.AbstractLinearOperator):
        if isinstance(matrix, lx.AbstractLinearOperator):
            if lx.is_diagonal(matrix):
                variances = lx.diagonal(matrix)
                self._check(jnp.all(variances > 0) & jnp.all(jnp.isfinite(variances)))
                self.root = jnp.sqrt(variances)
                return
            matrix = matrix.as_matrix()
        array = jnp.asarray(matrix)
        if array.ndim != 2 or array.shape[0] != array.shape[1]:
            raise ValueError(
                f"`NoiseCovariance` takes a square matrix or operator; got the shape {array.shape}."
                " For independent errors pass `weights=1/variances`."
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"`NoiseCovariance` takes real numbers; got {array.dtype}.")
        skew = jnp.max(jnp.abs(array - array.T))
        # Arbitrary: far above the rounding of any sum, far below what is not meant to be symmetric.
        limit = 100 * jnp.finfo(array.dtype).eps * jnp.max(jnp.abs(array))
        if not isinstance(skew, Tracer) and skew > limit:
            raise ValueError(
                f"`NoiseCovariance` takes a symmetric matrix; this differs from its transpose by "
                f"{float(skew):.3g}. Pass `(matrix + matrix.T) / 2` if that is rounding."
            )
        self.root = jnp.linalg.cholesky(array)
        self._check(jnp.all(jnp.isfinite(self.root)))

    @staticmethod
    def _check(positive: Array) -> None:
        if not isinstance(positive, Tracer) and not positive:
            raise ValueError(
                "`NoiseCovariance` takes a positive definite matrix, and this is not: its Cholesky "
                "decomposition breaks down. Add the variance of independent errors to its "
                "diagonal, or leave out residuals that others determine."
            )

    def factor(self, size: int, dtype: jnp.dtype) -> AbstractRowFactor:
        _check_size("NoiseCovariance", len(self.root), size)
        root = self.root.astype(dtype)
        return DiagonalFactor(1 / root) if root.ndim == 1 else InverseTriangle(root)


class LinearWeighting(AbstractWeighting):
    """Any W, a lineax operator from residuals (n,) to as many or other rows (m,).

    A square root of the inverse covariance that is cheap to apply: a filter, differences of
    neighbours, a Fourier transform that has been split into real pairs.
    """

    operator: Any  # checked below, with a better message

    def __check_init__(self):
        if not isinstance(self.operator, lx.AbstractLinearOperator):
            raise TypeError(
                f"`LinearWeighting` takes a lineax operator; got {type(self.operator).__name__}. "
                "Wrap a matrix in `lineax.MatrixLinearOperator`."
            )

    def factor(self, size: int, dtype: jnp.dtype) -> AbstractRowFactor:
        _check_size("LinearWeighting", self.operator.in_size(), size)
        return OperatorFactor(self.operator)


def _check_size(name: str, came: int, size: int) -> None:
    if came != size:
        raise ValueError(f"`{name}` is for {came} residuals, but `residual_fn` returns {size}.")
