"""The measured loop: one step at a time, blocked until ready, timed by process and wall clock."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax

from .instance import Instance
from .record import Record


@dataclass(frozen=True)
class Budget:
    """When a run ends: whichever comes first. Levels of 0 are off; `relative` is to the start.

    Without `warm_up` the step that is thrown away is left out, for steps of minutes.
    """

    jacobians: int
    seconds: float
    cost: float = 0.0
    relative: float = 0.0
    metric: float = 0.0
    warm_up: bool = True


@dataclass(frozen=True)
class Progress:
    """What a run knows after a step: `Record` says what is counted."""

    cost: Any
    jacobians: int
    evaluations: int | None = None
    products: int | None = None
    inner_iterations: int | None = None


class Run(Protocol):
    """A solver under way. `advance` makes one step and blocks until it is done."""

    params: Any

    def advance(self) -> None: ...

    def progress(self) -> Progress: ...


class Watch:
    """Process and wall seconds since it was made, or since `restart`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.process, self.wall = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        return time.process_time() - self.process, time.perf_counter() - self.wall


@dataclass
class Trace:
    """Collects a run into a `Record` and says when to stop; every peer writes through it."""

    instance: Instance
    budget: Budget
    record: Record = field(default_factory=Record)

    def begin(self) -> None:
        """Note the cost, the metric and the sizes at the start."""
        residual = self.instance.residual_fn(self.instance.params, self.instance.args)
        self.record.initial_cost = 0.5 * float(residual @ residual)
        self.record.residuals = residual.size
        self.record.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.instance.params))
        if self.instance.metric is not None:
            self.record.initial_metric = self.instance.metric(self.instance.params)
            self.record.metrics = []

    def add(self, progress: Progress, params: Any, process: float, wall: float) -> bool:
        """Append a step that took these seconds; True when the run should end."""
        record = self.record
        cost = float(progress.cost)
        record.costs.append(cost)
        record.jacobians.append(progress.jacobians)
        record.process_seconds.append(process + (record.process_seconds or [0.0])[-1])
        record.wall_seconds.append(wall + (record.wall_seconds or [0.0])[-1])
        for name in ("evaluations", "products", "inner_iterations"):
            count = getattr(progress, name)
            if count is not None:
                setattr(record, name, [*(getattr(record, name) or []), int(count)])
        if self.instance.metric is not None and record.metrics is not None:
            record.metrics.append(self.instance.metric(params))
        record.stopped = self._reason()
        return bool(record.stopped)

    def _reason(self) -> str:
        record, budget = self.record, self.budget
        if not math.isfinite(record.costs[-1]):
            return "not finite"
        if record.costs[-1] <= max(budget.cost, budget.relative * record.initial_cost):
            return "cost"
        if record.metrics and record.metrics[-1] <= budget.metric:
            return "metric"
        if record.jacobians[-1] >= budget.jacobians:
            return "Jacobians"
        return "time" if record.wall_seconds[-1] >= budget.seconds else ""


def drive(
    compile_run: Callable[[], Callable[[], Run]], instance: Instance, budget: Budget
) -> tuple[Record, Any]:
    """Compile, warm up with one step that is thrown away, then run under the budget.

    `compile_run()` compiles and returns a function that starts a new run. Whatever a solver
    prepares before its first step belongs into that function, whose time is the set-up.
    """
    trace = Trace(instance, budget)
    trace.begin()
    watch = Watch()
    start = compile_run()
    trace.record.compile_process_seconds, trace.record.compile_seconds = watch.read()
    if budget.warm_up:
        start().advance()

    watch.restart()
    run = start()
    trace.record.setup_process_seconds, trace.record.setup_seconds = watch.read()
    while True:
        watch.restart()
        run.advance()
        process, wall = watch.read()
        if trace.add(run.progress(), run.params, process, wall):
            return trace.record, run.params
