"""Where steps are sought: everywhere, or within bounds; and what is solved for them.

A *region* knows which factorisations a step needs: one, or within bounds one for each face. A
*subproblem* is what one of them serves: a right-hand side, and what a solution of it means. The
trials see these two and nothing of bounds.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, Float, PyTree

from .._linear.solver.base import FoundDamping, LinearStep
from .._model.linearisation import AbstractLinearisation
from .trial import Trials


class AbstractSubproblem(eqx.Module):
    """The damped least-squares problem of one factorisation.

    - `at`: the linearisation that is factorised; `rhs`, (n,): the right-hand side.
    """

    at: eqx.AbstractVar[AbstractLinearisation]
    rhs: eqx.AbstractVar[Float[Array, " n"]]

    @abc.abstractmethod
    def serves(self, trials: Trials) -> Bool[Array, ""]:
        """Whether the next trial is one of this factorisation."""

    @abc.abstractmethod
    def tolerance(self, forcing: Float[Array, ""]) -> Float[Array, ""]:
        """How exactly to solve where the forcing rule asks for `forcing`."""

    @abc.abstractmethod
    def damping(
        self,
        propose: Callable[[], FoundDamping],
        at: Callable[[Float[Array, ""]], FoundDamping],
    ) -> FoundDamping:
        """The λ to solve for: what the rule proposes, or one that is not settled yet."""

    @abc.abstractmethod
    def completed(
        self, solution: LinearStep, first: Bool[Array, ""] | bool
    ) -> tuple[LinearStep, PyTree[Any]]:
        """The step for a solution of this problem, and what it asks for: its *demand*.

        `first`: whether it is that for `rhs`, and not a correction of it.
        """

    @abc.abstractmethod
    def tried(self, demand: PyTree[Any]) -> Bool[Array, ""] | bool:
        """Whether the step is tried, rather than solved for again."""

    @abc.abstractmethod
    def promise(self, demand: PyTree[Any], predicted: Float[Array, ""]) -> Float[Array, ""]:
        """The decrease by which hope is measured, given that predicted of the step as it is."""

    @abc.abstractmethod
    def concluded(self, before: Trials, after: Trials, demand: PyTree[Any]) -> Trials:
        """The trials after a step, or those `before` it where it was not tried."""


class AbstractRegion(eqx.Module):
    """Where steps are sought.

    - `several`: whether trials from one point may need more than one factorisation.
    """

    several: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def start(self) -> PyTree[Any]:
        """What the trials carry for it, before the first."""

    @abc.abstractmethod
    def another(self, trials: Trials) -> Bool[Array, ""]:
        """Whether the next trial needs another factorisation than the last."""

    @abc.abstractmethod
    def taken_up(self, search: PyTree[Any]) -> PyTree[Any]:
        """What the trials carry once that factorisation has begun."""

    @abc.abstractmethod
    def subproblem(self, search: PyTree[Any]) -> AbstractSubproblem:
        """What the factorisation serves."""
