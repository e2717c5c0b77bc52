"""Trials with one Jacobian: λ, the step, its correction, the cost there, and the verdict."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._core.arrays import Scalar, safe_divide
from .._core.reductions import dot, norm
from .._linear.solver.base import AbstractFactorisation, FoundDamping
from .._model.linearisation import AbstractLinearisation
from .candidate import Candidate, best_candidate
from .corrected import corrected_step
from .faces import FaceSearch, OnFace
from .lengths import StepLengths
from .point import Point
from .rules.acceptance import AbstractAcceptance, Attempted
from .rules.correction import AbstractCorrection
from .rules.damping.base import AbstractDamping, Trial
from .rules.forcing import AbstractForcing
from .state import RuleStates, either, equal
from .trial import FirstTrial, Trials


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
    rules: Rules,
    point: Point,
    factorise: Callable[[AbstractLinearisation, PyTree[Any]], AbstractFactorisation],
    start: Trials,
    recycled: PyTree[Any],
    most: int,
) -> tuple[Trials, PyTree[Any]]:
    """Tries values of λ until a trial is accepted, until there is no hope, or `most` times.

    One factorisation serves them all, unless bounds ask for another face. Returns the trials and
    what the linear solver recycles.
    """

    def unfinished(trials: Trials):
        return ~trials.accepted & ~trials.hopeless & (trials.made < most)

    def on(at: AbstractLinearisation, on_face: OnFace | None, trials: Trials, recycled):
        factors = factorise(at, recycled)

        def attempt(trials: Trials) -> Trials:
            return _attempt(rules, point, factors, on_face, trials)

        def same_face(trials: Trials):
            going = unfinished(trials)
            return going if trials.search is None else going & ~trials.search.wanted

        trials = jax.lax.while_loop(same_face, attempt, trials._replace(work=factors.work))
        return trials._replace(work=None), factors.recycle(trials.work)

    box, model = point.problem.box, point.model
    if box is None:
        return on(model.at, None, start, recycled)

    def on_wanted(carry):
        trials, recycled = carry
        search = dataclasses.replace(trials.search, wanted=jnp.asarray(False))
        on_face = OnFace.of(box, model, point.params, search)
        return on(model.held(search.face), on_face, trials._replace(search=search), recycled)

    def open_face(carry):
        trials, _ = carry
        return unfinished(trials) & trials.search.wanted

    return jax.lax.while_loop(open_face, on_wanted, (start, recycled))


def _attempt(
    rules: Rules,
    point: Point,
    factors: AbstractFactorisation,
    on_face: OnFace | None,
    trials: Trials,
) -> Trials:
    states, residual = trials.rules, point.model.at.residual
    velocity_tolerance = rules.forcing.velocity(states.forcing)
    floor = jnp.asarray(rules.damping_floor) * factors.rounding
    rhs = residual
    if on_face is not None:
        rhs, velocity_tolerance = on_face.residual, on_face.tolerance(velocity_tolerance)
    lengths = StepLengths(factors, rhs, point.metric, floor, trials.work, velocity_tolerance)
    found = _proposed(rules.damping, states.damping, lengths, trials.search)
    damping = jnp.maximum(found.damping, floor)
    system = factors.at(damping)
    corrected = corrected_step(
        rules.correction,
        point.problem,
        point.model,
        point.params,
        point.metric,
        system,
        found.work,
        velocity_tolerance,
        rules.forcing.acceleration(states.forcing),
        on_face,
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
        params_after=candidate.params,
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
    promise = predicted
    if corrected.face is not None and trials.search is not None:
        promise = trials.search.promised(corrected.face)  # a step cut off may promise an increase
    promised = jnp.where(velocity.solved & (promise >= -noise), promise, jnp.inf)
    # A promise has rounding of its own: one a little above noise, while the cost stands still.
    still = ~accepted & (promised <= 8 * noise) & (jnp.abs(candidate.decrease) <= noise)
    promised = jnp.where(still, jnp.minimum(promised, noise), promised)
    repeated = equal(rejected.damping, states.damping)  # the rule has nothing else to try
    hopeless = ~moved | repeated | _nothing_to_gain(point, candidate, promised, damping)
    tried = Trials(
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
        search=trials.search,
    )
    if corrected.face is None or trials.search is None or point.model.face is None:
        return tried
    tried = tried._replace(search=trials.search.after_rejected(point.model.face))
    asked = trials._replace(
        iterations=tried.iterations,
        products=tried.products,
        work=tried.work,
        search=trials.search.held_at(corrected.face, damping),
    )
    return either(corrected.face.refine, asked, tried)


def _proposed(
    rule: AbstractDamping, state: Any, lengths: StepLengths, search: FaceSearch | None
) -> FoundDamping:
    """λ by the rule; on a further face for the same λ, that."""
    if search is None:
        return rule.propose(state, lengths)
    return jax.lax.cond(
        jnp.isnan(search.damping),
        lambda: rule.propose(state, lengths),
        lambda: lengths.at(search.damping),
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
