"""SciPy's `least_squares`: MINPACK's "lm" and the reflective trust region "trf".

Residual and Jacobian come from JAX, compiled. SciPy has no step to call, so the account is taken
where it asks for a Jacobian: everything since the last one is a step. Both methods compute
Jacobians at accepted points only, and the cost at the next one is what the last one led to.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import least_squares
from scipy.sparse.linalg import LinearOperator

from ..harness.drive import Budget, Progress, Trace, Watch
from ..harness.instance import Instance
from ..harness.record import Record


class _Stop(Exception):  # noqa: N818 -- it is no error
    """Ends SciPy's loop from inside a callback."""


class _Account:
    """Times and counts the calls that SciPy makes."""

    def __init__(self, trace: Trace, unravel: Callable):
        self.trace, self.unravel = trace, unravel
        self.residual_fn: Callable = np.asarray
        self.jacobian_fn: Callable = np.asarray
        self.timed = False
        self.jacobians = self.evaluations = self.products = 0
        self.watch = Watch()
        self.best = np.inf
        self.params: Any = None

    def residual(self, theta: np.ndarray) -> np.ndarray:
        value = np.asarray(self.residual_fn(theta), np.float64)
        self.evaluations += 1
        cost = 0.5 * float(value @ value)
        if cost < self.best or self.params is None:
            self.best, self.params = cost, theta.copy()
        return value

    def jacobian(self, theta: np.ndarray) -> Any:
        if self.jacobians:
            self.close()
        self.jacobians += 1
        return self.jacobian_fn(theta)

    def tick(self) -> None:
        """Count a product; end the run where a step outlasts what is left of its time."""
        self.products += 1
        seconds = (self.trace.record.wall_seconds or [0.0])[-1] + self.watch.read()[1]
        if self.timed and seconds > self.trace.budget.seconds:
            self.trace.record.stopped = "time"
            raise _Stop

    def begin(self) -> None:
        """Forget the calls that compiled; the time counts from here."""
        self.products = self.evaluations = 0
        self.timed = True
        self.watch.restart()

    def close(self) -> None:
        """End the step of the last Jacobian."""
        process, wall = self.watch.read()
        progress = Progress(self.best, self.jacobians, self.evaluations, self.products or None)
        if self.trace.add(progress, self.unravel(self.params), process, wall):
            raise _Stop
        self.watch.restart()


def _product(
    residual: Callable, shape: tuple[int, int], dtype: Any, tick: Callable[[], None]
) -> Callable[[np.ndarray], LinearOperator]:
    """J at a point as a matrix-free operator of compiled products; each calls `tick` first."""
    jvp = jax.jit(lambda theta, v: jax.jvp(residual, (theta,), (v,))[1])
    vjp = jax.jit(lambda theta, u: jax.vjp(residual, theta)[1](u)[0])

    def operator(theta: np.ndarray) -> LinearOperator:
        point = jnp.asarray(theta, dtype)

        def apply(product: Callable, vector: np.ndarray) -> np.ndarray:
            tick()
            return np.asarray(product(point, jnp.asarray(vector.ravel(), dtype)), np.float64)

        return LinearOperator(
            shape,
            matvec=lambda v: apply(jvp, v),
            rmatvec=lambda u: apply(vjp, u),
            dtype=np.float64,
        )

    return operator


def run(
    instance: Instance,
    budget: Budget,
    *,
    method: str = "trf",
    x_scale: Any = 1.0,
    dense: bool = True,
) -> tuple[Record, Any]:
    """Run "lm" with a dense Jacobian, or "trf" with `lsmr` on a dense or matrix-free one."""
    trace = Trace(instance, budget)
    trace.begin()
    watch = Watch()
    flat, unravel = ravel_pytree(instance.params)
    count, size = trace.record.residuals, trace.record.parameters

    def flat_residual(theta: Any, args: Any) -> Any:
        return instance.residual_fn(unravel(jnp.asarray(theta, flat.dtype)), args)

    compiled = jax.jit(flat_residual)
    make = jax.jit((jax.jacrev if size > count else jax.jacfwd)(flat_residual))
    start = np.asarray(flat, np.float64)
    account = _Account(trace, unravel)
    if dense:

        def jacobian(theta: np.ndarray) -> Any:
            return np.asarray(make(theta, instance.args), np.float64)
    else:
        jacobian = _product(
            lambda theta: flat_residual(theta, instance.args),
            (count, size),
            flat.dtype,
            account.tick,
        )

    def residual(theta: np.ndarray) -> Any:
        return compiled(theta, instance.args)

    residual(start)
    first = jacobian(start)
    if not dense:
        first.rmatvec(first.matvec(start))
    trace.record.compile_process_seconds, trace.record.compile_seconds = watch.read()
    trace.record.setup_process_seconds = trace.record.setup_seconds = 0.0

    account.residual_fn, account.jacobian_fn = residual, jacobian
    extra: dict[str, Any] = {} if method == "lm" else {"tr_solver": "lsmr"}
    try:
        account.begin()
        least_squares(
            account.residual,
            start,
            jac=account.jacobian,
            method=method,
            x_scale=x_scale,
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=100 * budget.jacobians,
            **extra,
        )
        account.close()
        trace.record.stopped = trace.record.stopped or "its own tests"
    except _Stop:
        pass
    return trace.record, unravel(jnp.asarray(account.params, flat.dtype))
