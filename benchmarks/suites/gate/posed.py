"""A row of the gate: a problem, how it is handed to gramlm, and when it counts as solved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gramlm

from ...harness.instance import Instance


@dataclass(frozen=True)
class Posed:
    """One problem as gramlm gets it.

    - `declared`: whether the rows of the residual are declared.
    - `conditions`: loss, weights and bounds, as keywords of `gramlm.Problem`.
    - `max_steps`: Jacobians. Where they end the solve, the cost by then is what is compared.
    - `level`: the cost below which all costs are equally good.
    """

    instance: Instance
    declared: bool = False
    solver: gramlm.LevenbergMarquardt = gramlm.LevenbergMarquardt()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    max_steps: int = 1000
    level: float = 0.0

    @property
    def residual(self) -> Any:
        """What `gramlm.solve` and `step` take as the residual, conditions included."""
        residual: Any = self.instance.residual_fn
        if self.declared:
            assert self.instance.rows is not None
            residual = gramlm.Rows(*self.instance.rows[0])
        return gramlm.Problem(residual, **self.conditions) if self.conditions else residual

    @property
    def args(self) -> Any:
        """The data that go with `residual`."""
        if not self.declared:
            return self.instance.args
        assert self.instance.rows is not None
        return self.instance.rows[1]
