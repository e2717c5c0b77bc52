"""One entry of a suite. No JAX here: the parent process reads it."""

from dataclasses import dataclass, field
from typing import Any

OURS, NLLS, OPTX, SCIPY, JAXOPT = (
    "harness.ours",
    "peers.nlls_gram",
    "peers.optimistix",
    "peers.scipy",
    "peers.jaxopt",
)


@dataclass(frozen=True)
class Case:
    """One process of a suite; `adapter` is a module of `benchmarks`.

    It ends at the first of its limits: Jacobians, wall seconds, a cost, a cost relative to that of
    the start, a metric. `warm_up` makes one step before the measured run, and throws it away.
    """

    problem: str
    solver: str
    adapter: str
    settings: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float64"
    jacobians: int = 100
    seconds: float = 30.0
    cost: float = 0.0
    relative: float = 0.0
    metric: float = 0.0
    warm_up: bool = True

    def request(self, scale: float, quick: bool) -> dict[str, Any]:
        """What the worker is told; `scale` multiplies the seconds."""
        jacobians = min(self.jacobians, 3) if quick else self.jacobians
        budget = {
            "jacobians": jacobians,
            "seconds": self.seconds * scale,
            "cost": self.cost,
            "relative": self.relative,
            "metric": self.metric,
            "warm_up": self.warm_up,
        }
        return {
            "problem": self.problem,
            "solver": self.solver,
            "adapter": self.adapter,
            "settings": self.settings,
            "dtype": self.dtype,
            "budget": budget,
        }
