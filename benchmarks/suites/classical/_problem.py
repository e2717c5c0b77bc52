"""A classical problem: a residual, where to start, and the costs that count as solved."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Classical:
    """Minimise `½‖r(θ)‖²` from a published start.

    - `name`: the usual label, "mgh01", "tp205", with the size where there are several;
      `title`: its name in words; `source`: where the formula is from.
    - `residual`: (p,) → (n,), in JAX, in whatever dtype it is given, with no state.
    - `start`: the published starting point, (p,).
    - `best`: the lowest known cost `½‖r‖²`, or the infimum where it is not attained.
    - `local`: costs of other known local minima, and of infima at infinity.
    """

    name: str
    title: str
    source: str
    residual: Callable[[Any], Any]
    start: tuple[float, ...]
    best: float
    local: tuple[float, ...] = ()

    def scaled_start(self, factor: float) -> np.ndarray:
        """The start times a factor; the factor itself where the start is 0, as in MINPACK."""
        start = np.asarray(self.start, float)
        if factor == 1 or start.any():
            return start * factor
        return np.full_like(start, factor)

    def solved(self, cost: float, relative: float = 1e-6, absolute: float = 1e-10) -> bool:
        """Whether a cost is that of the best known, or a known local, minimum."""
        known = (self.best, *self.local)
        return any(abs(cost - c) <= max(relative * c, absolute) for c in known) or (
            cost <= self.best * (1 + relative) + absolute
        )
