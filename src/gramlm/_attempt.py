"""Trials with one Jacobian: λ, the step, its correction, the cost there, and the verdict."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp

from ._acceptance import AbstractAcceptance, Attempted
from ._correction import AbstractCorrection, corrected_step
from ._damping.base import AbstractDamping, Trial
from ._forcing import AbstractForcing
from ._gram_solver.base import AbstractFactorisation
from ._misc import Scalar, dot, norm, safe_divide
from ._state import RuleStates, either, equal
from ._step_lengths import StepLengths
from ._trial import Candidate, FirstTrial, Point, Trials, best_candidate


class Rules(eqx.Module):
    """What decides on a trial: choices of the solver."""

    damping: AbstractDamping
    forcing: AbstractForcing
    acceptance: AbstractAcceptance
    correction: AbstractCorrection | None
    damping_floor: Scalar

    def after_accepted(
        self, states: RuleStates, trial: Trial, attempted: Attempted, point: Point, cost
    ) -> RuleStates:
        """What the rules learn from a trial that is accepted."""
        return RuleStates(
            damping=self.damping.accepted(states.damping, trial),
            forcing=self.forcing.accepted(states.forcing, point.cost, cost),
            acceptance=self.acceptance.accepted(states.acceptance, attempted),
        )

    def after_rejected(self, states: RuleStates, trial: Trial) -> RuleStates:
        """What the damping rule learns from one that is rejected."""
        return dataclasses.replace(states, damping=self.damping.rejected(states.damping, trial))


def attempts(
    rules: Rules, point: Point, factors: AbstractFactorisation, start: Trials, most: int
) -> Trials:
    """Tries values of λ until a trial is accepted, until there is no hope, or `most` times."""

    def unfinished(trials: Trials):
        return ~trials.accepted & ~trials.hopeless & (trials.made < most)

    def attempt(trials: Trials) -> Trials:
        return _attempt(rules, point, factors, trials)

    return jax.lax.while_loop(unfinished, attempt, start)


def _attempt(rules: Rules, point: Point, factors: AbstractFactorisation, trials: Trials) -> Trials:
    states, residual = trials.rules, point.at.residual
    velocity_tolerance = rules.forcing.velocity(states.forcing)
    floor = jnp.asarray(rules.damping_floor) * factors.rounding
    lengths = StepLengths(factors, residual, point.metric, floor, trials.work, velocity_tolerance)
    found = rules.damping.propose(states.damping, lengths)
    damping = jnp.maximum(found.damping, floor)
    system = factors.at(damping)
    corrected = corrected_step(
        rules.correction,
        point.function,
        point.params,
        residual,
        point.metric,
        system,
        found.work,
        velocity_tolerance,
        rules.forcing.acceleration(states.forcing),
    )
    velocity = corrected.velocity
    candidate = best_candidate(point, corrected)
    # Another program may round another way, so that standing still seems to gain.
    moved = jnp.any(candidate.params != point.params)

    predicted = velocity.predicted_decrease(residual)
    gain_ratio = _gain_ratio(
        point, candidate, predicted, (trials.made == 0) & (damping <= point.largest)
    )
    attempted = Attempted(
        params=point.params,
        cost=point.unscaled(point.cost),
        step=candidate.step,
        cost_after=point.unscaled(candidate.cost),
        gain_ratio=gain_ratio,
    )
    accepted = rules.acceptance.accepts(states.acceptance, attempted)
    accepted &= velocity.solved & moved & candidate.finite
    trial = Trial(
        damping=damping,
        length=corrected.length,
        gain_ratio=gain_ratio,
        decrease=candidate.decrease,
        slope=dot(residual, velocity.image),
    )
    rejected = rules.after_rejected(states, trial)
    learnt = rules.after_accepted(states, trial, attempted, point, candidate.cost)

    # The correction over the step, which is as much longer as the step is than what rounds θ.
    size, rounding = norm(candidate.step), jnp.finfo(residual.dtype).eps * norm(point.params)
    curvature = corrected.ratio * jnp.maximum(1, safe_divide(rounding, size))
    if rules.correction is None:
        curvature = jnp.full_like(curvature, jnp.inf)

    # One that promises an increase is a bad solution.
    noise = point.termination.noise(point.cost)
    promised = jnp.where(velocity.solved & (predicted >= -noise), predicted, jnp.inf)
    repeated = equal(rejected.damping, states.damping)  # the rule has nothing else to try
    hopeless = ~moved | repeated | _nothing_to_gain(point, candidate, promised, damping)
    return Trials(
        made=trials.made + 1,
        params=candidate.params,
        cost=candidate.cost,
        residual_size=candidate.size,
        damping=damping,
        accepted=accepted,
        hopeless=~accepted & hopeless,
        finite=jnp.where(moved, candidate.finite, trials.finite),
        solved=trials.solved | velocity.solved,
        gain_ratio=gain_ratio,
        predicted=promised,
        first=either(trials.made == 0, FirstTrial(promised, damping, curvature), trials.first),
        step_norm=norm(candidate.step),
        relative_step=_relative_step(candidate.step, point.params),
        acceleration_ratio=corrected.ratio,
        used_acceleration=candidate.corrected,
        evaluations=trials.evaluations + candidate.evaluations,
        iterations=trials.iterations + found.iterations + corrected.iterations,
        products=trials.products + found.products + system.setup_products + corrected.products,
        linear_residual=velocity.relative_residual,
        rules=either(accepted, learnt, rejected),
        work=corrected.work,
    )


def _gain_ratio(point: Point, candidate: Candidate, predicted, free):
    """The decrease over that which the linear model predicts.

    Where rounding hides the decrease it is 1: the model knows better, as long as it promises less
    from step to step and the cost stays at the lowest so far. `free`: the step is not held back.
    """
    known = candidate.finite & (predicted > 0)
    ratio = jnp.where(known, candidate.decrease / predicted, -jnp.inf)
    hidden = point.hides(predicted) & point.hides(candidate.decrease) & (predicted > 0)
    hidden &= point.hides(jnp.maximum(candidate.cost - point.lowest_cost, 0))
    falling = predicted <= 0.5 * point.least_predicted
    return jnp.where(hidden & falling & free, 1, ratio)


def _relative_step(step, params):
    """The largest `|δⱼ|/|θⱼ|`, infinite where a zero moves."""
    ratios = jnp.where(params == 0, jnp.inf, jnp.abs(safe_divide(step, params)))
    return jnp.max(jnp.where(step == 0, 0, ratios))


def _nothing_to_gain(point: Point, candidate: Candidate, promised, damping):
    """Whether more damping can no longer help.

    The step vanishes in rounding, or one with little damping promises less than rounding of the
    cost.
    """
    vanishing = point.stationarity.negligible(candidate.step)
    noise = point.termination.noise(point.cost)
    return vanishing | ((promised <= noise) & (damping <= point.largest))
