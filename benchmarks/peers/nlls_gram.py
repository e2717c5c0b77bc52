"""nlls-gram's `LevenbergMarquardt`, through its public `init` and `update`.

Its caches travel in the state, which is donated to the compiled step; without that the dense
step copies J once more. A rejected dense step keeps the cached Jacobian and counts none, while a
matrix-free one linearises again and counts one.

Its `LMInfo` says nothing of inner iterations, so the preconditioner counts its own applications
by a callback: one before the first iteration of a solve, and one an iteration. A call took 0.07 ms
on two cores, a percent or less of an iteration on most problems. An application stands for one
product with `J Jᵀ`; the step and the gradient add one product each.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import nlls_gram
from jax.flatten_util import ravel_pytree

from ..harness.drive import Budget, Progress, drive
from ..harness.instance import Instance
from ..harness.record import Record


def _sketch(params: Any, args: Any, *, instance: Instance, rank: int, block: bool) -> Any:
    """The Nyström preconditioner of `J Jᵀ` at these parameters.

    By the block its products are matrix products where J is linear in stored or evaluated
    features: 64 vectors took 20 times less than one by one for a kernel problem. With trainable
    centres they are not, and one by one took half.
    """
    flat, unravel = ravel_pytree(params)
    value, jvp = jax.linearize(lambda theta: instance.residual_fn(unravel(theta), args), flat)
    transpose = jax.linear_transpose(jvp, flat)

    def one(vector: Any) -> Any:
        return jvp(transpose(vector)[0])

    def product(columns: Any) -> Any:
        return (jax.vmap(one)(columns.T) if block else jax.lax.map(one, columns.T)).T

    return nlls_gram.NystromPreconditioner(product, value.size, rank, jax.random.key(0), flat.dtype)


class _Counter:
    """How often a preconditioner was applied, told from inside the compiled step."""

    def __init__(self) -> None:
        self.applications = 0

    def __call__(self) -> None:
        self.applications += 1


@dataclasses.dataclass(frozen=True, eq=False)
class _Counted(nlls_gram.Preconditioner):
    inner: nlls_gram.Preconditioner
    counter: _Counter

    def apply(self, v: Any, damping: Any, ctx: Any) -> Any:
        jax.debug.callback(self.counter)
        return self.inner.apply(v, damping, ctx)


nlls_gram.register_pytree_dataclass(_Counted, data_fields=("inner",), meta_fields=("counter",))


@dataclasses.dataclass(frozen=True)
class _Krylov:
    """What a matrix-free step costs beside its inner iterations.

    `solves`: inner solves a step; `sketch`: products with J of one sketch, made every `refresh`
    steps.
    """

    counter: _Counter
    solves: int
    sketch: int


class _Run:
    def __init__(
        self, step: Callable, params: Any, state: Any, args: Any, krylov: _Krylov | None,
        refresh: int,
    ) -> None:  # fmt: skip
        self.step, self.params, self.state, self.args = step, params, state, args
        self.krylov, self.refresh = krylov, refresh
        self.steps = self.jacobians = self.evaluations = self.sketches = 0
        self.fresh = True
        if krylov is not None:
            krylov.counter.applications = 0

    def advance(self) -> None:
        # The first sketch was made with the state.
        renew = self.steps > 0 and self.steps % self.refresh == 0
        self.params, self.state, self.info = jax.block_until_ready(
            self.step(self.params, self.state, self.args, jnp.asarray(renew))
        )
        self.steps += 1
        self.sketches += renew or self.steps == 1

    def progress(self) -> Progress:
        self.jacobians += self.fresh or self.krylov is not None
        self.fresh = bool(self.info.accepted)
        # One trial for the velocity, another for the accelerated step where its ratio passes.
        ratio = float(self.info.acceleration_ratio)
        self.evaluations += 1 + (0.0 < ratio <= 0.75)
        cost = 0.5 * float(self.info.loss)
        if self.krylov is None:
            return Progress(cost, self.jacobians, self.evaluations)
        jax.effects_barrier()
        applications, solves = self.krylov.counter.applications, self.krylov.solves * self.steps
        products = 2 * applications + solves + self.steps + self.krylov.sketch * self.sketches
        iterations = applications - solves
        return Progress(cost, self.jacobians, self.evaluations, products, iterations)


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
    block: bool = True,
) -> tuple[Record, Any]:
    """Run it with one of its linear solvers: "cholesky", "qr", "cg" or "nystrom".

    "cg" is `GramCG` without and "nystrom" with a preconditioner, which is sketched anew every
    `refresh` steps at the running parameters. The first sketch is the set-up of the run, the time
    of a later one is part of its step; the products of all are counted. `block` makes a sketch's
    products all at once.
    """
    sketch = partial(_sketch, instance=instance, rank=rank, block=block)
    counter = _Counter()
    krylov = None
    if linear == "cholesky":
        config: Any = nlls_gram.Cholesky()
    elif linear == "qr":
        config = nlls_gram.QR()
    else:
        nystrom = linear == "nystrom"
        if nystrom:
            # Of the right structure, so that none has to be made before the solver is compiled.
            shapes = jax.eval_shape(sketch, instance.params, instance.args)
            empty: Any = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        else:
            empty = nlls_gram.IdentityPreconditioner()
        config = nlls_gram.GramCG(_Counted(empty, counter), tol=tol, maxiter=maxiter)
        krylov = _Krylov(counter, 1 + geodesic, 2 * rank * nystrom)

    solver = nlls_gram.LevenbergMarquardt(
        instance.residual_fn,
        init_damping=damping,
        damping_decrease=decrease,
        damping_increase=increase,
        linear_solver=config,
        geodesic_acceleration=geodesic,
    )

    def install(state: Any, preconditioner: Any) -> Any:
        return dataclasses.replace(state, preconditioner=_Counted(preconditioner, counter))

    def step(params: Any, state: Any, args: Any, renew: Any) -> Any:
        if linear == "nystrom":
            running = state.preconditioner.inner
            fresh = jax.lax.cond(renew, lambda: sketch(params, args), lambda: running)
            state = install(state, fresh)
        return solver.update(params, state, args)

    def state() -> Any:
        # Copies, because the compiled step consumes them.
        return jax.tree.map(jnp.array, solver.init(instance.params, instance.args))

    def compile_run() -> Callable[[], _Run]:
        arguments = (instance.params, state(), instance.args, jnp.asarray(False))
        compiled = jax.jit(step, donate_argnums=1).lower(*arguments).compile()
        if linear == "nystrom":
            first = jax.jit(sketch).lower(instance.params, instance.args).compile()

        def start() -> _Run:
            made = state()
            if linear == "nystrom":
                made = install(made, first(instance.params, instance.args))
            made = jax.block_until_ready(made)
            return _Run(compiled, instance.params, made, instance.args, krylov, refresh)

        return start

    return drive(compile_run, instance, budget)
