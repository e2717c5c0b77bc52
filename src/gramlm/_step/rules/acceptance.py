"""Which trials are accepted.

A rule sees each trial and keeps what it needs. One that lets the cost rise for a while keeps the
best parameters as well, so that nothing is lost.
"""

import abc
from typing import Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._core.arrays import Scalar, safe_divide
from ..._core.checks import check_between, check_positive
from ..._core.reductions import dot, norm
from .trial import Trial

State = TypeVar("State")


class AbstractAcceptance(eqx.Module, Generic[State]):
    """Decides on trials."""

    @abc.abstractmethod
    def init(self, params: Float[Array, " p"]) -> State:
        """The state before the first trial."""

    @abc.abstractmethod
    def accepts(self, state: State, trial: Trial) -> Bool[Array, ""]:
        """Whether the step is taken."""

    @abc.abstractmethod
    def accepted(self, state: State, trial: Trial) -> State:
        """The state after a step was taken."""

    @abc.abstractmethod
    def best(
        self, state: State, params: Float[Array, " p"], cost: Float[Array, ""]
    ) -> tuple[Float[Array, " p"], Float[Array, ""]]:
        """The parameters of the lowest cost so far, and that cost, given the present ones."""


class Monotone(AbstractAcceptance[None]):
    """Takes a step whose gain ratio exceeds `min_gain`: the cost does not rise beyond rounding."""

    min_gain: Scalar = 1e-4

    def __check_init__(self):
        check_between(self.min_gain, "min_gain", 0, 1, closed="low")

    def init(self, params: Float[Array, " p"]) -> None:
        return None

    def accepts(self, state: None, trial: Trial) -> Bool[Array, ""]:
        return trial.gain_ratio > self.min_gain

    def accepted(self, state: None, trial: Trial) -> None:
        return None

    def best(self, state: None, params: Float[Array, " p"], cost: Float[Array, ""]):
        return params, cost


class NonmonotoneState(eqx.Module):
    """The last step taken, (p,), zero at first; the best parameters, (p,), and their cost, which is
    infinite before the first.
    """

    step: Float[Array, " p"]
    params: Float[Array, " p"]
    cost: Float[Array, ""]


class Nonmonotone(AbstractAcceptance[NonmonotoneState]):
    """Takes some steps uphill as well, along a narrow valley with bends.

    A step v is taken if `(1 − β)^power · cost after ≤ lowest cost so far`, with β the cosine of the
    angle between v and the step before it (Transtrum and Sethna 2012), or if it is one that
    `Monotone` takes. `power` is 1 or 2, larger being bolder. What is returned is the best point.
    """

    power: float | int = eqx.field(static=True, default=1)
    min_gain: Scalar = 1e-4

    def __check_init__(self):
        check_between(self.min_gain, "min_gain", 0, 1, closed="low")
        check_positive(self.power, "power", " (1 or 2 is usual)")

    def init(self, params: Float[Array, " p"]) -> NonmonotoneState:
        infinite = jnp.full((), jnp.inf, params.dtype)
        return NonmonotoneState(jnp.zeros_like(params), params, infinite)

    def accepts(self, state: NonmonotoneState, trial: Trial) -> Bool[Array, ""]:
        lengths = norm(state.step) * norm(trial.step)
        cosine = jnp.clip(safe_divide(dot(state.step, trial.step), lengths), 0, 1)
        lowest = jnp.minimum(state.cost, trial.cost)
        uphill = (1 - cosine) ** self.power * trial.cost_after <= lowest
        uphill &= (cosine > 0) & jnp.isfinite(trial.cost_after)
        return (trial.gain_ratio > self.min_gain) | uphill

    def accepted(self, state: NonmonotoneState, trial: Trial) -> NonmonotoneState:
        params, cost = self.best(state, trial.params, trial.cost)
        better = trial.cost_after <= cost
        return NonmonotoneState(
            step=trial.step,
            params=jnp.where(better, trial.params_after, params),
            cost=jnp.minimum(trial.cost_after, cost),
        )

    def best(self, state: NonmonotoneState, params: Float[Array, " p"], cost: Float[Array, ""]):
        kept = state.cost < cost
        return jnp.where(kept, state.params, params), jnp.minimum(state.cost, cost)
