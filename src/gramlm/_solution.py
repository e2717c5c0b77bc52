"""What a solve gives back: its result, statistics, history."""

from typing import Any, Generic, TypeVar

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._product_costs import ProductCosts

Params = TypeVar("Params")


class RESULTS(lx.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """How a solve ended. Extends `lineax.RESULTS`, so that a linear solver's messages fit in.

    `RESULTS[result]` is the sentence that belongs to a result.
    """

    successful = ""
    running = "The solve has not ended: take another step."
    nonlinear_max_steps_reached = (
        "The maximum number of steps was reached before any tolerance was met. The returned "
        "parameters are the best found: raise `max_steps`, loosen the tolerances of "
        "`Termination`, or continue with `resume=solution`."
    )
    nonfinite_start = (
        "The residual, its derivative, or the square of either is NaN or infinite at the "
        "parameters given. Start where they are finite (`jax.debug_nans` finds the operation), or "
        "reparametrise what overflows."
    )
    nonfinite_derivative = (
        "The residual is finite at the last parameters, but its derivative is NaN or infinite. "
        "They are returned: look for square roots, norms or powers of what becomes zero there."
    )
    nonfinite_trials = (
        "The residual is NaN or infinite at every trial point, however short the step. The last "
        "finite parameters are returned: the domain of the residual ends there, so reparametrise "
        "it (a logarithm for what must stay positive) or start elsewhere."
    )
    linear_solver_failed = (
        "The linear solver did not solve the Levenberg-Marquardt system, at this damping or at "
        "larger ones. The best parameters are returned: give the solver more iterations or a "
        "looser tolerance, or use `DenseSolver` where memory allows."
    )
    stalled = (
        "No step lowers the cost although the gradient is not small: every trial was rejected "
        "until the step vanished in rounding. The best parameters are returned: check that the "
        "residual is differentiable there, use float64, or try another `metric` or `damping`."
    )
    passed_better = (
        "The solve ended at a stationary point that costs more than the best point on its way "
        "uphill and downhill. That point is returned: go on from it with `acceptance=Descent()`."
    )
    stopped = (
        "A callback ended the solve on purpose. The best parameters are returned; "
        "`resume=solution` continues."
    )
    callback_failed = (
        "A callback raised an exception, or returned what is no action. The best parameters are "
        "returned: mend the callback, and `resume=solution` continues."
    )
    interrupted = (
        "The solve was interrupted by Ctrl-C. The best parameters are returned: "
        "`resume=solution` continues."
    )
    time_limit_reached = (
        "The time limit was reached before any tolerance was met. The best parameters are "
        "returned: raise `max_seconds`, or continue with `resume=solution`."
    )
    evaluation_limit_reached = (
        "The limit of residual evaluations was reached before any tolerance was met. The best "
        "parameters are returned: raise `max_evaluations`, and `resume=solution` continues."
    )


class CRITERIA(eqxi.Enumeration):
    """Which test of `Termination` ended a solve."""

    none = "No tolerance was met."
    cost = "The relative decrease of the cost, predicted and actual, fell below its tolerance."
    gradient = "The scaled gradient fell below its tolerance."
    step = "The length of an accepted step fell below its tolerance."
    absolute_cost = "The cost fell below its absolute tolerance."
    vanished = "The residual is zero, or next to nothing beside that of the start."
    rounding = (
        "No step lowers the cost, and what remains of it is explained by the rounding of the "
        "parameters and the residual."
    )


class StepInfo(eqx.Module):
    """Everything about one step: one Jacobian, and the trials that were made with it.

    `cost` is `½‖r‖²` after the step, in squared residual units; it equals `cost_before` when no
    trial was accepted.

    **Attributes:**

    - `cost_before`, `cost_candidate`, `cost`: the cost at the start of the step, at the last
      trial point (may be non-finite), and after the step.
    - `accepted`: whether a trial was accepted.
    - `gain_ratio`: actual decrease of the cost over the decrease that the linear model predicts.
    - `scale`: the power of two by which the residual was divided, 1 unless its squares come near
      to overflow or underflow. `damping`, `gradient_norm` and `largest_eigenvalue` are those of
      the divided residual, costs those of the residual itself.
    - `damping`: λ of the last trial.
    - `gradient_norm`: `‖Jᵀr‖_{M⁻¹}` at the start of the step; `relative_gradient`: the
      largest cosine of the angle between r and a column of J where J is stored, and otherwise
      `‖Jᵀr‖_{M⁻¹}/(√λmax(K)·‖r‖)`; between 0 and 1.
    - `step_norm`: Euclidean length of the last trial step.
    - `acceleration_ratio`: `2‖a‖_M/‖v‖_M`, 0 without a correction, and crude where the correction
      is too small to be solved for; `used_acceleration`: whether
      the last trial point includes it.
    - `inner_iterations`: iterations of the linear solver in this step, 0 for direct methods.
    - `linear_residual`: the true relative residual of the last linear system.
    - `products`: vectors multiplied by J or Jᵀ in this step. With row structure the assembly of
      the whole Jacobian counts as one product for each component of a point's residual.
    - `trials`: damping values tried. `evaluations`: residual evaluations at trial points.
    - `largest_eigenvalue`: the estimate of λmax(J M⁻¹ Jᵀ).
    - `criterion`, `result`: why the solve should end here; `CRITERIA.none` and
      `RESULTS.running` where it should not.
    """

    cost_before: Float[Array, ""]
    cost_candidate: Float[Array, ""]
    cost: Float[Array, ""]
    scale: Float[Array, ""]
    accepted: Bool[Array, ""]
    gain_ratio: Float[Array, ""]
    damping: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    relative_gradient: Float[Array, ""]
    step_norm: Float[Array, ""]
    acceleration_ratio: Float[Array, ""]
    used_acceleration: Bool[Array, ""]
    inner_iterations: Int[Array, ""]
    linear_residual: Float[Array, ""]
    products: Int[Array, ""]
    trials: Int[Array, ""]
    evaluations: Int[Array, ""]
    largest_eigenvalue: Float[Array, ""]
    criterion: CRITERIA
    result: RESULTS

    @classmethod
    def before_any(cls, cost: Float[Array, ""]) -> "StepInfo":
        """What there is to say before the first step."""
        zero, none, no = jnp.zeros_like(cost), jnp.zeros((), jnp.int32), jnp.asarray(False)
        return cls(
            cost_before=cost,
            cost_candidate=cost,
            cost=cost,
            scale=jnp.ones_like(cost),
            accepted=no,
            gain_ratio=zero,
            damping=zero,
            gradient_norm=zero,
            relative_gradient=zero,
            step_norm=zero,
            acceleration_ratio=zero,
            used_acceleration=no,
            inner_iterations=none,
            linear_residual=zero,
            products=none,
            trials=none,
            evaluations=none,
            largest_eigenvalue=zero,
            criterion=CRITERIA.none,
            result=RESULTS.running,
        )


class History(eqx.Module):
    """What happened at each step.

    Outside of a transformation the arrays have one entry a step made (`k`), and `cost` has one
    more: `cost[0]` is the cost at the start and `cost[i + 1]` the cost after step `i`. Under
    `jit` or `vmap` of a caller's own the lengths are those of `max_steps`, filled up with NaN.

    **Attributes:**

    - `cost`: squared residual units. `damping`: λ of the step's last trial.
    - `gradient_norm`: `‖Jᵀr‖_{M⁻¹}` at the start of the step.
    - `seconds`: since the solve began, at the end of the step. Where nobody watches, several steps
      are made at a time, half a second's worth, and theirs is interpolated. NaN inside of a
      transformation.
    - `params`: the parameters after steps 0, `every`, 2·`every`, …, each leaf with that axis in
      front, with `history=gramlm.Recording(params=True, every=…)`; otherwise None.
    """

    cost: Float[Array, "..."]
    damping: Float[Array, "..."]
    gradient_norm: Float[Array, "..."]
    seconds: Float[Array, "..."]
    params: PyTree[Any] = None


class Solution(eqx.Module, Generic[Params]):
    """The outcome of `gramlm.solve`.

    **Attributes:**

    - `value`: the best parameters found, with the structure and dtype of those given.
    - `result`: a member of `gramlm.RESULTS`.
    - `stats`: a dictionary of scalar arrays: `cost`, `initial_cost`, `num_steps` (= Jacobians),
      `num_accepted`, `num_evaluations` (residual evaluations at trial points), `num_products`
      (vectors multiplied by J or Jᵀ), `inner_iterations`, `linear_residual`,
      `relative_gradient`, and `criterion`, a member of `gramlm.CRITERIA`.
    - `history`: a `gramlm.History`.
    - `aux`: what the residual returned beside its value at `value`, with `has_aux=True`.
    - `state`: the solver's state after the last step, and `flat`, (p,), the flat parameters then:
      those of `value` unless steps went uphill. With them `resume=solution` continues.
    - `plan`: the choices that were made for this problem, in words. `costs`: what products with J
      were measured to cost, where the choices depend on it.
    - `reason`: why a callback stopped the solve, in its own words.
    """

    value: Params
    result: RESULTS
    stats: dict[str, Any]
    history: History
    aux: PyTree[Any]
    state: PyTree[Any]
    flat: Float[Array, "..."]
    plan: str = eqx.field(static=True, default="")
    costs: ProductCosts | None = eqx.field(static=True, default=None)
    reason: str = eqx.field(static=True, default="")


class SolveError(RuntimeError):
    """Raised by `gramlm.solve(..., throw=True)` when no tolerance was met, or a callback failed.

    Nothing is lost: `error.solution` is the whole `Solution`, with the best parameters found.
    """

    solution: Solution

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution


class SolveInterrupted(KeyboardInterrupt):
    """Raised by `gramlm.solve(..., throw=True)` after Ctrl-C.

    `interrupt.solution` is the whole `Solution`; `resume=interrupt.solution` continues. Where
    Ctrl-C was pressed twice, so that a step was left in the middle, its `state` may be None: then
    go on from `solution.value`.
    """

    solution: Solution

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution


def code(item: RESULTS | CRITERIA) -> int:
    """The number of a concrete member, for comparisons that cost nothing."""
    return int(jax.tree.leaves(item)[0])
