"""Trials with one Jacobian: λ, the step for it, the cost there, and what the rules make of that."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.arrays import safe_divide
from .._core.reductions import dot, largest, norm, some
from .._core.spent import Spent
from .._linear.solver.base import AbstractFactorisation, FoundDamping
from .._model.linearisation import AbstractLinearisation
from .candidate import Candidate, best_candidate
from .corrected import AbstractStepper, DampedSolve
from .lengths import StepLengths
from .point import Point
from .region import AbstractSubproblem
from .rules.rules import Rules
from .rules.trial import Trial
from .state import either, equal
from .trial import FirstTrial, Trials, Tried

# What the next Jacobian gets from the linear solver.
Recycled = PyTree[Any]


class Search(eqx.Module):
    """The search for a step from one point.

    - `factorise(at, recycled)`: everything about a linearisation that does not depend on λ.
    - `most`: values of λ that are tried.
    """

    point: Point
    rules: Rules
    stepper: AbstractStepper
    factorise: Callable[[AbstractLinearisation, Recycled], AbstractFactorisation]
    most: int = eqx.field(static=True)

    def from_start(self, trials: Trials, recycled: Recycled) -> tuple[Trials, Recycled]:
        """Tries values of λ until a trial is accepted, until there is no hope, or `most` times."""
        region = self.point.region

        def on_wanted(carry: tuple[Trials, Recycled]) -> tuple[Trials, Recycled]:
            trials, recycled = carry
            search = region.taken_up(trials.search)
            trials = dataclasses.replace(trials, search=search)
            return self._on(region.subproblem(search), trials, recycled)

        if not region.several:
            return on_wanted((trials, recycled))

        def going(carry: tuple[Trials, Recycled]) -> Bool[Array, ""]:
            return self._unfinished(carry[0]) & region.another(carry[0])

        return jax.lax.while_loop(going, on_wanted, (trials, recycled))

    def _unfinished(self, trials: Trials) -> Bool[Array, ""]:
        return ~trials.accepted & ~trials.hopeless & (trials.made < self.most)

    def _on(
        self, subproblem: AbstractSubproblem, trials: Trials, recycled: Recycled
    ) -> tuple[Trials, Recycled]:
        """Trials with one factorisation."""
        factors = self.factorise(subproblem.at, recycled)

        def going(trials: Trials) -> Bool[Array, ""]:
            return self._unfinished(trials) & subproblem.serves(trials)

        def once(trials: Trials) -> Trials:
            return self._tried(subproblem, factors, trials)

        start = dataclasses.replace(trials, work=factors.work)
        trials = jax.lax.while_loop(going, once, start)
        return dataclasses.replace(trials, work=None), factors.recycle(trials.work)

    def _tried(
        self, subproblem: AbstractSubproblem, factors: AbstractFactorisation, before: Trials
    ) -> Trials:
        """One trial more."""
        point, rules, states = self.point, self.rules, before.rules
        forcing = rules.forcing
        accuracy = subproblem.tolerance(forcing.velocity(states.forcing))
        floor = jnp.asarray(rules.damping_floor) * factors.rounding
        lengths = StepLengths(factors, subproblem.rhs, point.metric, floor, before.work, accuracy)

        def propose() -> FoundDamping:
            return rules.damping.propose(states.damping, lengths)

        found = subproblem.damping(propose, lengths.at)
        damping = jnp.maximum(found.damping, floor)
        system = factors.at(damping)
        model = point.model
        solve = DampedSolve(
            subproblem=subproblem,
            system=system,
            metric=point.metric,
            model=model,
            function=point.problem.function,
            params=point.params,
            velocity=accuracy,
            acceleration=forcing.acceleration(states.forcing),
        )
        step = self.stepper.step(solve, found.work)
        candidate = best_candidate(point, step)
        velocity = step.velocity
        predicted = velocity.predicted_decrease(model.at.residual)
        trial = Trial(
            damping=damping,
            length=step.length,
            gain_ratio=_gain_ratio(point, candidate, predicted, damping, before.made),
            decrease=candidate.decrease,
            slope=dot(model.at.residual, velocity.image),
            params=point.params,
            cost=point.unscaled(point.cost),
            params_after=candidate.params,
            step=candidate.step,
            cost_after=point.unscaled(candidate.cost),
        )
        # Another program may round another way, so that standing still seems to gain.
        moved = some(candidate.params != point.params)
        accepted = rules.acceptance.accepts(states.acceptance, trial)
        accepted &= velocity.solved & moved & candidate.finite
        learnt = rules.after_accepted(states, trial, point.cost, candidate.cost)
        rejected = rules.after_rejected(states, trial)

        promise = subproblem.promise(step.demand, predicted)
        # Solved to the rounding of the system, and the step climbs all the same.
        spoilt = velocity.solved & (promise < -point.rounding.of_cost)
        promise = _trusted_promise(point, promise, velocity.solved, accepted, candidate)
        curvature = self.stepper.curvature(step, candidate.step, point.params)
        first = FirstTrial(jnp.where(spoilt, jnp.nan, promise), damping, curvature)
        exhausted = equal(rejected.damping, states.damping)  # the rule has nothing else to try
        hopeless = ~moved | exhausted | _nothing_to_gain(point, candidate, promise, damping)
        spent = before.spent + step.spent
        spent += Spent(0, found.iterations, found.products + system.setup_products)
        after = Trials(
            made=before.made + 1,
            last=Tried(
                params=candidate.params,
                cost=candidate.cost,
                residual_size=candidate.size,
                damping=damping,
                accepted=accepted,
                gain_ratio=trial.gain_ratio,
                promised=promise,
                step_norm=norm(candidate.step),
                relative_step=_relative_step(candidate.step, point.params),
                acceleration_ratio=step.ratio,
                used_acceleration=candidate.corrected,
                linear_residual=velocity.relative_residual,
            ),
            first=either(jnp.isnan(before.first.promised), first, before.first),
            spent=spent + Spent(evaluations=candidate.evaluations),
            hopeless=~accepted & hopeless,
            finite=jnp.where(moved, candidate.finite, before.finite),
            solved=before.solved | velocity.solved,
            rules=either(accepted, learnt, rejected),
            work=step.work,
            search=before.search,
        )
        return subproblem.concluded(before, after, step.demand)


def _gain_ratio(
    point: Point,
    candidate: Candidate,
    predicted: Float[Array, ""],
    damping: Float[Array, ""],
    made: Int[Array, ""],
) -> Float[Array, ""]:
    """The decrease over that which the linear model predicts.

    Where rounding hides the decrease it is 1: the model knows better, as long as it promises less
    from step to step, the cost stays at the lowest so far, and the step is not held back.
    """
    rounding, past = point.rounding, point.past
    known = candidate.finite & (predicted > 0)
    ratio = jnp.where(known, candidate.decrease / predicted, -jnp.inf)
    hidden = rounding.hides(predicted) & rounding.hides(candidate.decrease) & (predicted > 0)
    hidden &= rounding.hides(jnp.maximum(candidate.cost - past.lowest_cost, 0))
    falling = predicted <= 0.5 * past.least_promised
    free = (made == 0) & (damping <= point.largest)
    return jnp.where(hidden & falling & free, 1, ratio)


def _trusted_promise(
    point: Point,
    promise: Float[Array, ""],
    solved: Bool[Array, ""],
    accepted: Bool[Array, ""],
    candidate: Candidate,
) -> Float[Array, ""]:
    """A promise as far as it means something: infinite where the solution is a bad one."""
    rounding = point.rounding
    noise = rounding.of_cost
    # One that promises an increase is a bad solution.
    promise = jnp.where(solved & (promise >= -noise), promise, jnp.inf)
    # A promise has rounding of its own: one a little above noise, while the cost stands still.
    stands = jnp.abs(candidate.decrease) <= noise
    still = ~accepted & (promise <= rounding.of_promise) & stands
    return jnp.where(still, jnp.minimum(promise, noise), promise)


def _nothing_to_gain(
    point: Point, candidate: Candidate, promise: Float[Array, ""], damping: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether more damping can no longer help.

    The step vanishes in rounding, or one with little damping promises less than rounding of the
    cost.
    """
    vanishing = point.stationarity.negligible(candidate.step)
    return vanishing | ((promise <= point.rounding.of_cost) & (damping <= point.largest))


def _relative_step(step: Float[Array, " p"], params: Float[Array, " p"]) -> Float[Array, ""]:
    """The largest `|δⱼ|/|θⱼ|`, infinite where a zero moves."""
    ratios = jnp.where(params == 0, jnp.inf, jnp.abs(safe_divide(step, params)))
    return largest(jnp.where(step == 0, 0, ratios))
