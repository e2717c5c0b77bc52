"""The seam for damping rules.

A rule proposes λ, and sees what came of each trial; it keeps whatever state it needs. Most rules
know λ alone. One that thinks in lengths of steps asks for the λ that belongs to a length.
"""

import abc
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, Float

from ...._linear.solver.base import FoundDamping
from ..trial import Trial

State = TypeVar("State")

# What `initial` is, where it is refused.
OF_LARGEST = " (it is a fraction of the largest eigenvalue of the Gram matrix)"


class AbstractStepLengths(eqx.Module):
    """What is known of the length `‖δ(λ)‖_M` of a step as a function of λ, at one iterate."""

    @abc.abstractmethod
    def at(self, damping: Float[Array, ""]) -> FoundDamping:
        """This λ, whatever its length."""

    @abc.abstractmethod
    def within(self, radius: Float[Array, ""], guess: Float[Array, ""]) -> FoundDamping:
        """The λ for which `‖δ(λ)‖_M` is `radius`, to a tenth; the least λ if δ is shorter there.

        Its derivative is zero.

        `guess` is a λ to start from.
        """


class AbstractDamping(eqx.Module, Generic[State]):
    """Proposes λ and learns from the outcome of each trial."""

    @abc.abstractmethod
    def init(self, largest_eigenvalue: Float[Array, ""]) -> State:
        """The state before the first trial, from an estimate of λmax(K)."""

    @abc.abstractmethod
    def propose(self, state: State, lengths: AbstractStepLengths) -> FoundDamping:
        """λ for the next trial, in units of K: `lengths.at(λ)`, or `lengths.within(radius, …)`."""

    @abc.abstractmethod
    def accepted(self, state: State, trial: Trial) -> State:
        """The state after an accepted trial."""

    @abc.abstractmethod
    def rejected(self, state: State, trial: Trial) -> State:
        """The state after a rejected trial; the same state again means: nothing else to try."""

    @abc.abstractmethod
    def with_damping(self, state: State, damping: Float[Array, ""]) -> State:
        """The state from which the next trial is made at `damping`, in units of K."""
