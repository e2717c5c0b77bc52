"""Where a trial step leads, and which of its two candidates is taken."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._core.reductions import all_finite
from .._core.scale import largest_entry
from .corrected import CorrectedStep
from .point import Point


class Candidate(NamedTuple):
    params: Array
    step: Array
    cost: Array
    decrease: Array
    size: Array  # of the largest residual
    finite: Array
    corrected: Array
    evaluations: Array


def best_candidate(point: Point, step: CorrectedStep) -> Candidate:
    """The plain step, or the corrected one if it is usable and no worse."""
    problem, residual = point.problem, point.residual
    velocity, acceleration = step.velocity.step, step.acceleration
    tried = jnp.asarray(True) if step.face is None else ~step.face.refine

    def evaluate(params):
        r = problem.residual(params)
        finite = all_finite(r)
        decrease = jnp.where(finite, problem.decrease(residual, r), -jnp.inf)
        return jnp.where(finite, problem.cost(r), jnp.inf), decrease, largest_entry(r)

    infinite = jnp.full((), jnp.inf, residual.dtype)

    # One after another under a condition, so that the residual is compiled once and what is not
    # wanted is not evaluated.
    def maybe(candidate):
        params, want = candidate
        return jax.lax.cond(want, evaluate, lambda _: (infinite, -infinite, infinite), params)

    one = jnp.ones((), jnp.int32)
    if acceleration is None:
        params = problem.land(point.params, velocity)
        found = evaluate(params) if step.face is None else maybe((params, tried))
        cost, decrease, size = found
        finite = jnp.isfinite(cost)
        return Candidate(
            params, velocity, cost, decrease, size, finite, jnp.asarray(False), one * tried
        )

    steps = jnp.stack([velocity, velocity + acceleration.step])
    places = problem.land(point.params, steps)
    costs, decreases, sizes = jax.lax.map(maybe, (places, jnp.stack([tried, step.usable])))
    corrected = step.usable & (decreases[1] >= decreases[0]) & jnp.isfinite(costs[1])
    pick = jnp.where(corrected, 1, 0)
    taken = steps[pick] if problem.box is None else places[pick] - point.params
    return Candidate(
        places[pick], taken, costs[pick], decreases[pick], sizes[pick],
        jnp.isfinite(costs[pick]), corrected, (one + step.usable) * tried,
    )  # fmt: skip
