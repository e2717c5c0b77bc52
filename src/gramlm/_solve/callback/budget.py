"""How much a solve may spend, and what is left of it."""

import math
from dataclasses import dataclass

from ..._core.results import RESULTS


@dataclass(frozen=True)
class Remaining:
    """What is left of the budgets.

    - `steps`; `evaluations` and `seconds`, None where there is no limit.
    - `fraction`: of the budget of which least is left, between 0 and 1.
    """

    steps: int
    evaluations: int | None
    seconds: float | int | None
    fraction: float


@dataclass(frozen=True)
class Budget:
    """The limits of a solve, None for none; `seconds` those of this call, the others in all."""

    steps: int
    evaluations: int | None = None
    seconds: float | int | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"`max_steps` must be at least 1; got {self.steps}.")
        if self.evaluations is not None and self.evaluations < 1:
            raise ValueError(
                f"`max_evaluations` must be at least 1, or None for no limit; got "
                f"{self.evaluations}."
            )
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(
                f"`max_seconds` must be positive and finite, or None for no limit; got "
                f"{self.seconds}."
            )

    def __str__(self) -> str:
        parts = [f"{self.steps} steps"]
        if self.evaluations is not None:
            parts.append(f"{self.evaluations} evaluations")
        if self.seconds is not None:
            parts.append(f"{self.seconds:g} s")
        return ", ".join(parts)

    def spent(self, steps: int, evaluations: int, seconds: float) -> RESULTS | None:
        """Which of the limits so many have reached; None while there is something left."""
        if steps >= self.steps:
            return RESULTS.nonlinear_max_steps_reached
        if self.evaluations is not None and evaluations >= self.evaluations:
            return RESULTS.evaluation_limit_reached
        if self.seconds is not None and seconds >= self.seconds:
            return RESULTS.time_limit_reached
        return None

    def remaining(self, steps: int, evaluations: int, seconds: float) -> Remaining:
        """What is left after so many."""
        left = max(self.steps - steps, 0)
        fractions = [left / self.steps]
        evaluations_left = seconds_left = None
        if self.evaluations is not None:
            evaluations_left = max(self.evaluations - evaluations, 0)
            fractions.append(evaluations_left / self.evaluations)
        if self.seconds is not None:
            seconds_left = max(self.seconds - seconds, 0.0)
            fractions.append(seconds_left / self.seconds)
        return Remaining(left, evaluations_left, seconds_left, min(fractions))
