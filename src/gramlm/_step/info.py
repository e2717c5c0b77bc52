"""The diagnostics of a step."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._core.results import CRITERIA, RESULTS


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
