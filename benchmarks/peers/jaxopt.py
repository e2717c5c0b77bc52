"""JAXopt's `LevenbergMarquardt`, which forms the p × p normal equations.

Its update computes the Jacobian of the candidate whether or not the step is accepted, so every
step counts one. With geodesic acceleration it forms all second derivatives, (n, p, p): only the
smallest problems are given that.
"""

from collections.abc import Callable
from typing import Any

import jax
import jaxopt
from jax.flatten_util import ravel_pytree

from ..harness.drive import Budget, Progress, drive
from ..harness.instance import Instance
from ..harness.record import Record


class _Run:
    def __init__(self, step: Callable, unravel: Callable, theta: Any, state: Any, args: Any):
        self.step, self.unravel, self.args = step, unravel, args
        self.theta, self.state = theta, state
        self.steps = 0

    def advance(self) -> None:
        self.theta, self.state = jax.block_until_ready(self.step(self.theta, self.state, self.args))
        self.steps += 1

    @property
    def params(self) -> Any:
        return self.unravel(self.theta)

    def progress(self) -> Progress:
        return Progress(float(self.state.value), self.steps, self.steps)


def run(
    instance: Instance,
    budget: Budget,
    *,
    linear: str = "qr",
    geodesic: bool = False,
    damping: float = 1e-6,
) -> tuple[Record, Any]:
    """Run it with a materialised Jacobian and "qr" or "cholesky"."""
    theta, unravel = ravel_pytree(instance.params)
    solver = jaxopt.LevenbergMarquardt(
        residual_fun=lambda flat, args: instance.residual_fn(unravel(flat), args),
        solver=linear,
        geodesic=geodesic,
        damping_parameter=damping,
        materialize_jac=True,
        implicit_diff=False,
        tol=0.0,
        jit=True,
    )

    def compile_run() -> Callable[[], _Run]:
        state = jax.jit(solver.init_state)(theta, instance.args)
        compiled = jax.jit(solver.update)
        # Twice, because the weak types of the initial state make the first step another program.
        after = compiled(theta, state, instance.args)
        jax.block_until_ready(compiled(*after, instance.args))
        return lambda: _Run(compiled, unravel, theta, state, instance.args)

    return drive(compile_run, instance, budget)
