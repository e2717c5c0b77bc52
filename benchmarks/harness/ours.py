"""gramlm through its `init` and `step`, with the residual plain or with its rows declared."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

import gramlm

from .drive import Budget, Progress, drive
from .instance import Instance
from .record import Record


class _Run:
    def __init__(self, step: Callable, params: Any, state: Any, args: Any) -> None:
        self.step, self.params, self.state, self.args = step, params, state, args
        self.steps = self.evaluations = self.products = self.inner_iterations = 0

    def advance(self) -> None:
        self.params, self.state, self.info = jax.block_until_ready(
            self.step(self.params, self.state, self.args)
        )
        self.steps += 1
        self.evaluations += int(self.info.evaluations)
        self.products += int(self.info.products)
        self.inner_iterations += int(self.info.inner_iterations)

    def progress(self) -> Progress:
        # A step is one Jacobian, whatever number of trials it holds.
        return Progress(
            cost=float(self.info.cost),
            jacobians=self.steps,
            evaluations=self.evaluations,
            products=self.products,
            inner_iterations=self.inner_iterations,
        )


def run(
    instance: Instance,
    budget: Budget,
    *,
    rows: bool = False,
    geodesic: bool = True,
    fields: dict[str, str] | None = None,
) -> tuple[Record, Any]:
    """Run it at its defaults, except for the correction when `geodesic` is off, and `fields`.

    `fields` names, for fields of the solver, classes of gramlm that need no arguments:
    `{"memory": "RowBlocks"}`.
    """
    if rows:
        if instance.rows is None:
            raise ValueError("this problem has no row structure")
        functions, args = instance.rows
        residual_fn: Any = gramlm.Rows(*functions)
    else:
        residual_fn, args = instance.residual_fn, instance.args
    choices = {name: getattr(gramlm, kind)() for name, kind in (fields or {}).items()}
    if not geodesic:
        choices["correction"] = None
    chosen = gramlm.LevenbergMarquardt(**choices)

    def compile_run() -> Callable[[], _Run]:
        # Planning may time products with J, which counts as compilation.
        solver = chosen.following(chosen.plan(residual_fn, instance.params, args))

        def init(params: Any, args: Any) -> Any:
            return solver.init(residual_fn, params, args)

        def step(params: Any, state: Any, args: Any) -> Any:
            return solver.step(residual_fn, params, state, args)

        prepare = eqx.filter_jit(init).lower(instance.params, args).compile()
        state = prepare(instance.params, args)
        compiled = eqx.filter_jit(step).lower(instance.params, state, args).compile()

        def start() -> _Run:
            state = jax.block_until_ready(prepare(instance.params, args))
            return _Run(compiled, instance.params, state, args)

        return start

    return drive(compile_run, instance, budget)
