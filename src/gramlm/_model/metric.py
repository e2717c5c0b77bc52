"""The metric M in which the length of a step is measured, and its choice at each iterate.

A metric is a symmetric positive definite lineax operator on parameter space; a *metric rule*
supplies one for each Jacobian.
"""

import abc
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int

from .._core.reductions import dot, largest
from .linearisation import AbstractLinearisation

State = TypeVar("State")

# A parameter that hardly moves the residual is floored at this fraction of the largest entry of
# diag(JᵀJ), so that its step stays finite. Arbitrary.
_DIAGONAL_FLOOR = 1e-20


def metric_inverse(metric: lx.AbstractLinearOperator, v: Float[Array, " p"]) -> Float[Array, " p"]:
    """`M⁻¹ v`."""
    if isinstance(metric, lx.IdentityLinearOperator):
        return v
    if lx.is_diagonal(metric):
        return v / lx.diagonal(metric)
    return lx.linear_solve(metric, v, lx.AutoLinearSolver(well_posed=True)).value


def metric_norm(metric: lx.AbstractLinearOperator, v: Float[Array, " p"]) -> Float[Array, ""]:
    """`‖v‖_M`."""
    return jnp.sqrt(jnp.maximum(dot(v, metric.mv(v)), 0))


def dual_norm(metric: lx.AbstractLinearOperator, g: Float[Array, " p"]) -> Float[Array, ""]:
    """`‖g‖_{M⁻¹}`."""
    return jnp.sqrt(jnp.maximum(dot(g, metric_inverse(metric, g)), 0))


def checked(operator: lx.AbstractLinearOperator, name: str, size: int) -> lx.AbstractLinearOperator:
    """The operator, if it is a positive definite one of this size; `name` is for the message."""
    if operator.in_size() != size or operator.out_size() != size:
        raise ValueError(
            f"`{name}` must be a square operator of size {size}; got one of "
            f"{operator.out_size()} by {operator.in_size()}."
        )
    if not (lx.is_positive_semidefinite(operator) or lx.is_diagonal(operator)):
        raise ValueError(
            f"`{name}` must be tagged as positive definite (`lx.positive_semidefinite_tag`)."
        )
    return operator


class AbstractMetric(eqx.Module, Generic[State]):
    """Supplies the metric M for each Jacobian."""

    @abc.abstractmethod
    def init(self, params: Float[Array, " p"]) -> State:
        """The state before the first Jacobian."""

    @abc.abstractmethod
    def update(
        self, state: State, linearisation: AbstractLinearisation, seed: Int[Array, ""]
    ) -> tuple[lx.AbstractLinearOperator, State, int]:
        """The metric for this Jacobian, the next state, and the products with J it cost.

        `seed` differs from Jacobian to Jacobian, for stochastic estimates.
        """


class IdentityMetric(AbstractMetric[None]):
    """`M = I`: all parameters are alike (Levenberg 1944)."""

    def init(self, params: Float[Array, " p"]) -> None:
        return None

    def update(self, state: None, linearisation: AbstractLinearisation, seed: Int[Array, ""]):
        r = linearisation.residual
        structure = jax.ShapeDtypeStruct((linearisation.num_params,), r.dtype)
        return lx.IdentityLinearOperator(structure), state, 0


class PowerMetric(AbstractMetric[None]):
    """`M = diag(JᵀJ)^α`, taken anew from each Jacobian.

    α = 1 makes the step invariant to the scale of every single parameter, α = 0 is the identity.
    ½, the default, is what serves the classical collections and the trainable networks best.
    `diag(JᵀJ)` is exact where J is dense or its rows are declared, and otherwise estimated from
    `num_probes` products with Jᵀ.
    """

    power: float | int = eqx.field(static=True, default=0.5)
    num_probes: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        if not 0 <= self.power <= 1:
            raise ValueError(f"`power` must be between 0 and 1; got {self.power}.")
        _check_probes(self.num_probes)

    def init(self, params: Float[Array, " p"]) -> None:
        return None

    def update(self, state: None, linearisation: AbstractLinearisation, seed: Int[Array, ""]):
        squares, products = linearisation.column_norms_squared(seed, self.num_probes)
        return _diagonal(_floored(squares) ** self.power), state, products


class FletcherMetric(AbstractMetric[None]):
    """`M = diag(JᵀJ)`, taken anew from each Jacobian (Marquardt 1963, Fletcher 1971).

    !!! Example

        ```python
        import gramlm

        # A scale of its own for each parameter, whatever its unit.
        solver = gramlm.LevenbergMarquardt(metric=gramlm.FletcherMetric())
        ```
    """

    num_probes: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        _check_probes(self.num_probes)

    def init(self, params: Float[Array, " p"]) -> None:
        return None

    def update(self, state: None, linearisation: AbstractLinearisation, seed: Int[Array, ""]):
        squares, products = linearisation.column_norms_squared(seed, self.num_probes)
        return _diagonal(_floored(squares)), state, products


class MoreMetric(AbstractMetric[Float[Array, " p"]]):
    """`M = max over the Jacobians so far of diag(JᵀJ)` (Moré 1978)."""

    num_probes: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        _check_probes(self.num_probes)

    def init(self, params: Float[Array, " p"]) -> Float[Array, " p"]:
        return jnp.zeros_like(params)

    def update(
        self, state: Float[Array, " p"], linearisation: AbstractLinearisation, seed: Int[Array, ""]
    ):
        squares, products = linearisation.column_norms_squared(seed, self.num_probes)
        squares = jnp.where(jnp.isfinite(squares), squares, 0)
        longest = jnp.maximum(state, squares)
        return _diagonal(_floored(longest)), longest, products


class FixedMetric(AbstractMetric[None]):
    """A fixed metric: a positive definite lineax operator on the flat parameter vector, (p,).

    !!! Example

        ```python
        import jax.numpy as jnp
        import lineax as lx
        import gramlm

        lengths = jnp.array([1.0, 100.0])  # of the parameters, in the order of their leaves
        metric = gramlm.FixedMetric(lx.DiagonalLinearOperator(1 / lengths**2))
        solver = gramlm.LevenbergMarquardt(metric=metric)
        ```
    """

    operator: lx.AbstractLinearOperator

    def __check_init__(self):
        if not (lx.is_positive_semidefinite(self.operator) or lx.is_diagonal(self.operator)):
            raise ValueError(
                "`FixedMetric` needs an operator that is tagged as positive definite: pass "
                "`lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)`, or a "
                "`lx.DiagonalLinearOperator`."
            )

    def init(self, params: Float[Array, " p"]) -> None:
        size = self.operator.in_size()
        if size != params.size:
            raise ValueError(
                f"`FixedMetric` acts on {size} parameters, but `params` has {params.size} entries."
            )
        return None

    def update(self, state: None, linearisation: AbstractLinearisation, seed: Int[Array, ""]):
        return self.operator, state, 0


def _diagonal(values: Float[Array, " p"]) -> lx.AbstractLinearOperator:
    return lx.DiagonalLinearOperator(values)


def _floored(squares: Float[Array, " p"]) -> Float[Array, " p"]:
    most = largest(squares)
    # All columns zero: any metric does, since the gradient is zero as well.
    floor = jnp.maximum(_DIAGONAL_FLOOR * most, jnp.finfo(squares.dtype).tiny)
    return jnp.where(most > 0, jnp.maximum(squares, floor), 1)


def _check_probes(num_probes: int) -> None:
    if num_probes < 1:
        raise ValueError(f"`num_probes` must be at least 1; got {num_probes}.")
