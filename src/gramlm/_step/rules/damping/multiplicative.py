"""Rules that multiply λ by fixed factors, or leave it alone."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...._core.arrays import Scalar
from ...._core.checks import check_above, check_between, check_positive
from ...._linear.solver.base import FoundDamping
from ..trial import Trial
from .base import (
    OF_LARGEST,
    AbstractDamping,
    AbstractStepLengths,
)


class Constant(AbstractDamping[Float[Array, ""]]):
    """λ = `initial`·λmax(K of the first Jacobian), throughout.

    A rejected trial has nothing else to try, so the solve ends there.
    """

    initial: Scalar = 1e-5

    def __check_init__(self):
        check_positive(self.initial, "initial", OF_LARGEST)

    def init(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.initial * largest_eigenvalue)

    def propose(self, state: Float[Array, ""], lengths: AbstractStepLengths) -> FoundDamping:
        return lengths.at(state)

    def accepted(self, state: Float[Array, ""], trial: Trial) -> Float[Array, ""]:
        return state

    def rejected(self, state: Float[Array, ""], trial: Trial) -> Float[Array, ""]:
        return state

    def with_damping(self, state: Float[Array, ""], damping: Float[Array, ""]) -> Float[Array, ""]:
        return damping


class Multiplicative(AbstractDamping[Float[Array, ""]]):
    """λ × `decrease` after success, λ × `increase` after failure (Marquardt 1963).

    `initial` is λ₀ over λmax(K). A rejected trial costs no Jacobian, so that λ₀ may be too small
    without much harm.
    """

    decrease: Scalar = 0.1
    increase: Scalar = 10.0
    initial: Scalar = 1e-5

    def __check_init__(self):
        check_positive(self.initial, "initial", OF_LARGEST)
        check_between(self.decrease, "decrease", 0.0, 1.0, closed="high")
        check_above(self.increase, "increase", 1.0)

    def init(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.initial * largest_eigenvalue)

    def propose(self, state: Float[Array, ""], lengths: AbstractStepLengths) -> FoundDamping:
        return lengths.at(state)

    def accepted(self, state: Float[Array, ""], trial: Trial) -> Float[Array, ""]:
        return trial.damping * self.decrease

    def rejected(self, state: Float[Array, ""], trial: Trial) -> Float[Array, ""]:
        return trial.damping * self.increase

    def with_damping(self, state: Float[Array, ""], damping: Float[Array, ""]) -> Float[Array, ""]:
        return damping


class DelayedGratification(AbstractDamping[Float[Array, ""]]):
    """Cautious: λ ÷ `decrease` after success, and only × `increase`, a little, after failure.

    Steps stay barely shorter than what would be rejected, which keeps clear of the boundary of
    the model manifold (Transtrum and Sethna 2012, section on delayed gratification).
    `initial` is λ₀ over λmax(K).
    """

    decrease: Scalar = 5.0
    increase: Scalar = 1.5
    initial: Scalar = 1e-5

    def __check_init__(self):
        check_positive(self.initial, "initial", OF_LARGEST)
        check_above(self.decrease, "decrease", 1.0)
        check_above(self.increase, "increase", 1.0)

    def init(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.initial * largest_eigenvalue)

    def propose(self, state: Float[Array, ""], lengths: AbstractStepLengths) -> FoundDamping:
        return lengths.at(state)

    def accepted(self, state: Float[Array, ""], trial: Trial) -> Float[Array, ""]:
        return trial.damping / self.decrease

    def rejected(self, state: Float[Array, ""], trial: Trial) -> Float[Array, ""]:
        return trial.damping * self.increase

    def with_damping(self, state: Float[Array, ""], damping: Float[Array, ""]) -> Float[Array, ""]:
        return damping


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
    `initial` is λ₀ over λmax(K).
    """

    initial: Scalar = 1e-5
    decrease: Scalar = 1 / 3

    def __check_init__(self):
        check_positive(self.initial, "initial", OF_LARGEST)
        check_between(self.decrease, "decrease", 0.0, 1.0, closed="high")

    def init(self, largest_eigenvalue: Float[Array, ""]) -> NielsenState:
        damping = jnp.asarray(self.initial * largest_eigenvalue)
        return NielsenState(damping, jnp.asarray(2.0, damping.dtype))

    def propose(self, state: NielsenState, lengths: AbstractStepLengths) -> FoundDamping:
        return lengths.at(state.damping)

    def accepted(self, state: NielsenState, trial: Trial) -> NielsenState:
        bounded = jnp.clip(trial.gain_ratio, 0.0, 1.0)
        factor = jnp.maximum(self.decrease, 1 - (2 * bounded - 1) ** 3)
        return NielsenState(trial.damping * factor, jnp.full_like(state.growth, 2))

    def rejected(self, state: NielsenState, trial: Trial) -> NielsenState:
        return NielsenState(trial.damping * state.growth, 2 * state.growth)

    def with_damping(self, state: NielsenState, damping: Float[Array, ""]) -> NielsenState:
        return NielsenState(damping, jnp.full_like(state.growth, 2))
