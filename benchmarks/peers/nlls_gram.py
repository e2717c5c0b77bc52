"""nlls-gram's `LevenbergMarquardt`, through its public `init` and `update`.

Its caches travel in the state, which is donated to the compiled step; without that the dense
step copies J once more. A rejected dense step keeps the cached Jacobian and counts none, while a
matrix-free one linearises again and counts one.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import nlls_gram
from jax.flatten_util import ravel_pytree

from .._drive import Budget, Progress, drive
from .._instance import Instance
from .._record import Record


def _sketch(params: Any, args: Any, *, instance: Instance, rank: int) -> Any:
    """The Nyström preconditioner of `J Jᵀ` at these parameters."""
    flat, unravel = ravel_pytree(params)
    value, jvp = jax.linearize(lambda theta: instance.residual_fn(unravel(theta), args), flat)
    transpose = jax.linear_transpose(jvp, flat)

    def product(block: Any) -> Any:
        return jax.vmap(lambda v: jvp(transpose(v)[0]), in_axes=1, out_axes=1)(block)

    return nlls_gram.NystromPreconditioner(product, value.size, rank, jax.random.key(0), flat.dtype)


class _Run:
    def __init__(
        self, step: Callable, params: Any, state: Any, args: Any, dense: bool, refresh: int
    ) -> None:
        self.step, self.params, self.state, self.args = step, params, state, args
        self.dense, self.refresh = dense, refresh
        self.steps = self.jacobians = self.evaluations = 0
        self.fresh = True

    def advance(self) -> None:
        # The first sketch was made with the state.
        renew = self.steps > 0 and self.steps % self.refresh == 0
        self.params, self.state, self.info = jax.block_until_ready(
            self.step(self.params, self.state, self.args, jnp.asarray(renew))
        )
        self.steps += 1

    def progress(self) -> Progress:
        self.jacobians += self.fresh or not self.dense
        self.fresh = bool(self.info.accepted)
        # One trial for the velocity, another for the accelerated step where its ratio passes.
        ratio = float(self.info.acceleration_ratio)
        self.evaluations += 1 + (0.0 < ratio <= 0.75)
        return Progress(0.5 * float(self.info.loss), self.jacobians, self.evaluations)


def run(
    instance: Instance,
    budget: Budget,
    *,
    linear: str = "cholesky",
    geodesic: bool = True,
    decrease: float = 0.5,
    increase: float = 4.0,
    damping: float = 1e-3,
    tol: float | None = None,
    maxiter: int | None = None,
    rank: int = 100,
    refresh: int = 10,
) -> tuple[Record, Any]:
    """Run it with one of its linear solvers: "cholesky", "qr", "cg" or "nystrom".

    "cg" is `GramCG` without and "nystrom" with a preconditioner, which is sketched anew every
    `refresh` steps at the running parameters; the sketch's time is part of the step.
    """
    sketch = partial(_sketch, instance=instance, rank=rank)
    dense = linear in ("cholesky", "qr")
    if linear == "cholesky":
        config: Any = nlls_gram.Cholesky()
    elif linear == "qr":
        config = nlls_gram.QR()
    elif linear == "cg":
        config = nlls_gram.GramCG(nlls_gram.IdentityPreconditioner(), tol=tol, maxiter=maxiter)
    else:
        first = jax.jit(sketch)(instance.params, instance.args)
        config = nlls_gram.GramCG(first, tol=tol, maxiter=maxiter)

    solver = nlls_gram.LevenbergMarquardt(
        instance.residual_fn,
        init_damping=damping,
        damping_decrease=decrease,
        damping_increase=increase,
        linear_solver=config,
        geodesic_acceleration=geodesic,
    )

    def step(params: Any, state: Any, args: Any, renew: Any) -> Any:
        if linear == "nystrom":
            fresh = jax.lax.cond(renew, lambda: sketch(params, args), lambda: state.preconditioner)
            state = dataclasses.replace(state, preconditioner=fresh)
        return solver.update(params, state, args)

    def state() -> Any:
        # Copies, because the compiled step consumes them.
        return jax.tree.map(jnp.array, solver.init(instance.params, instance.args))

    def compile_run() -> Callable[[], _Run]:
        arguments = (instance.params, state(), instance.args, jnp.asarray(False))
        compiled = jax.jit(step, donate_argnums=1).lower(*arguments).compile()
        return lambda: _Run(compiled, instance.params, state(), instance.args, dense, refresh)

    return drive(compile_run, instance, budget)
