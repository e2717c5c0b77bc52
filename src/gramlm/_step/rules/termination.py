"""Tolerances: when to stop."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._core.arrays import Scalar

# By so much the gradient may exceed what goes with a decrease of the tolerance (arbitrary: a step
# that was short for another reason exceeds it by orders of magnitude).
_SLACK = 30.0


class Precision(eqx.Module):
    """A tolerance that follows the dtype: `ε^power`, ε the machine precision."""

    power: float = eqx.field(static=True)


Tolerance = Scalar | Precision | None


class Termination(eqx.Module):
    """Tolerances, each switched off by None. Only accepted steps are tested for `cost` and `step`.

    - `cost`: stop when both the predicted and the actual decrease of a step, as far as rounding
      shows it, are at most `cost`·(cost before), the damping does not exceed λmax(K), so that the
      step is not short merely because it was held back, and the relative gradient is at most
      30·√`cost` (30·ε^⅓ where that is more). Default `ε^(4/3)`: 1e-21 in float64, 6e-10 in float32.
    - `gradient`: stop when the relative gradient is at most this. It is the largest cosine of the
      angle between r and a column of J where J is stored, and otherwise
      `‖Jᵀr‖_{M⁻¹}/(√λmax(K)·‖r‖)`: between 0 and 1, and independent of units. Default `ε^⅚`.
    - `step`: stop when no parameter moves by more than `step·|θⱼ|`, under the same two
      conditions. Default `ε^⅚`: 9e-14 and 2e-6.
    - `absolute_cost`: stop when `½‖r‖²` is at most this, in squared residual units. Default None.
    - `vanished`: stop when r is zero, or `½‖r‖²` at most this, both in squared residual units and
      as a part of what it was at the start, and the last factor ε² was won by steps that each
      left more than a thousandth of it. Default `ε³`, 1e-47 and 2e-21: residuals of 1e-23 and
      1e-10. Where J is singular at a root the cost falls by a factor at each step and never meets
      the other tests.

    One test cannot be switched off: when no step lowers the cost, or one that was rejected, with
    λ ≤ λmax(K), promised less than its rounding, 16ε of it, the solve ends. It ends
    well (`CRITERIA.rounding`) if the decrease that was still predicted is below the `cost`
    tolerance; if the relative gradient, from a stored J, is at most 10√ε; or if it is at
    most ten times what rounding the parameters once would cause, where the residual is as good as
    linear over that (with `correction=None`, which cannot tell, where all of r may be rounding).

    !!! Example

        ```python
        import gramlm

        # At a root mean square error of 1e-3 of n residuals, or where steps no longer gain.
        n = 200
        termination = gramlm.Termination(absolute_cost=0.5 * n * 1e-3**2, step=None)
        solver = gramlm.LevenbergMarquardt(termination=termination)
        ```
    """

    cost: Tolerance = Precision(4 / 3)
    gradient: Tolerance = Precision(5 / 6)
    step: Tolerance = Precision(5 / 6)
    absolute_cost: Scalar | None = None
    vanished: Tolerance = Precision(3.0)

    def __check_init__(self):
        for name in ("cost", "gradient", "step", "absolute_cost", "vanished"):
            value = getattr(self, name)
            if isinstance(value, float | int) and not value >= 0:
                raise ValueError(f"`Termination({name}=…)` must not be negative; got {value}.")

    # Each of the tests that follow is None where its tolerance is.

    def small_gradient(self, relative_gradient: Float[Array, ""]) -> Bool[Array, ""] | None:
        """Whether the relative gradient meets `gradient`."""
        if self.gradient is None:
            return None
        return relative_gradient <= _resolve(self.gradient, relative_gradient.dtype)

    def small_cost(self, cost: Float[Array, ""]) -> Bool[Array, ""] | None:
        """Whether a cost in the units of the user, that is no underflow, meets `absolute_cost`."""
        return None if self.absolute_cost is None else _below(cost, self.absolute_cost)

    def vanishing(
        self,
        cost: Float[Array, ""],
        initial_cost: Float[Array, ""],
        creeping_from: Float[Array, ""],
    ) -> Bool[Array, ""] | None:
        """Whether a cost meets `vanished`; all in the units of the user.

        `creeping_from`: the cost since when no step has removed nearly all of it.
        """
        if self.vanished is None:
            return None
        tolerance = _resolve(self.vanished, cost.dtype)
        below = _below(cost, tolerance * jnp.minimum(1, initial_cost))
        creeping = cost <= _resolve(Precision(2.0), cost.dtype) * creeping_from
        return below & creeping & jnp.isfinite(creeping_from)

    def short(self, relative_step: Float[Array, ""]) -> Bool[Array, ""] | None:
        """Whether a step, by the largest that a parameter moves, meets `step`."""
        if self.step is None:
            return None
        return relative_step <= _resolve(self.step, relative_step.dtype)

    def little(
        self,
        cost_before: Float[Array, ""],
        cost: Float[Array, ""],
        promised: Float[Array, ""],
        rounding: Float[Array, ""],
    ) -> Bool[Array, ""] | None:
        """Whether the decrease of a step, found and promised, meets `cost`.

        What is found may be `rounding`, however small the tolerance.
        """
        if self.cost is None:
            return None
        limit = _resolve(self.cost, cost.dtype) * cost_before
        return (cost_before - cost <= jnp.maximum(limit, rounding)) & (promised <= limit)

    def stationary(self, gradient: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether the relative gradient lets a small decrease or a short step count as an end.

        A step that removes the part τ of the cost has a gradient of about √(2τ) before it. One
        that is several times as large says that the step was short for another reason.
        """
        loose = _resolve(Precision(2 / 3), gradient.dtype)
        tolerance = loose if self.cost is None else _resolve(self.cost, gradient.dtype)
        return gradient <= _SLACK * jnp.sqrt(jnp.maximum(tolerance, loose))

    def negligible(self, cost: Float[Array, ""], rounding: Float[Array, ""]) -> Float[Array, ""]:
        """The predicted decrease below which a rejected step is no failure."""
        if self.cost is None:
            return rounding
        return jnp.maximum(_resolve(self.cost, cost.dtype) * cost, rounding)


def _below(cost: Float[Array, ""], limit: Scalar | Float[Array, ""]) -> Bool[Array, ""]:
    # A cost of 0 may be the underflow of squares: then it is the residual that has to be 0.
    return (cost <= limit) & (cost > 0)


def _resolve(tolerance: Scalar | Precision, dtype) -> Float[Array, ""]:
    if isinstance(tolerance, Precision):
        return jnp.asarray(float(jnp.finfo(dtype).eps) ** tolerance.power, dtype)
    return jnp.asarray(tolerance, dtype)
