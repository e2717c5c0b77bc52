"""The prior covariance of the parameters, as a factor `P = L Lᵀ`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from ..._core.flatten import FlatSpec
from ..._core.reductions import matmul

_WHAT = "a variance, a pytree of variances like `params`, or a lineax operator"
_MATRIX = "Wrap a matrix as `lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)`."


class PriorFactor(eqx.Module):
    """`factor`: the vector of standard deviations, (p,), or the Cholesky factor L, (p, p)."""

    factor: Array

    @property
    def diagonal(self) -> bool:
        """Whether P is diagonal."""
        return self.factor.ndim == 1

    def times(self, y: Float[Array, "k p"]) -> Float[Array, "k p"]:
        """`L y` for each row."""
        return y * self.factor if self.diagonal else matmul(y, self.factor.T)

    def transposed(self, v: Float[Array, "k p"]) -> Float[Array, "k p"]:
        """`Lᵀ v` for each row."""
        return v * self.factor if self.diagonal else matmul(v, self.factor)


def as_prior(prior: Any, spec: FlatSpec, dtype: Any) -> PriorFactor:
    """The factor of what a user gave as P; raises `ValueError` or `TypeError` if it is none."""
    if isinstance(prior, lx.AbstractLinearOperator):
        return _of_operator(prior, spec.size, dtype)
    variances = _variances(prior, spec, dtype)
    _check(variances, lambda x: (x >= 0) & np.isfinite(x), "have variances that are finite and ≥ 0")
    return PriorFactor(jnp.sqrt(variances))


def _of_operator(operator: lx.AbstractLinearOperator, size: int, dtype: Any) -> PriorFactor:
    if operator.in_size() != size or operator.out_size() != size:
        raise ValueError(
            f"`prior` must be a square operator of size {size}; got one of {operator.out_size()} "
            f"by {operator.in_size()}."
        )
    if lx.is_diagonal(operator):
        variances = lx.diagonal(operator).astype(dtype)
        _check(variances, lambda x: (x >= 0) & np.isfinite(x), "have a diagonal of finite, ≥ 0")
        return PriorFactor(jnp.sqrt(variances))
    if not lx.is_positive_semidefinite(operator):
        raise ValueError(
            "`prior` must be tagged as positive definite (`lx.positive_semidefinite_tag`)."
        )
    factor = jnp.linalg.cholesky(operator.as_matrix().astype(dtype))
    _check(factor, np.isfinite, "be positive definite: its Cholesky factorisation must exist")
    return PriorFactor(factor)


def _variances(prior: PyTree, spec: FlatSpec, dtype: Any) -> Float[Array, " p"]:
    leaves, treedef = jax.tree.flatten(prior)
    if isinstance(prior, int | float | np.ndarray | np.generic | Array) and np.ndim(prior) == 0:
        return jnp.full((spec.size,), jnp.asarray(prior, dtype))
    if treedef != spec.treedef:
        raise ValueError(f"`prior` must be {_WHAT}, {spec.treedef}; got {treedef}. {_MATRIX}")
    parts = []
    for leaf, slot in zip(leaves, spec.slots, strict=True):
        if slot is None:
            continue
        try:
            variances = jnp.broadcast_to(jnp.asarray(leaf, dtype), slot.shape)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`prior` must have arrays that broadcast to the shapes of `params`; got "
                f"{np.shape(leaf)} for {slot.shape}. {_MATRIX}"
            ) from error
        both = jax.lax.complex(variances, variances) if slot.is_complex else variances
        parts.append(slot.flatten(both))
    return jnp.concatenate(parts)


def _check(values: Array, holds: Any, wanted: str) -> None:
    # Inside of a transformation nothing is known yet; what is not finite stays so.
    if not isinstance(values, Tracer) and not np.all(holds(np.asarray(values))):
        raise ValueError(f"`prior` must {wanted}.")
