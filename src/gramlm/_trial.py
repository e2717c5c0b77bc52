"""The point at which a step is tried, the trials made there, and the candidate of each."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, PyTree

from ._correction import CorrectedStep
from ._faces import FaceSearch
from ._misc import all_finite
from ._problem.flat import FlatProblem, Model
from ._scale import largest_entry
from ._solution import CRITERIA
from ._state import RuleStates
from ._stationarity import AbstractStationarity
from ._termination import Termination

# A step that leaves less of the cost does not approach a root where J is singular.
_LEAP = 1e-3


class Point(eqx.Module):
    """Everything known at the iterate before a step is tried."""

    problem: FlatProblem
    params: Float[Array, " p"]
    model: Model
    metric: lx.AbstractLinearOperator
    gradient: Float[Array, " p"]
    gradient_norm: Float[Array, ""]
    largest: Float[Array, ""]
    stationarity: AbstractStationarity
    termination: Termination
    noise: Float[Array, ""]  # the relative gradient that rounding the parameters may bring about
    scale: Float[Array, ""]  # by which the residual, and so its cost, is divided
    initial_cost: Float[Array, ""]  # infinite where this is the start
    lowest_cost: Float[Array, ""]  # so far
    creeping_from: Float[Array, ""]  # the cost after the last step that removed nearly all of it
    least_predicted: Float[Array, ""]  # of all steps

    @property
    def residual(self) -> Float[Array, " n"]:
        return self.model.residual

    @property
    def cost(self) -> Float[Array, ""]:
        return self.problem.cost(self.residual)

    @property
    def first_cost(self) -> Float[Array, ""]:
        """That of the start, in the units of the user."""
        return jnp.where(jnp.isinf(self.initial_cost), self.unscaled(self.cost), self.initial_cost)

    def unscaled(self, cost: Float[Array, ""]) -> Float[Array, ""]:
        """A cost in the units of the user."""
        return cost * self.scale * self.scale

    @property
    def finite(self) -> Bool[Array, ""]:
        return all_finite(self.residual) & all_finite(self.gradient) & jnp.isfinite(self.largest)

    def creeps_from(self, trials: "Trials") -> Float[Array, ""]:
        """`creeping_from` after a step."""
        before = jnp.where(jnp.isinf(self.creeping_from), self.cost, self.creeping_from)
        leap = trials.accepted & (trials.cost < _LEAP * self.cost)
        return jnp.where(leap, trials.cost, before)

    def hides(self, decrease: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether rounding of r and of the parameters hides a decrease of this size."""
        eps = float(jnp.finfo(decrease.dtype).eps)
        noise = jnp.minimum(16 * eps + 8 * self.noise, eps**0.5)
        return jnp.abs(decrease) <= noise * self.cost

    def arrived(self) -> CRITERIA:
        """The tolerance that the point itself meets, if any."""
        # Squares that underflow, where the start had ordinary ones, have vanished all the same.
        underflown = (self.cost == 0) & (self.scale <= 1)
        return self.termination.at_iterate(
            cost=self.unscaled(self.cost),
            initial_cost=self.first_cost,
            zero=jnp.all(self.residual == 0) | underflown,
            creeping_from=self.unscaled(self.creeping_from),
            relative_gradient=self.stationarity.relative_gradient,
        )


class FirstTrial(NamedTuple):
    """Of the trials of a step the one that is damped least."""

    predicted: Array
    damping: Array
    curvature: Array  # of r over what rounds the parameters, or over the step; infinite if unknown


class Trials(NamedTuple):
    """The last trial of a step, and sums over all of them."""

    made: Array
    params: Array
    cost: Array
    residual_size: Array  # its largest entry
    damping: Array
    accepted: Array
    hopeless: Array
    finite: Array  # of the last trial that moved
    solved: Array
    gain_ratio: Array
    predicted: Array
    first: FirstTrial
    step_norm: Array
    relative_step: Array  # the largest of a parameter
    acceleration_ratio: Array
    used_acceleration: Array
    evaluations: Array
    iterations: Array
    products: Array
    linear_residual: Array
    rules: RuleStates
    work: PyTree  # of the linear solver
    search: FaceSearch | None  # with bounds

    @classmethod
    def start(cls, point: Point, rules: RuleStates, finite: Bool[Array, ""]) -> "Trials":
        zero = jnp.zeros((), point.params.dtype)
        no, none = jnp.asarray(False), jnp.zeros((), jnp.int32)
        arrived = point.arrived()
        return cls(
            made=none,
            params=point.params,
            cost=point.cost,
            residual_size=zero,
            damping=zero,
            accepted=no,
            hopeless=(arrived != CRITERIA.none) | ~point.finite,
            finite=finite,
            solved=no,
            gain_ratio=zero,
            predicted=zero,
            first=FirstTrial(zero, zero, zero),
            step_norm=zero,
            relative_step=zero,
            acceleration_ratio=zero,
            used_acceleration=no,
            evaluations=none,
            iterations=none,
            products=none,
            linear_residual=zero,
            rules=rules,
            work=None,
            search=None if point.model.face is None else FaceSearch.start(point.model.face),
        )


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
