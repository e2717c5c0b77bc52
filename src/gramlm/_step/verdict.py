"""Whether the solve should end with a step: named conditions, the first that holds decides."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._core.reductions import all_finite, is_zero
from .._core.results import CRITERIA, RESULTS, code
from .point import Point
from .rules.termination import Termination
from .trial import Trials

# Where no step helps, r counts as linear where a correction is at most this part of its step
# (arbitrary: a tenth of the ratio at which a correction is of the size of its step).
_LINEAR = 0.1


class Condition(NamedTuple):
    """What follows if something holds; nothing at all if `holds` is None."""

    holds: Bool[Array, ""] | None
    result: RESULTS
    criterion: CRITERIA = CRITERIA.none


class Verdict(NamedTuple):
    """How a solve ends, or `RESULTS.running`."""

    result: RESULTS
    criterion: CRITERIA


def first_of(conditions: Sequence[Condition]) -> Verdict:
    """What follows from the first condition that holds; the solve goes on if none does."""
    known = [condition for condition in conditions if condition.holds is not None]
    known.append(Condition(jnp.asarray(True), RESULTS.running))
    holds = jnp.stack([jnp.asarray(condition.holds) for condition in known])
    index = jnp.argmax(holds)
    return Verdict(
        result=_member([condition.result for condition in known], index),
        criterion=_member([condition.criterion for condition in known], index),
    )


def arrived(termination: Termination, point: Point) -> list[Condition]:
    """The tests of a point, before any step from it is tried."""
    # Squares that underflow, where the start had ordinary ones, have vanished all the same.
    underflown = (point.cost == 0) & (point.scale <= 1)
    zero = is_zero(point.residual) | underflown
    cost = point.unscaled(point.cost)
    vanished = termination.vanishing(
        cost, point.initial_cost, point.unscaled(point.past.creeping_from)
    )
    small = termination.small_cost(cost)
    gradient = termination.small_gradient(point.stationarity.relative_gradient)
    return [
        Condition(_or(zero, vanished), RESULTS.successful, CRITERIA.vanished),
        Condition(_or(zero, small), RESULTS.successful, CRITERIA.absolute_cost),
        Condition(gradient, RESULTS.successful, CRITERIA.gradient),
    ]


def any_of(conditions: Sequence[Condition]) -> Bool[Array, ""]:
    """Whether one of them holds."""
    holds = [condition.holds for condition in conditions if condition.holds is not None]
    return jnp.any(jnp.stack(holds)) if holds else jnp.asarray(False)


def verdict(
    termination: Termination, point: Point, trials: Trials, first: Bool[Array, ""]
) -> Verdict:
    """How the solve ends with a step; `first`: whether it is that from the start."""
    at_fault = first | ~all_finite(point.residual)
    rounded = _at_rounding(termination, point, trials)
    return first_of(
        [
            Condition(~point.finite & at_fault, RESULTS.nonfinite_start),
            Condition(~point.finite, RESULTS.nonfinite_derivative),
            *arrived(termination, point),
            *_settled(termination, point, trials),
            Condition(_strays(point, trials) & rounded, RESULTS.successful, CRITERIA.rounding),
            Condition(trials.accepted | ~trials.hopeless, RESULTS.running),
            Condition(rounded, RESULTS.successful, CRITERIA.rounding),
            Condition(~trials.solved, RESULTS.linear_solver_failed),
            Condition(~trials.finite, RESULTS.nonfinite_trials),
            Condition(jnp.asarray(True), RESULTS.stalled),
        ]
    )


def _settled(termination: Termination, point: Point, trials: Trials) -> list[Condition]:
    """The tests of an accepted step."""
    last, rounding = trials.last, point.rounding
    held_back = last.damping > point.largest
    calm = ~held_back & termination.stationary(point.stationarity.significant_gradient)
    calm &= trials.accepted
    little = termination.little(point.cost, last.cost, last.promised, rounding.of_cost)
    short = termination.short(last.relative_step)
    small = termination.small_cost(point.unscaled(last.cost))
    return [
        Condition(_and(trials.accepted, small), RESULTS.successful, CRITERIA.absolute_cost),
        Condition(_and(calm, little), RESULTS.successful, CRITERIA.cost),
        Condition(_and(calm, short), RESULTS.successful, CRITERIA.step),
    ]


def _strays(point: Point, trials: Trials) -> Bool[Array, ""]:
    """Whether an accepted step, where all of r may be rounding, gets no lower than was known.

    r is rounded in one way beside J and in another at the end of a step, which may so seem to lower
    the cost, and the step back as well.
    """
    known = point.past.lowest_cost
    return trials.accepted & point.rounding.drowns & (trials.last.cost >= known)


def _at_rounding(termination: Termination, point: Point, trials: Trials) -> Bool[Array, ""]:
    """Whether what remains, where no step lowers the cost, is explained by rounding."""
    rounding, first = point.rounding, trials.first
    gradient = point.stationarity.significant_gradient
    negligible = termination.negligible(point.cost, rounding.of_cost)
    nothing_left = (first.promised <= negligible) & (first.damping <= point.largest)
    nothing_left &= termination.stationary(gradient)
    # Unknown without a correction: then all of r has to be rounding.
    unknown = jnp.isinf(first.curvature)
    linear = (first.curvature <= _LINEAR) | (unknown & rounding.drowns)
    explained = nothing_left | ((gradient <= rounding.of_gradient) & linear)
    explained |= gradient <= rounding.accuracy
    within_range = (point.cost > 0) & jnp.isfinite(point.cost)  # 0 here is an underflow
    return (explained & trials.solved & within_range) | is_zero(point.residual)


def _and(a: Bool[Array, ""], b: Bool[Array, ""] | None) -> Bool[Array, ""] | None:
    return None if b is None else a & b


def _or(a: Bool[Array, ""], b: Bool[Array, ""] | None) -> Bool[Array, ""] | None:
    return None if b is None else a | b


Member = TypeVar("Member", RESULTS, CRITERIA)


def _member(members: Sequence[Member], index: Array) -> Member:
    """The member at an index that is known when the program runs."""
    numbers = jnp.asarray(np.asarray([code(member) for member in members], np.int32))
    return jax.tree.unflatten(jax.tree.structure(members[0]), [numbers[index]])
