"""What comes before the trials of a step and after them: the linearisation, and the conclusion."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._core.scale import next_scale
from .._linear.auto import Plan
from .._model.metric import AbstractMetric, dual_norm
from .._model.model import Model
from .._model.power_iteration import largest_eigenvalue
from .._problem.flat import FlatProblem
from .info import StepInfo
from .point import Point
from .regions import region_around
from .rules.termination import Termination
from .state import Past, State, either
from .stationarity import stationarity_at
from .trial import Trials
from .verdict import verdict

# Products with J of every step beside those that are counted: the gradient, and the one by which
# rounding is measured where J is not stored.
_PRODUCTS = 2


class Linearised(eqx.Module):
    """A point, and what it took to get to know it.

    - `metric`: the state of the metric rule after it. `probe`, (p,): the direction of λmax(K).
    - `products`: vectors multiplied by J or Jᵀ.
    """

    point: Point
    metric: PyTree[Any]
    probe: Float[Array, " p"]
    products: Int[Array, ""]


def linearised(
    plan: Plan,
    rule: AbstractMetric,
    problem: FlatProblem,
    params: Float[Array, " p"],
    state: State,
) -> Linearised:
    """The linear model at an iterate, its metric, and all that the trials and the verdict ask."""
    fresh, first = state.fresh, state.step == 0
    past = either(fresh, Past.nothing(params), state.past)
    metric_before = either(fresh, rule.init(params), state.metric)

    linearisation, products = plan.linear_solver.linearise(plan.memory, problem.function, params)
    model = Model.of(problem, linearisation)
    region, model, gradient = region_around(problem.box, model, params, model.gradient)
    at = model.at
    metric, metric_after, used = rule.update(metric_before, at, state.step)
    largest, probe, power_products = largest_eigenvalue(at, metric, gradient, state.probe, first)
    gradient_norm = dual_norm(metric, gradient)
    stationarity = stationarity_at(at, params, gradient, gradient_norm, largest, past.columns)
    cost = problem.cost(model.residual)
    scale = state.scale
    started = jnp.isfinite(state.initial_cost)
    point = Point(
        problem=problem,
        params=params,
        model=model,
        region=region,
        metric=metric,
        gradient=gradient,
        gradient_norm=gradient_norm,
        largest=largest,
        cost=cost,
        stationarity=stationarity,
        rounding=stationarity.rounding(cost),
        scale=scale,
        initial_cost=jnp.where(started, state.initial_cost, cost * scale * scale),
        past=past,
    )
    return Linearised(
        point=point,
        metric=either(point.finite, metric_after, metric_before),
        probe=probe,
        products=products + used + power_products + _PRODUCTS,
    )


def concluded(
    termination: Termination,
    at: Linearised,
    trials: Trials,
    recycled: PyTree[Any],
    state: State,
) -> tuple[Float[Array, " p"], State, StepInfo]:
    """The parameters after the trials, what the next step starts from, and the diagnostics."""
    point, last, accepted = at.point, trials.last, trials.accepted
    params = jnp.where(accepted, last.params, point.params)
    following = next_scale(last.residual_size, state.scale)
    scale = jnp.where(accepted, following, state.scale)
    after = State(
        step=state.step + 1,
        rules=trials.rules,
        metric=at.metric,
        recycled=recycled,
        past=point.past.after(
            point.stationarity.longest, point.cost, accepted, last.cost, last.promised
        ),
        fresh=scale != state.scale,
        scale=scale,
        probe=at.probe,
        finite=trials.finite,
        initial_cost=point.initial_cost,
    )
    result, criterion = verdict(termination, point, trials, state.step == 0)
    info = StepInfo(
        cost_before=point.unscaled(point.cost),
        cost_candidate=point.unscaled(last.cost),
        cost=point.unscaled(jnp.where(accepted, last.cost, point.cost)),
        scale=point.scale,
        accepted=accepted,
        gain_ratio=last.gain_ratio,
        damping=last.damping,
        gradient_norm=point.gradient_norm,
        relative_gradient=point.stationarity.relative_gradient,
        step_norm=last.step_norm,
        acceleration_ratio=last.acceleration_ratio,
        used_acceleration=last.used_acceleration,
        inner_iterations=trials.spent.iterations,
        linear_residual=last.linear_residual,
        products=at.products + trials.spent.products,
        trials=trials.made,
        evaluations=trials.spent.evaluations,
        largest_eigenvalue=point.largest,
        criterion=criterion,
        result=result,
    )
    return params, after, info
