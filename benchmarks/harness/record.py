"""The uniform account of one solver on one problem. No JAX here: the parent process reads it."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Record:
    """One run, one entry per step in every list.

    Costs are `½‖r‖²` at the iterate kept after the step. `jacobians` counts linearisations so
    far, `evaluations` residuals evaluated at trial points so far, `products` vectors multiplied by
    J or Jᵀ, `inner_iterations` those of the linear solver (None where a peer does not say, or has
    none). Seconds are cumulative and hold neither compilation, nor the set-up before the first
    step, which has fields of its own, nor the evaluation of the metric.
    """

    problem: str = ""
    solver: str = ""
    dtype: str = ""
    residuals: int = 0
    parameters: int = 0
    initial_cost: float = math.nan
    initial_metric: float | None = None
    costs: list[float] = field(default_factory=list)
    jacobians: list[int] = field(default_factory=list)
    evaluations: list[int] | None = None
    products: list[int] | None = None
    inner_iterations: list[int] | None = None
    process_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    metrics: list[float] | None = None
    compile_seconds: float = math.nan
    compile_process_seconds: float = math.nan
    setup_seconds: float = math.nan
    setup_process_seconds: float = math.nan
    start_mib: float = math.nan
    peak_mib: float = math.nan
    stopped: str = ""
    error: str = ""

    def asdict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def fromdict(cls, data: dict[str, Any]) -> "Record":
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})

    @property
    def step_seconds(self) -> float:
        """Median process seconds of a step that computed a Jacobian; NaN without one."""
        return self._median(self.process_seconds)

    @property
    def step_wall_seconds(self) -> float:
        return self._median(self.wall_seconds)

    def _median(self, cumulative: list[float]) -> float:
        steps = [
            after - before
            for before, after, old, new in zip(
                [0.0, *cumulative],
                cumulative,
                [0, *self.jacobians],
                self.jacobians,
                strict=False,
            )
            if new > old
        ]
        return sorted(steps)[len(steps) // 2] if steps else math.nan

    def first_below(self, cost: float) -> int | None:
        """Index of the first step at or below this cost, or None."""
        return next((i for i, c in enumerate(self.costs) if c <= cost), None)

    def first_metric_below(self, level: float) -> int | None:
        return next((i for i, m in enumerate(self.metrics or []) if m <= level), None)

    def cost_within(self, jacobians: int) -> float:
        """The lowest cost reached with at most this many Jacobians."""
        within = [c for c, j in zip(self.costs, self.jacobians, strict=True) if j <= jacobians]
        return min(within, default=math.nan)
