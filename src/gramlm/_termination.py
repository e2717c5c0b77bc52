"""When to stop."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._misc import Scalar
from ._solution import CRITERIA


class Precision(eqx.Module):
    """A tolerance that follows the dtype: `ε^power`, ε the machine precision."""

    power: float = eqx.field(static=True)


Tolerance = Scalar | Precision | None


class Termination(eqx.Module):
    """Tolerances, each switched off by None. Only accepted steps are tested for `cost` and `step`.

    - `cost`: stop when both the actual and the predicted decrease of a step are at most
      `cost`·(cost before), and the damping does not exceed λmax(K), so that the step is not
      short merely because it was held back. Default `ε^⅔`: 4e-11 in float64, 2e-5 in float32.
    - `gradient`: stop when `‖Jᵀr‖_{M⁻¹} ≤ gradient·√λmax(K)·‖r‖`, a pure number between 0 and 1
      that does not depend on units. Default `ε^⅔`.
    - `step`: stop when `‖δ‖ ≤ step·(‖θ‖ + step)`. Default `ε^⅚`: 9e-14 and 2e-6.
    - `absolute_cost`: stop when `½‖r‖²` is at most this, in squared residual units. Default 0.

    One test cannot be switched off: when no step lowers the cost, or one that was rejected, with
    λ ≤ λmax(K), promised less than its rounding, 16ε of it, the solve ends. It ends
    well (`CRITERIA.rounding`) if the decrease that was still predicted is below the `cost`
    tolerance, or if the cost is what rounding the parameters once would cause.
    """

    cost: Tolerance = Precision(2 / 3)
    gradient: Tolerance = Precision(2 / 3)
    step: Tolerance = Precision(5 / 6)
    absolute_cost: Scalar | None = 0.0

    def __check_init__(self):
        for name in ("cost", "gradient", "step", "absolute_cost"):
            value = getattr(self, name)
            if isinstance(value, float | int) and not value >= 0:
                raise ValueError(f"`Termination({name}=…)` must not be negative; got {value}.")

    def at_iterate(
        self, cost: Float[Array, ""], vanished: Bool[Array, ""], relative_gradient: Float[Array, ""]
    ) -> CRITERIA:
        """The tests of a point, made before a step is tried there. `vanished`: r = 0."""
        criterion = CRITERIA.none
        if self.gradient is not None:
            small = relative_gradient <= _resolve(self.gradient, cost.dtype)
            criterion = CRITERIA.where(small, CRITERIA.gradient, criterion)
        if self.absolute_cost is not None:
            small = vanished | _below(cost, self.absolute_cost)
            criterion = CRITERIA.where(small, CRITERIA.absolute_cost, criterion)
        return criterion

    def after_accepted(
        self,
        cost_before: Float[Array, ""],
        cost: Float[Array, ""],
        predicted: Float[Array, ""],
        held_back: Bool[Array, ""],
        step_norm: Float[Array, ""],
        params_norm: Float[Array, ""],
    ) -> CRITERIA:
        """The tests of an accepted step. `held_back`: λ exceeds λmax(K)."""
        criterion = CRITERIA.none
        if self.step is not None:
            tolerance = _resolve(self.step, cost.dtype)
            small = ~held_back & (step_norm <= tolerance * (params_norm + tolerance))
            criterion = CRITERIA.where(small, CRITERIA.step, criterion)
        if self.cost is not None:
            limit = _resolve(self.cost, cost.dtype) * cost_before
            small = ~held_back & (cost_before - cost <= limit) & (predicted <= limit)
            criterion = CRITERIA.where(small, CRITERIA.cost, criterion)
        if self.absolute_cost is not None:
            small = _below(cost, self.absolute_cost)
            criterion = CRITERIA.where(small, CRITERIA.absolute_cost, criterion)
        return criterion

    def noise(self, cost: Float[Array, ""]) -> Float[Array, ""]:
        """A decrease of this much may be rounding."""
        return 16 * float(jnp.finfo(cost.dtype).eps) * cost

    def negligible(self, cost: Float[Array, ""]) -> Float[Array, ""]:
        """The predicted decrease below which a rejected step is no failure."""
        if self.cost is None:
            return self.noise(cost)
        return jnp.maximum(_resolve(self.cost, cost.dtype) * cost, self.noise(cost))


def _below(cost: Float[Array, ""], limit: Scalar) -> Bool[Array, ""]:
    # A cost of 0 may be the underflow of squares: then it is the residual that has to be 0.
    return (cost <= limit) & (cost > 0)


def _resolve(tolerance: Scalar | Precision, dtype) -> Float[Array, ""]:
    if isinstance(tolerance, Precision):
        return jnp.asarray(float(jnp.finfo(dtype).eps) ** tolerance.power, dtype)
    return jnp.asarray(tolerance, dtype)
