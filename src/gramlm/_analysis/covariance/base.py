"""What can be asked of a covariance of the parameters, whatever it is made of."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import scipy.special
from beartype import beartype
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, jaxtyped

from ..._core.arrays import VECTORS_AT_A_TIME, map_blocks, unit_rows
from ..._core.checks import check_at_least, check_between
from ..._core.flatten import FlatSpec
from .functionals import each_functional


class AbstractCovariance(lx.AbstractLinearOperator):
    """The covariance Σ of estimated parameters θ: a symmetric lineax operator, (p,) → (p,).

    Flat vectors and matrices are in the order of `jax.tree.leaves(params)`; standard errors,
    intervals and samples are pytrees as the parameters are. Everything can be compiled, and, where
    J is a matrix, mapped by `jax.vmap`.

    **Attributes:**

    - `params`: θ, where the model was linearised, (p,).
    - `degrees_of_freedom`: those of the noise variance, n − rank J where it was estimated from
      the residual, and infinite where it was given.
    """

    params: eqx.AbstractVar[Float[Array, " p"]]
    params_spec: eqx.AbstractVar[FlatSpec]
    degrees_of_freedom: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def mv_block(self, vectors: Float[Array, "k p"]) -> Float[Array, "k p"]:
        """`Σ v` for each row."""

    @abc.abstractmethod
    def deviations(self) -> Float[Array, " p"]:
        """`√diag(Σ)`: the standard errors as a flat vector."""

    @abc.abstractmethod
    def deviations_of(self, functionals: Float[Array, "k p"]) -> Float[Array, " k"]:
        """`√(aᵀΣa)` for each row a: the standard errors of linear functions of the parameters."""

    @abc.abstractmethod
    def missed(self) -> Float[Array, " p"]:
        """By how much `deviations()²` may exceed the diagonal of the exact covariance."""

    @abc.abstractmethod
    def missed_of(self, functionals: Float[Array, "k p"]) -> Float[Array, " k"]:
        """By how much `deviations_of(…)²` may be too large."""

    @abc.abstractmethod
    def correlation(self) -> Float[Array, "p p"]:
        """`Σᵢⱼ/√(Σᵢᵢ Σⱼⱼ)`, NaN where a standard error is infinite."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray, count: int) -> Float[Array, "count p"]:
        """Draws from the normal distribution with mean zero and covariance Σ."""

    @eqx.filter_jit
    def standard_errors(self) -> PyTree:
        """`√diag(Σ)`, a pytree as the parameters are, in their units."""
        return self.params_spec.blank.unflatten(self.deviations())

    @eqx.filter_jit
    def overestimates(self) -> PyTree:
        """By how much each standard error may be too large; zero where they are exact.

        The estimate of a bound, from random probes: see `posterior_covariance`.
        """
        return self.params_spec.blank.unflatten(_too_large(self.deviations(), self.missed()))

    @jaxtyped(typechecker=beartype)
    def confidence_intervals(self, level: float = 0.95) -> tuple[PyTree, PyTree]:
        """`θ ± t·(standard error)`, as two pytrees, the lower and the upper ends.

        t is the quantile of Student's distribution with `degrees_of_freedom`, or of the normal
        distribution where these are infinite. For a posterior they are credible intervals.
        """
        check_between(level, "level", 0, 1, ", such as 0.95", closed="neither")
        return _intervals(self, jnp.asarray(0.5 * (1 + level), self.params.dtype))

    @jaxtyped(typechecker=beartype)
    def prediction_errors(self, function: Callable[..., Any], args: PyTree = None) -> PyTree:
        """Standard errors of a function of the parameters, `√diag(A Σ Aᵀ)`, `A = ∂f/∂θ`.

        The delta method (Oehlert 1992). `function(params)` or `function(params, args)` returns a
        pytree of real arrays, and so does this. With `gramlm.Rows(f)` and points as `args` each
        value is a function of its own point, and all of A costs one pass over the points; otherwise
        it takes a product with A for each value, or for each parameter if they are fewer.

        Noise is not included: for what a new measurement will be add its variance to the square.
        """
        return _predicted(self, function, args)[0]

    @jaxtyped(typechecker=beartype)
    def prediction_overestimates(self, function: Callable[..., Any], args: PyTree = None) -> PyTree:
        """By how much each of `prediction_errors` may be too large, as `overestimates`."""
        return _predicted(self, function, args)[1]

    @jaxtyped(typechecker=beartype)
    def sample(self, key: PRNGKeyArray, count: int) -> PyTree:
        """`count` draws from `N(θ, Σ)`: a pytree as the parameters are, with a leading axis."""
        check_at_least(count, "count", 1)
        return _sampled(self, key, count)

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " p"]) -> Float[Array, " p"]:
        return self.mv_block(vector[None])[0]

    def as_matrix(self) -> Float[Array, "p p"]:
        """Σ as a matrix."""
        return _matrix(self)

    def transpose(self):
        return self

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.params.shape, self.params.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


def _too_large(deviations: Array, missed: Array) -> Array:
    least = jnp.sqrt(jnp.maximum(deviations**2 - missed, 0))
    return jnp.where(missed > 0, deviations - least, jnp.zeros_like(deviations))


@eqx.filter_jit
def _intervals(covariance: AbstractCovariance, quantile: Float[Array, ""]):
    theta, spec = covariance.params, covariance.params_spec

    def student(degrees, q):
        return np.asarray(scipy.special.stdtrit(degrees, q), q.dtype)

    structure = jax.ShapeDtypeStruct((), theta.dtype)
    degrees = covariance.degrees_of_freedom
    factor = jax.pure_callback(student, structure, degrees, quantile, vmap_method="broadcast_all")
    half = factor * covariance.deviations()
    return spec.unflatten(theta - half), spec.unflatten(theta + half)


@eqx.filter_jit
def _predicted(covariance: AbstractCovariance, function, args) -> tuple[PyTree, PyTree]:
    def spread(functionals: Float[Array, "k p"]):
        deviations = covariance.deviations_of(functionals)
        return deviations, _too_large(deviations, covariance.missed_of(functionals))

    return each_functional(function, args, covariance.params_spec, covariance.params, spread)


@eqx.filter_jit
def _sampled(covariance: AbstractCovariance, key, count: int) -> PyTree:
    draws = covariance.params + covariance.draw(key, count)
    return jax.vmap(covariance.params_spec.unflatten)(draws)


@eqx.filter_jit
def _matrix(covariance: AbstractCovariance) -> Float[Array, "p p"]:
    size, dtype = covariance.params.size, covariance.params.dtype
    count = min(VECTORS_AT_A_TIME, size)
    rows = map_blocks(
        lambda start: covariance.mv_block(unit_rows(start, count, size, dtype)), size, count
    )
    matrix = jnp.tril(rows) + jnp.tril(rows, -1).T
    diagonal = jnp.arange(size)
    return matrix.at[diagonal, diagonal].set(covariance.deviations() ** 2)


@lx.is_symmetric.register(AbstractCovariance)
@lx.is_positive_semidefinite.register(AbstractCovariance)
def _(operator):
    return True


@lx.is_negative_semidefinite.register(AbstractCovariance)
@lx.is_diagonal.register(AbstractCovariance)
@lx.is_tridiagonal.register(AbstractCovariance)
@lx.is_lower_triangular.register(AbstractCovariance)
@lx.is_upper_triangular.register(AbstractCovariance)
@lx.has_unit_diagonal.register(AbstractCovariance)
def _(operator):
    return False


@lx.linearise.register(AbstractCovariance)
@lx.conj.register(AbstractCovariance)
def _(operator):
    return operator


@lx.materialise.register(AbstractCovariance)
def _(operator):
    return lx.MatrixLinearOperator(operator.as_matrix(), lx.positive_semidefinite_tag)


@lx.diagonal.register(AbstractCovariance)
def _(operator):
    return operator.deviations() ** 2


@lx.tridiagonal.register(AbstractCovariance)
def _(operator):
    matrix = operator.as_matrix()
    return jnp.diag(matrix), jnp.diag(matrix, -1), jnp.diag(matrix, 1)
