"""Damping rules: which λ to try next, given how the last trial went.

A rule sees a trial as the λ that was used (after the floor of the driver) and the gain ratio;
it keeps whatever state it needs.

`initial`, in all rules, is λ₀ over λmax(K). A rejected trial costs no Jacobian, so that λ₀ may be
too small without much harm: with 1e-5 the Rosenbrock function of the benchmarks takes 6 Jacobians
and with 1e-3 27, while on the networks neither is better throughout.
"""

import abc
from typing import Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._misc import Scalar

State = TypeVar("State")


class AbstractDamping(eqx.Module, Generic[State]):
    """Proposes λ and learns from the outcome of each trial."""

    @abc.abstractmethod
    def init(self, largest_eigenvalue: Float[Array, ""]) -> State:
        """The state before the first trial, from an estimate of λmax(K)."""

    @abc.abstractmethod
    def value(self, state: State) -> Float[Array, ""]:
        """λ for the next trial, in units of K."""

    @abc.abstractmethod
    def accepted(
        self, state: State, damping: Float[Array, ""], gain_ratio: Float[Array, ""]
    ) -> State:
        """The state after an accepted trial at λ = `damping`."""

    @abc.abstractmethod
    def rejected(
        self, state: State, damping: Float[Array, ""], gain_ratio: Float[Array, ""]
    ) -> State:
        """The state after a rejected trial at λ = `damping`; `gain_ratio` may be −inf."""


class Constant(AbstractDamping[Float[Array, ""]]):
    """λ = `initial`·λmax(K of the first Jacobian), throughout.

    A rejected trial has nothing else to try, so the solve ends there.
    """

    initial: Scalar = 1e-5

    def __check_init__(self):
        _check_positive(self.initial, "initial")

    def init(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.initial * largest_eigenvalue)

    def value(self, state: Float[Array, ""]) -> Float[Array, ""]:
        return state

    def accepted(self, state, damping, gain_ratio) -> Float[Array, ""]:
        return state

    def rejected(self, state, damping, gain_ratio) -> Float[Array, ""]:
        return state


class Multiplicative(AbstractDamping[Float[Array, ""]]):
    """λ × `decrease` after success, λ × `increase` after failure (Marquardt 1963)."""

    decrease: Scalar = 0.1
    increase: Scalar = 10.0
    initial: Scalar = 1e-5

    def __check_init__(self):
        _check_positive(self.initial, "initial")
        _check_between(self.decrease, "decrease", 0.0, 1.0)
        _check_above(self.increase, "increase", 1.0)

    def init(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.initial * largest_eigenvalue)

    def value(self, state: Float[Array, ""]) -> Float[Array, ""]:
        return state

    def accepted(self, state, damping, gain_ratio) -> Float[Array, ""]:
        return damping * self.decrease

    def rejected(self, state, damping, gain_ratio) -> Float[Array, ""]:
        return damping * self.increase


class DelayedGratification(AbstractDamping[Float[Array, ""]]):
    """Cautious: λ ÷ `decrease` after success, and only × `increase`, a little, after failure.

    Steps stay barely shorter than what would be rejected, which keeps clear of the boundary of
    the model manifold (Transtrum and Sethna 2012, section on delayed gratification).
    """

    decrease: Scalar = 5.0
    increase: Scalar = 1.5
    initial: Scalar = 1e-5

    def __check_init__(self):
        _check_positive(self.initial, "initial")
        _check_above(self.decrease, "decrease", 1.0)
        _check_above(self.increase, "increase", 1.0)

    def init(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.initial * largest_eigenvalue)

    def value(self, state: Float[Array, ""]) -> Float[Array, ""]:
        return state

    def accepted(self, state, damping, gain_ratio) -> Float[Array, ""]:
        return damping / self.decrease

    def rejected(self, state, damping, gain_ratio) -> Float[Array, ""]:
        return damping * self.increase


class NielsenState(eqx.Module):
    """λ and the factor of the next increase, which doubles with each failure."""

    damping: Float[Array, ""]
    growth: Float[Array, ""]


class Nielsen(AbstractDamping[NielsenState]):
    """λ × `max(decrease, 1 − (2ρ − 1)³)` after success; × 2, × 4, × 8 … after failures.

    The smooth rule of Nielsen (1999), with the gain ratio ρ: λ falls when the model was right and
    is kept, or raised by up to 2, when it was barely good enough. `decrease` is Nielsen's 1/3.
    With 0.1, which takes a gain ratio of 0.98, a nearly linear problem needs fewer Jacobians (a
    kernel problem 4 instead of 7), and networks need more (90 instead of 37, 136 instead of 96).
    """

    initial: Scalar = 1e-5
    decrease: Scalar = 1 / 3

    def __check_init__(self):
        _check_positive(self.initial, "initial")
        _check_between(self.decrease, "decrease", 0.0, 1.0)

    def init(self, largest_eigenvalue: Float[Array, ""]) -> NielsenState:
        damping = jnp.asarray(self.initial * largest_eigenvalue)
        return NielsenState(damping, jnp.asarray(2.0, damping.dtype))

    def value(self, state: NielsenState) -> Float[Array, ""]:
        return state.damping

    def accepted(self, state: NielsenState, damping, gain_ratio) -> NielsenState:
        bounded = jnp.clip(gain_ratio, 0.0, 1.0)
        factor = jnp.maximum(self.decrease, 1 - (2 * bounded - 1) ** 3)
        return NielsenState(damping * factor, jnp.full_like(state.growth, 2))

    def rejected(self, state: NielsenState, damping, gain_ratio) -> NielsenState:
        return NielsenState(damping * state.growth, 2 * state.growth)


def _check_positive(value: Scalar, name: str) -> None:
    if isinstance(value, float | int) and not value > 0:
        raise ValueError(
            f"`{name}` must be positive (it is a fraction of the largest eigenvalue of the Gram "
            f"matrix); got {value}."
        )


def _check_between(value: Scalar, name: str, low: float, high: float) -> None:
    if isinstance(value, float | int) and not low < value <= high:
        raise ValueError(f"`{name}` must be above {low} and at most {high}; got {value}.")


def _check_above(value: Scalar, name: str, low: float) -> None:
    if isinstance(value, float | int) and not value > low:
        raise ValueError(f"`{name}` must be larger than {low}; got {value}.")
