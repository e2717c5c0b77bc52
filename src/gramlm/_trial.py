"""The point at which a step is tried, the trials made there, and the candidate of each."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, PyTree

from ._correction import CorrectedStep
from ._linearisation import AbstractLinearisation
from ._metric import dual_norm
from ._misc import all_finite, dot, norm, safe_divide, scattered_signs, sum_squares
from ._residual.base import AbstractResidual
from ._solution import CRITERIA
from ._termination import Termination


class Point(eqx.Module):
    """Everything known at the iterate before a step is tried."""

    function: AbstractResidual
    params: Float[Array, " p"]
    at: AbstractLinearisation
    metric: lx.AbstractLinearOperator
    gradient: Float[Array, " p"]
    largest: Float[Array, ""]
    termination: Termination

    @property
    def cost(self) -> Float[Array, ""]:
        return 0.5 * sum_squares(self.at.residual)

    @property
    def finite(self) -> Bool[Array, ""]:
        return all_finite(self.at.residual) & all_finite(self.gradient) & jnp.isfinite(self.largest)

    @property
    def gradient_norm(self) -> Float[Array, ""]:
        return dual_norm(self.metric, self.gradient)

    @property
    def relative_gradient(self) -> Float[Array, ""]:
        size = jnp.sqrt(self.largest) * norm(self.at.residual)
        # Where the squares underflow, the gradient is known to vanish only if r or J does.
        zero = jnp.all(self.at.residual == 0) | ((self.largest == 0) & jnp.all(self.gradient == 0))
        return jnp.where(size > 0, safe_divide(self.gradient_norm, size), jnp.where(zero, 0, 1))

    def arrived(self) -> CRITERIA:
        """The tolerance that the point itself meets, if any."""
        vanished = jnp.all(self.at.residual == 0)
        return self.termination.at_iterate(self.cost, vanished, self.relative_gradient)

    def rounding_cost(self) -> Float[Array, ""]:
        """`½‖ε J(θ ∘ z)‖²` for scattered signs z: the cost of rounding the parameters once."""
        signs = scattered_signs(self.params.size, self.params.dtype)
        eps = jnp.finfo(self.params.dtype).eps
        return 0.5 * sum_squares(self.at.jvp(eps * signs * self.params))


class Trials(NamedTuple):
    """The last trial of a step, and sums over all of them."""

    made: Array
    params: Array
    cost: Array
    damping_state: PyTree
    damping: Array
    damping_factor: Array
    accepted: Array
    hopeless: Array
    finite: Array
    solved: Array
    gain_ratio: Array
    predicted: Array
    least_predicted: Array  # of the first trial, which is the least damped
    least_damping: Array
    step_norm: Array
    acceleration_ratio: Array
    used_acceleration: Array
    evaluations: Array
    iterations: Array
    products: Array
    linear_residual: Array
    forcing_state: PyTree
    work: PyTree  # of the linear solver

    @classmethod
    def start(cls, point: Point, damping: PyTree, forcing: PyTree, work: PyTree) -> "Trials":
        zero = jnp.zeros((), point.params.dtype)
        no, none = jnp.asarray(False), jnp.zeros((), jnp.int32)
        arrived = point.arrived()
        return cls(
            made=none,
            params=point.params,
            cost=point.cost,
            damping_state=damping,
            damping=zero,
            damping_factor=jnp.ones_like(zero),
            accepted=no,
            hopeless=(arrived != CRITERIA.none) | ~point.finite,
            finite=no,
            solved=no,
            gain_ratio=zero,
            predicted=zero,
            least_predicted=zero,
            least_damping=zero,
            step_norm=zero,
            acceleration_ratio=zero,
            used_acceleration=no,
            evaluations=none,
            iterations=none,
            products=none,
            linear_residual=zero,
            forcing_state=forcing,
            work=work,
        )


class Candidate(NamedTuple):
    params: Array
    step: Array
    cost: Array
    decrease: Array
    finite: Array
    corrected: Array
    evaluations: Array


def best_candidate(point: Point, step: CorrectedStep) -> Candidate:
    """The plain step, or the corrected one if it is usable and no worse."""
    residual = point.at.residual
    velocity, acceleration = step.velocity.step, step.acceleration

    def evaluate(params):
        r = point.function(params)
        # (½‖r‖² − ½‖r'‖²) without the cancellation of nearly equal sums.
        decrease = 0.5 * dot(residual - r, residual + r)
        finite = all_finite(r)
        return 0.5 * sum_squares(r), jnp.where(finite, decrease, -jnp.inf)

    one = jnp.ones((), jnp.int32)
    if acceleration is None:
        params = point.params + velocity
        cost, decrease = evaluate(params)
        finite = jnp.isfinite(cost)
        return Candidate(params, velocity, cost, decrease, finite, jnp.asarray(False), one)

    steps = jnp.stack([velocity, velocity + acceleration.step])
    wanted = jnp.stack([jnp.asarray(True), step.usable])
    minus_infinity = jnp.full((), -jnp.inf, residual.dtype)

    # One after another under a condition, so that the residual is compiled once and an unusable
    # correction is not evaluated.
    def maybe(candidate):
        params, want = candidate
        skipped = (jnp.full((), jnp.inf, residual.dtype), minus_infinity)
        return jax.lax.cond(want, evaluate, lambda _: skipped, params)

    costs, decreases = jax.lax.map(maybe, (point.params + steps, wanted))
    corrected = step.usable & (decreases[1] >= decreases[0]) & jnp.isfinite(costs[1])
    pick = jnp.where(corrected, 1, 0)
    return Candidate(
        point.params + steps[pick], steps[pick], costs[pick], decreases[pick],
        jnp.isfinite(costs[pick]), corrected, one + step.usable,
    )  # fmt: skip
