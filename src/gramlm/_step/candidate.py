"""Where a trial step leads, and which of the steps that are tried is taken."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._core.reductions import all_finite
from .._core.scale import largest_entry
from .corrected import TrialStep
from .point import Point


class Candidate(NamedTuple):
    """A trial point: what is found there, and `corrected`: whether by the corrected step."""

    params: Array
    step: Array
    cost: Array
    decrease: Array
    size: Array  # of the largest residual
    finite: Array
    corrected: Array
    evaluations: Array


def best_candidate(point: Point, step: TrialStep) -> Candidate:
    """The plain step, or the corrected one if it is wanted and no worse."""
    problem, residual = point.problem, point.residual
    infinite = jnp.full((), jnp.inf, residual.dtype)

    def evaluate(params):
        r = problem.residual(params)
        finite = all_finite(r)
        decrease = jnp.where(finite, problem.decrease(residual, r), -jnp.inf)
        return jnp.where(finite, problem.cost(r), jnp.inf), decrease, largest_entry(r)

    # One after another under a condition, so that the residual is compiled once and what is not
    # wanted is not evaluated.
    def maybe(candidate):
        params, want = candidate
        return jax.lax.cond(want, evaluate, lambda _: (infinite, -infinite, infinite), params)

    places = problem.box.land(point.params, step.steps)
    costs, decreases, sizes = jax.lax.map(maybe, (places, step.wanted))
    last = len(step.steps) - 1
    better = step.wanted[last] & (decreases[last] >= decreases[0]) & jnp.isfinite(costs[last])
    pick = jnp.where(better, last, 0)
    return Candidate(
        params=places[pick],
        step=problem.box.taken(point.params, step.steps[pick], places[pick]),
        cost=costs[pick],
        decrease=decreases[pick],
        size=sizes[pick],
        finite=jnp.isfinite(costs[pick]),
        corrected=better & (last > 0),
        evaluations=jnp.sum(step.wanted, dtype=jnp.int32),
    )
