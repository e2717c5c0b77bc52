"""The damped Gram operator, and its sibling for the normal equations, as lineax operators."""

import abc
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float

from .._core.arrays import map_blocks, symmetrised, unit_rows
from .gram import Gram
from .linearisation import AbstractLinearisation
from .metric import checked

Operator = TypeVar("Operator", bound="AbstractDampedOperator")


class AbstractDampedOperator(lx.AbstractLinearOperator):
    """A symmetric positive semidefinite operator made of products with J.

    **Attributes:** `linearisation`, `damping` λ (a scalar), `metric` M (a lineax operator on
    parameter space, or None for the identity), `damper` D (a lineax operator on residual space,
    or None), `block_size`: how many columns `as_matrix` assembles at a time.
    """

    linearisation: eqx.AbstractVar[AbstractLinearisation]
    damping: eqx.AbstractVar[ArrayLike]
    metric: eqx.AbstractVar[lx.AbstractLinearOperator | None]
    damper: eqx.AbstractVar[lx.AbstractLinearOperator | None]
    block_size: eqx.AbstractVar[int]

    def __check_init__(self):
        for operator, name, size in (
            (self.metric, "metric", self.linearisation.num_params),
            (self.damper, "damper", self.linearisation.num_residuals),
        ):
            if operator is not None:
                checked(operator, name, size)
        if self.block_size < 1:
            raise ValueError(f"`block_size` must be at least 1; got {self.block_size}.")

    @property
    def shift(self) -> Float[Array, ""]:
        """λ as an array of the residual's dtype."""
        return jnp.asarray(self.damping, self.linearisation.residual.dtype)

    @abc.abstractmethod
    def mv_block(self, vectors: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """Products with k vectors, as rows, in one pass over the data."""

    def as_matrix(self) -> Float[Array, "m m"]:
        """The dense matrix: assembled by blocks of columns, symmetric to the last bit."""
        size = self.in_size()
        count = min(self.block_size, size)
        dtype = self.linearisation.residual.dtype
        columns = map_blocks(
            lambda start: self.mv_block(unit_rows(start, count, size, dtype)), size, count
        )
        return symmetrised(columns)

    def transpose(self: Operator) -> Operator:
        return self


class GramOperator(AbstractDampedOperator):
    """`J M⁻¹ Jᵀ + λD` on residual space, (n,) → (n,), from products with J and Jᵀ alone.

    !!! Example

        ```python
        import jax.numpy as jnp
        import lineax as lx
        import gramlm


        def residual(params):
            return jnp.array([params[0] * params[1], params[1] + params[2]]) - 1


        params = jnp.array([2.0, 1.0, 1.0])
        linearisation = gramlm.linearise(residual, params)
        operator = gramlm.GramOperator(linearisation, damping=1e-3)
        w = lx.linear_solve(operator, linearisation.residual, lx.Cholesky()).value
        step = -linearisation.vjp(w)  # that of Levenberg and Marquardt
        assert jnp.sum(residual(params + step) ** 2) < jnp.sum(residual(params) ** 2)
        ```
    """

    linearisation: AbstractLinearisation
    damping: ArrayLike = 0.0
    metric: lx.AbstractLinearOperator | None = None
    damper: lx.AbstractLinearOperator | None = None
    block_size: int = eqx.field(static=True, default=256)

    @property
    def _gram(self) -> Gram:
        return Gram.of(self.linearisation, self.metric)

    def mv(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        damped = vector if self.damper is None else self.damper.mv(vector)
        return self._gram.multiply(vector) + self.shift * damped

    def mv_block(self, vectors: Float[Array, "k n"]) -> Float[Array, "k n"]:
        damped = vectors if self.damper is None else jax.vmap(self.damper.mv)(vectors)
        return self._gram.multiply_block(vectors) + self.shift * damped

    def in_structure(self) -> jax.ShapeDtypeStruct:
        residual = self.linearisation.residual
        return jax.ShapeDtypeStruct(residual.shape, residual.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


class NormalOperator(AbstractDampedOperator):
    """`Jᵀ D⁻¹ J + λM` on parameter space, (p,) → (p,): the normal equations, for n > p."""

    linearisation: AbstractLinearisation
    damping: ArrayLike = 0.0
    metric: lx.AbstractLinearOperator | None = None
    damper: lx.AbstractLinearOperator | None = None
    block_size: int = eqx.field(static=True, default=256)

    @property
    def _gram(self) -> Gram:
        return Gram.of(self.linearisation, dual=False, damper=self.damper)

    def mv(self, vector: Float[Array, " p"]) -> Float[Array, " p"]:
        measured = vector if self.metric is None else self.metric.mv(vector)
        return self._gram.multiply(vector) + self.shift * measured

    def mv_block(self, vectors: Float[Array, "k p"]) -> Float[Array, "k p"]:
        measured = vectors if self.metric is None else jax.vmap(self.metric.mv)(vectors)
        return self._gram.multiply_block(vectors) + self.shift * measured

    def in_structure(self) -> jax.ShapeDtypeStruct:
        shape = (self.linearisation.num_params,)
        return jax.ShapeDtypeStruct(shape, self.linearisation.residual.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


@lx.is_symmetric.register(AbstractDampedOperator)
@lx.is_positive_semidefinite.register(AbstractDampedOperator)
def _(operator):
    return True


@lx.is_negative_semidefinite.register(AbstractDampedOperator)
@lx.is_diagonal.register(AbstractDampedOperator)
@lx.is_tridiagonal.register(AbstractDampedOperator)
@lx.is_lower_triangular.register(AbstractDampedOperator)
@lx.is_upper_triangular.register(AbstractDampedOperator)
@lx.has_unit_diagonal.register(AbstractDampedOperator)
def _(operator):
    return False


@lx.linearise.register(AbstractDampedOperator)
def _(operator):
    """Stores the linearised residual, so that repeated products need not evaluate it."""
    return eqx.tree_at(lambda op: op.linearisation, operator, operator.linearisation.kept())


@lx.materialise.register(AbstractDampedOperator)
def _(operator):
    return lx.MatrixLinearOperator(operator.as_matrix(), lx.positive_semidefinite_tag)


@lx.diagonal.register(AbstractDampedOperator)
def _(operator):
    return jnp.diag(operator.as_matrix())


@lx.tridiagonal.register(AbstractDampedOperator)
def _(operator):
    matrix = operator.as_matrix()
    return jnp.diag(matrix), jnp.diag(matrix, -1), jnp.diag(matrix, 1)


@lx.conj.register(AbstractDampedOperator)
def _(operator):
    return operator
