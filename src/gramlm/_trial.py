"""The point at which a step is tried, the trials made there, and the candidate of each."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, PyTree

from ._correction import CorrectedStep
from ._linearisation import AbstractLinearisation, MaterialisedLinearisation
from ._metric import dual_norm
from ._misc import (
    all_finite,
    column_sum_squares,
    dot,
    norm,
    safe_divide,
    scattered_signs,
    sum_squares,
)
from ._residual.base import AbstractResidual
from ._scale import largest_entry
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
    scale: Float[Array, ""]  # by which the residual, and so its cost, is divided
    columns: Float[Array, " p"]  # lengths of those of J, 0 where it is not stored
    longest_columns: Float[Array, " p"]  # the largest so far

    @property
    def cost(self) -> Float[Array, ""]:
        return 0.5 * sum_squares(self.at.residual)

    def unscaled(self, cost: Float[Array, ""]) -> Float[Array, ""]:
        """A cost in the units of the user."""
        return cost * self.scale * self.scale

    @property
    def finite(self) -> Bool[Array, ""]:
        return all_finite(self.at.residual) & all_finite(self.gradient) & jnp.isfinite(self.largest)

    @property
    def gradient_norm(self) -> Float[Array, ""]:
        return dual_norm(self.metric, self.gradient)

    @property
    def relative_gradient(self) -> Float[Array, ""]:
        """The largest cosine of r and a column of J; where J is not stored, of means of them."""
        if isinstance(self.at, MaterialisedLinearisation):
            return jnp.max(self._cosines())
        size = jnp.sqrt(self.largest) * norm(self.at.residual)
        # Where the squares underflow, the gradient is known to vanish only if r or J does.
        zero = jnp.all(self.at.residual == 0) | ((self.largest == 0) & jnp.all(self.gradient == 0))
        return jnp.where(size > 0, safe_divide(self.gradient_norm, size), jnp.where(zero, 0, 1))

    @property
    def significant_gradient(self) -> Float[Array, ""]:
        """The same without the parameters that no longer count.

        One does not if its column has become far shorter than it was, and moving it by its own
        size moves r by less than its rounding: a term of a sum that has died, where the slope of
        what is left of it says nothing.
        """
        if not isinstance(self.at, MaterialisedLinearisation):
            return self.relative_gradient
        eps = jnp.finfo(self.params.dtype).eps
        moved = jnp.abs(self.params) * self.columns
        died = self.columns <= eps**0.5 * self.longest_columns
        lost = died & (moved <= eps * norm(self.at.residual))
        return jnp.max(jnp.where(lost, 0, self._cosines()))

    def _cosines(self) -> Float[Array, " p"]:
        """Between r and each column of J."""
        size, slopes = self.columns * norm(self.at.residual), jnp.abs(self.gradient)
        # Where squares underflow, nothing is known of a gradient that is not zero.
        cosines = jnp.where(size > 0, safe_divide(slopes, size), jnp.where(slopes > 0, 1, 0))
        return jnp.minimum(cosines, 1)

    def arrived(self) -> CRITERIA:
        """The tolerance that the point itself meets, if any."""
        # Squares that underflow, where the start had ordinary ones, have vanished all the same.
        underflown = (self.cost == 0) & (self.scale <= 1)
        vanished = jnp.all(self.at.residual == 0) | underflown
        cost = self.unscaled(self.cost)
        return self.termination.at_iterate(cost, vanished, self.relative_gradient)

    def rounding_cost(self) -> Float[Array, ""]:
        """`½ε² Σ θⱼ²‖Jⱼ‖²`, the cost of rounding the parameters once.

        Where J is not stored `½‖ε J(θ ∘ z)‖²` for scattered signs z.
        """
        if isinstance(self.at, MaterialisedLinearisation):
            moved = self.columns * self.params
            return 0.5 * sum_squares(jnp.finfo(moved.dtype).eps * moved)
        signs = scattered_signs(self.params.size, self.params.dtype)
        eps = jnp.finfo(self.params.dtype).eps
        return 0.5 * sum_squares(self.at.jvp(eps * signs * self.params))


def column_lengths(at: AbstractLinearisation) -> Float[Array, " p"]:
    """Of the columns of J where it is stored, otherwise zeros."""
    if isinstance(at, MaterialisedLinearisation):
        return jnp.sqrt(column_sum_squares(at.jacobian))
    return jnp.zeros((at.num_params,), at.residual.dtype)


class Trials(NamedTuple):
    """The last trial of a step, and sums over all of them."""

    made: Array
    params: Array
    cost: Array
    residual_size: Array  # its largest entry
    damping_state: PyTree
    damping: Array
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
            residual_size=zero,
            damping_state=damping,
            damping=zero,
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
    size: Array  # of the largest residual
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
        return 0.5 * sum_squares(r), jnp.where(finite, decrease, -jnp.inf), largest_entry(r)

    one = jnp.ones((), jnp.int32)
    if acceleration is None:
        params = point.params + velocity
        cost, decrease, size = evaluate(params)
        finite = jnp.isfinite(cost)
        return Candidate(params, velocity, cost, decrease, size, finite, jnp.asarray(False), one)

    steps = jnp.stack([velocity, velocity + acceleration.step])
    wanted = jnp.stack([jnp.asarray(True), step.usable])
    minus_infinity = jnp.full((), -jnp.inf, residual.dtype)

    # One after another under a condition, so that the residual is compiled once and an unusable
    # correction is not evaluated.
    def maybe(candidate):
        params, want = candidate
        skipped = (-minus_infinity, minus_infinity, -minus_infinity)
        return jax.lax.cond(want, evaluate, lambda _: skipped, params)

    costs, decreases, sizes = jax.lax.map(maybe, (point.params + steps, wanted))
    corrected = step.usable & (decreases[1] >= decreases[0]) & jnp.isfinite(costs[1])
    pick = jnp.where(corrected, 1, 0)
    return Candidate(
        point.params + steps[pick], steps[pick], costs[pick], decreases[pick], sizes[pick],
        jnp.isfinite(costs[pick]), corrected, one + step.usable,
    )  # fmt: skip
