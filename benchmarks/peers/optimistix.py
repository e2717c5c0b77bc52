"""Optimistix's `LevenbergMarquardt` (and its trust-region sibling), by its `init` and `step`.

Each of its steps evaluates and linearises the residual at the last proposal, then proposes the
next. So the cost that its k-th linearisation leads to is known one step later: the first step,
which only evaluates the start, is made before the clock of the record starts to count Jacobians.
An iteration of LSMR is two products with J, and the start of a solve two more.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx

from ..harness.drive import Budget, Progress, drive
from ..harness.instance import Instance
from ..harness.record import Record


class _Counter:
    """What the linear solves of a run took, told from inside the compiled step."""

    def __init__(self) -> None:
        self.iterations = self.solves = 0

    def __call__(self, iterations: Any) -> None:
        self.iterations += int(iterations)
        self.solves += 1


class _Counted(lx.AbstractLinearSolver):
    """A solver that reports its iterations: Optimistix drops the statistics of lineax."""

    solver: lx.AbstractLinearSolver
    counter: _Counter = eqx.field(static=True)

    def init(self, operator: Any, options: dict[str, Any]) -> Any:
        return self.solver.init(operator, options)

    def compute(self, state: Any, vector: Any, options: dict[str, Any]) -> Any:
        solution, result, statistics = self.solver.compute(state, vector, options)
        jax.debug.callback(self.counter, statistics["num_steps"])
        return solution, result, statistics

    def transpose(self, state: Any, options: dict[str, Any]) -> Any:
        return self.solver.transpose(state, options)

    def conj(self, state: Any, options: dict[str, Any]) -> Any:
        return self.solver.conj(state, options)

    def assume_full_rank(self) -> bool:
        return self.solver.assume_full_rank()


class _Run:
    def __init__(
        self, step: Callable, params: Any, state: Any, args: Any, counter: _Counter | None
    ) -> None:
        self.step, self.params, self.state, self.args = step, params, state, args
        self.steps = self.products = self.iterations = 0
        self.counter = counter
        if counter is not None:
            counter.iterations = counter.solves = 0

    def advance(self) -> None:
        if self.counter is not None:
            # What led to the cost that this step finds; its own solve leads to the next.
            jax.effects_barrier()
            self.iterations = self.counter.iterations
            self.products = 2 * (self.counter.iterations + self.counter.solves)
        self.params, self.state, self.cost = jax.block_until_ready(
            self.step(self.params, self.state, self.args)
        )
        self.steps += 1

    def progress(self) -> Progress:
        steps = max(self.steps - 1, 1)
        if self.counter is None:
            return Progress(float(self.cost), steps, steps)
        return Progress(float(self.cost), steps, steps, self.products, self.iterations)


def run(
    instance: Instance,
    budget: Budget,
    *,
    linear: str = "qr",
    rtol: float = 1e-6,
    jac: str = "fwd",
    indirect: bool = False,
    maxiter: int | None = None,
) -> tuple[Record, Any]:
    """Run it with lineax's "qr", or "lsmr" to the relative tolerance `rtol`.

    `maxiter` bounds the iterations of LSMR: a solve that they end is taken as it is.
    """
    if linear == "qr":
        algebra: Any = lx.QR()
        counter = None
    else:
        # The absolute tolerance must not be reached first when the residual is small.
        counter = _Counter()
        algebra = _Counted(lx.LSMR(rtol=rtol, atol=1e-14, max_steps=maxiter), counter)
    method = optx.IndirectLevenbergMarquardt if indirect else optx.LevenbergMarquardt
    solver = method(rtol=0.0, atol=0.0, linear_solver=algebra)

    def residual(params: Any, args: Any) -> tuple[Any, None]:
        return instance.residual_fn(params, args), None

    options = {"jac": jac}
    tags: frozenset = frozenset()
    shapes, aux = jax.eval_shape(residual, instance.params, instance.args)

    def step(params: Any, state: Any, args: Any) -> tuple[Any, Any, Any]:
        params, state, _ = solver.step(residual, params, args, options, state, tags)
        kept = state.f_info.residual
        return params, state, 0.5 * jnp.vdot(kept, kept)

    def compile_run() -> Callable[[], _Run]:
        init = eqx.filter_jit(solver.init)
        state = init(residual, instance.params, instance.args, options, shapes, aux, tags)
        arguments = (instance.params, state, instance.args)
        compiled = eqx.filter_jit(step).lower(*arguments).compile()
        return lambda: _Run(compiled, *arguments, counter)

    return drive(compile_run, instance, budget)
