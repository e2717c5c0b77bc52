"""gramlm through its `init` and `step`, with the residual plain or with its rows declared."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

import gramlm

from ._drive import Budget, Progress, drive
from ._instance import Instance
from ._record import Record


class _Run:
    def __init__(self, step: Callable, params: Any, state: Any, args: Any) -> None:
        self.step, self.params, self.state, self.args = step, params, state, args
        self.steps = 0
        self.evaluations = 0

    def advance(self) -> None:
        self.params, self.state, self.info = jax.block_until_ready(
            self.step(self.params, self.state, self.args)
        )
        self.steps += 1
        self.evaluations += int(self.info.evaluations)

    def progress(self) -> Progress:
        # A step is one Jacobian, whatever number of trials it holds.
        return Progress(float(self.info.cost), self.steps, self.evaluations)


def run(
    instance: Instance, budget: Budget, *, rows: bool = False, geodesic: bool = True
) -> tuple[Record, Any]:
    """Run it at its defaults, except for the correction when `geodesic` is off."""
    if rows:
        if instance.rows is None:
            raise ValueError("this problem has no row structure")
        functions, args = instance.rows
        residual_fn: Any = gramlm.Rows(*functions)
    else:
        residual_fn, args = instance.residual_fn, instance.args
    choices = {} if geodesic else {"correction": gramlm.NoCorrection()}
    solver = gramlm.LevenbergMarquardt(**choices)

    def step(params: Any, state: Any, args: Any) -> Any:
        return solver.step(residual_fn, params, state, args)

    def compile_run() -> Callable[[], _Run]:
        state = solver.init(residual_fn, instance.params, args)
        compiled = eqx.filter_jit(step).lower(instance.params, state, args).compile()
        return lambda: _Run(compiled, instance.params, state, args)

    return drive(compile_run, instance, budget)
