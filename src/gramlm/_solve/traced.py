"""Callbacks from inside of a program that holds a whole solve."""

import itertools
import traceback
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Float, Int

from .._core.results import RESULTS, code
from .._step.state import redamped
from .callback.base import AbstractCallback
from .callback.budget import Budget
from .carry import Best, Carry, Told
from .session import Session
from .task import Task

_UNDER_VMAP = (
    "`callback` and `verbose` do not go with `vmap`: its lanes take their steps together, and some "
    "go on after they have ended. Leave them out, or solve for one lane after another, in a Python "
    "loop or by `jax.lax.map`."
)

_NUMBER = jax.ShapeDtypeStruct((), jnp.int32)


class TracedSession:
    """The sessions of a solve inside of a transformation: static, compared by identity.

    The program may run many times, and in several threads: each run has a number.
    """

    def __init__(self, callbacks: tuple[AbstractCallback, ...], plan: str, budget: Budget):
        self._new = partial(Session, callbacks, plan, budget)
        self._runs: dict[int, Session] = {}
        self._numbers = itertools.count()

    def begin(self, cost: Float[Array, ""]) -> Int[Array, ""]:
        """Before the first step; returns the number of this run."""
        return _called(self._begin, _NUMBER, cost)

    def step(
        self, task: Task, run: Int[Array, ""], carry: Carry, best: Best
    ) -> tuple[Carry, RESULTS]:
        """After a step: the carry to go on from, and how the solve has to end, if it has to."""
        told = carry.told
        # What is no array stays on the host.
        arrays, rest = eqx.partition(task.value(best.leaves), eqx.is_array)
        shapes = (_NUMBER, jax.ShapeDtypeStruct((), told.flat.dtype))
        order, damping = _called(partial(self._step, rest), shapes, run, told, best.cost, arrays)
        state = redamped(task.solver.damping, carry.state, damping > 0, damping)
        result = jax.tree.unflatten(jax.tree.structure(RESULTS.running), [order])
        return carry._replace(state=state), result

    def end(self, run: Int[Array, ""], told: Told, best: Best, result: RESULTS) -> None:
        """After the last step."""
        _called(self._end, _NUMBER, run, told, best.cost, result)

    def _begin(self, cost) -> np.ndarray:
        number = next(self._numbers)
        run = self._runs[number] = self._new()
        run.start(step=0, compiled=True)
        _print_failure(run, None)
        return np.asarray(number, np.int32)

    def _step(self, rest, number, told: Told, cost, arrays) -> tuple[np.ndarray, np.ndarray]:
        run = self._runs[int(number)]
        damping, before = None, run.cause
        if run.order is None:
            totals = told.totals
            params = eqx.combine(arrays, rest)
            steps, evaluations = int(totals.num_steps), int(totals.num_evaluations)
            damping = run.consult(steps, evaluations, params, float(cost), told.info)
        _print_failure(run, before)
        wanted = np.nan if damping is None else damping
        order = RESULTS.running if run.order is None else run.order
        return np.asarray(code(order), np.int32), np.asarray(wanted, cost.dtype)

    def _end(self, number, told: Told, cost, result: RESULTS) -> np.ndarray:
        run = self._runs.pop(int(number))
        before = run.cause
        run.end(result, int(told.totals.num_steps), float(cost), told.info)
        _print_failure(run, before)
        return np.zeros((), np.int32)


def _print_failure(run: Session, before: Exception | None) -> None:
    """What a callback has raised since, for a program cannot raise it."""
    if run.cause is not before and run.cause is not None:
        traceback.print_exception(run.cause)


def _called(function, shapes: Any, *arguments: Any) -> Any:
    """The answer of a function on the host."""

    def on_host(*given):
        return function(*jax.tree.map(np.asarray, given))

    @jax.custom_batching.custom_vmap
    def call(*arguments):
        return io_callback(on_host, shapes, *arguments)

    @call.def_vmap
    def refuse(axis_size, in_batched, *arguments):
        raise ValueError(_UNDER_VMAP)

    # What is reported has no derivative.
    return call(*jax.lax.stop_gradient(arguments))
