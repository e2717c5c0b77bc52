"""Optimistix's `LevenbergMarquardt` (and its trust-region sibling), by its `init` and `step`.

Each of its steps evaluates and linearises the residual at the last proposal, then proposes the
next. So the cost that its k-th linearisation leads to is known one step later: the first step,
which only evaluates the start, is made before the clock of the record starts to count Jacobians.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx

from .._drive import Budget, Progress, drive
from .._instance import Instance
from .._record import Record


class _Run:
    def __init__(self, step: Callable, params: Any, state: Any, args: Any) -> None:
        self.step, self.params, self.state, self.args = step, params, state, args
        self.steps = 0

    def advance(self) -> None:
        self.params, self.state, self.cost = jax.block_until_ready(
            self.step(self.params, self.state, self.args)
        )
        self.steps += 1

    def progress(self) -> Progress:
        return Progress(float(self.cost), max(self.steps - 1, 1), max(self.steps - 1, 1))


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
    """Run it with lineax's "qr", or "lsmr" to the relative tolerance `rtol`."""
    if linear == "qr":
        algebra: Any = lx.QR()
    else:
        # The absolute tolerance must not be reached first when the residual is small.
        algebra = lx.LSMR(rtol=rtol, atol=1e-14, max_steps=maxiter)
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
        return lambda: _Run(compiled, *arguments)

    return drive(compile_run, instance, budget)
