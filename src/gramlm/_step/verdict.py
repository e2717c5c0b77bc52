"""The diagnostics of a step, and the verdict on the solve."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from .._core.reductions import all_finite
from .._core.results import CRITERIA, RESULTS
from .info import StepInfo
from .point import Point
from .trial import Trials

# Where no step helps, a gradient of up to this many times that of rounding the parameters is
# rounding, if r is as good as linear so near: a correction over its step.
_ROUNDING_SLACK = 10.0
_LINEAR = 0.1


def describe(
    point: Point, trials: Trials, products: Int[Array, ""], first: Bool[Array, ""]
) -> StepInfo:
    """The diagnostics of a step, and whether the solve should end with it."""
    termination, cost_before = point.termination, point.cost
    cost = jnp.where(trials.accepted, trials.cost, cost_before)
    arrived = point.arrived()
    stationarity = point.stationarity
    gradient = stationarity.significant_gradient
    after = termination.after_accepted(
        cost_before, cost, point.unscaled(cost), trials.predicted,
        trials.damping > point.largest, gradient,
        trials.relative_step,
    )  # fmt: skip

    negligible = termination.negligible(cost_before)
    first_trial = trials.first
    nothing_left = (first_trial.predicted <= negligible) & (first_trial.damping <= point.largest)
    nothing_left = nothing_left & termination.stationary(gradient)
    noise = _ROUNDING_SLACK * point.noise
    # Unknown without a correction: then all of r has to be rounding.
    linear = (first_trial.curvature <= _LINEAR) | (jnp.isinf(first_trial.curvature) & (noise >= 1))
    rounding = nothing_left | ((gradient <= noise) & linear) | (gradient <= stationarity.accuracy)
    within_range = (cost_before > 0) & jnp.isfinite(cost_before)  # 0 here is an underflow
    zero = jnp.all(point.residual == 0)
    rounding = (rounding & trials.solved & within_range) | zero
    exhausted = CRITERIA.where(rounding, CRITERIA.rounding, CRITERIA.none)

    criterion = CRITERIA.where(
        arrived != CRITERIA.none,
        arrived,
        CRITERIA.where(
            trials.accepted,
            after,
            CRITERIA.where(trials.hopeless & point.finite, exhausted, CRITERIA.none),
        ),
    )
    failure = RESULTS.where(
        ~trials.solved,
        RESULTS.linear_solver_failed,
        RESULTS.where(trials.finite, RESULTS.stalled, RESULTS.nonfinite_trials),
    )
    result = RESULTS.where(
        criterion != CRITERIA.none,
        RESULTS.successful,
        RESULTS.where(trials.hopeless & ~trials.accepted, failure, RESULTS.running),
    )
    at_fault = first | ~all_finite(point.residual)
    nonfinite = RESULTS.where(at_fault, RESULTS.nonfinite_start, RESULTS.nonfinite_derivative)
    result = RESULTS.where(point.finite, result, nonfinite)
    criterion = CRITERIA.where(point.finite, criterion, CRITERIA.none)
    return StepInfo(
        cost_before=point.unscaled(cost_before),
        cost_candidate=point.unscaled(trials.cost),
        cost=point.unscaled(cost),
        scale=point.scale,
        accepted=trials.accepted,
        gain_ratio=trials.gain_ratio,
        damping=trials.damping,
        gradient_norm=point.gradient_norm,
        relative_gradient=stationarity.relative_gradient,
        step_norm=trials.step_norm,
        acceleration_ratio=trials.acceleration_ratio,
        used_acceleration=trials.used_acceleration,
        inner_iterations=trials.iterations,
        linear_residual=trials.linear_residual,
        products=products + trials.products,
        trials=trials.made,
        evaluations=trials.evaluations,
        largest_eigenvalue=point.largest,
        criterion=criterion,
        result=result,
    )
