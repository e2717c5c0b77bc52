"""A preconditioner of the user's."""

from collections.abc import Callable

import lineax as lx
from jaxtyping import Array, Float, Int

from ..._core.reductions import matmul
from ..._model.operators import AbstractDampedOperator, GramOperator, NormalOperator
from ..._model.undamped import UndampedSystem
from ..algebra.directions import SearchDirections
from .base import AbstractPreconditioner

Builder = Callable[[AbstractDampedOperator], lx.AbstractLinearOperator]


class FixedPreconditioner(AbstractPreconditioner[None]):
    """A positive definite lineax operator that approximates `(K + λI)⁻¹`, or a function for it.

    `operator` is one of

    - a `lineax.AbstractLinearOperator`, (m,) to (m,), the same for all Jacobians and all λ;
    - a function that gets the damped operator, a `GramOperator` `JM⁻¹Jᵀ + λI` or, in the normal
      form, a `NormalOperator` `JᵀJ + λM`, and returns such an operator. It is called whenever λ or
      J change, inside of a compiled loop.

    What has to remember anything is an `AbstractPreconditioner` of its own.
    """

    operator: lx.AbstractLinearOperator | Builder

    def __check_init__(self):
        if isinstance(self.operator, lx.AbstractLinearOperator):
            _check(self.operator, self.operator.in_size())
        elif not callable(self.operator):
            raise TypeError(
                "`FixedPreconditioner` takes a lineax operator that approximates `(K + λI)⁻¹`, or "
                f"a function of the damped operator that returns one; got {self.operator!r}."
            )

    def init(self, like: Float[Array, " m"]) -> None:
        return None

    def price(self, system: UndampedSystem) -> int:
        return 0

    def build(
        self, system: UndampedSystem, damping: Float[Array, ""], seed: Int[Array, ""], state: None
    ) -> tuple[None, int]:
        return state, 0

    def at(
        self, system: UndampedSystem, damping: Float[Array, ""], state: None
    ) -> Callable[[Float[Array, " m"]], Float[Array, " m"]]:
        operator = self.operator
        if not isinstance(operator, lx.AbstractLinearOperator):
            kind = GramOperator if system.dual else NormalOperator
            operator = operator(kind(system.linearisation, damping, system.metric))
        _check(operator, system.size)
        factor = system.whitening.factor
        if system.dual or factor is None:
            return operator.mv
        # (L⁻¹JᵀJL⁻ᵀ + λI)⁻¹ = Lᵀ (JᵀJ + λM)⁻¹ L.
        if factor.ndim == 1:
            return lambda x: factor * operator.mv(factor * x)
        return lambda x: matmul(operator.mv(matmul(factor, x)), factor)

    def harvest(self, state: None, directions: SearchDirections) -> None:
        return state


def _check(operator: lx.AbstractLinearOperator, size: int) -> None:
    if not isinstance(operator, lx.AbstractLinearOperator):
        raise TypeError(
            "The function of `FixedPreconditioner` must return a lineax operator; got "
            f"{type(operator).__name__}. Wrap a function as `lx.FunctionLinearOperator(f, "
            "structure, lx.positive_semidefinite_tag)`."
        )
    if operator.in_size() != size or operator.out_size() != size:
        raise ValueError(
            f"The operator of `FixedPreconditioner` must map ({size},) to ({size},), the order of "
            f"the system; got {operator.out_size()} by {operator.in_size()}."
        )
    if not (lx.is_positive_semidefinite(operator) or lx.is_diagonal(operator)):
        raise ValueError(
            "`FixedPreconditioner` needs an operator tagged as positive definite: pass "
            "`lx.positive_semidefinite_tag` to it."
        )
