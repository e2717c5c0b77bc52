"""Callbacks from inside of a program that holds a whole solve."""

import itertools
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Float, Int

from .._core.results import RESULTS
from .._step.state import State, redamped
from .callback.action import Steering, heeded
from .callback.base import AbstractCallback, Beginning, Ending, Event
from .callback.budget import Budget
from .carry import Account, Outcome
from .task import Task

_UNDER_VMAP = (
    "`callback` and `verbose` do not go with `vmap`: its lanes take their steps together, and some "
    "go on after they have ended. Leave them out, or solve for one lane after another, in a Python "
    "loop or by `jax.lax.map`."
)

# What a callback answers, as a number for the program.
_ANSWERS = (RESULTS.running, RESULTS.stopped, RESULTS.callback_failed, RESULTS.interrupted)
_GO_ON, _STOP, _FAILED, _INTERRUPTED = range(4)


class Watch:
    """The callbacks of a solve inside of a transformation: static, compared by identity.

    The program may run many times, and in several threads: each run has a number.
    """

    def __init__(self, callbacks: tuple[AbstractCallback, ...], plan: str, budget: Budget):
        self._callbacks, self._plan, self._budget = callbacks, plan, budget
        self._runs: dict[int, _Run] = {}
        self._numbers = itertools.count()

    def begin(self, cost: Float[Array, ""]) -> Int[Array, ""]:
        """Before the first step; returns the number of this run."""
        return _called(self._begin, jax.ShapeDtypeStruct((), jnp.int32), cost)

    def step(
        self,
        task: Task,
        run: Int[Array, ""],
        account: Account,
        state: State,
        found: Outcome,
    ) -> tuple[State, RESULTS]:
        """After a step: the state to go on from, and whether to halt."""
        kinds = (
            jax.ShapeDtypeStruct((), jnp.int32),
            jax.ShapeDtypeStruct((), account.flat.dtype),
        )
        # What is no array stays on the host.
        arrays, rest = eqx.partition(task.value(found.leaves), eqx.is_array)
        told = (run, account.totals, account.info, found.cost, arrays)
        answer, damping = _called(partial(self._step, rest), kinds, *told)
        halted = RESULTS.running
        for index, result in enumerate(_ANSWERS):
            halted = RESULTS.where(answer == index, result, halted)
        return redamped(task.solver.damping, state, damping > 0, damping), halted

    def end(self, run: Int[Array, ""], account: Account, found: Outcome, result: RESULTS) -> None:
        """After the last step."""
        nothing = jax.ShapeDtypeStruct((), jnp.int32)
        _called(self._end, nothing, run, account.totals, account.info, found.cost, result)

    def _begin(self, cost) -> np.ndarray:
        number = next(self._numbers)
        run = self._runs[number] = _Run(time.perf_counter())
        beginning = Beginning(self._plan, self._budget, 0, float(cost))
        run.guarded(lambda: [callback.start(beginning) for callback in self._callbacks])
        return np.asarray(number, np.int32)

    def _step(self, rest, number, totals, info, cost, arrays) -> tuple[np.ndarray, np.ndarray]:
        run = self._runs[int(number)]
        steps, evaluations = int(totals["num_steps"]), int(totals["num_evaluations"])
        event = Event(
            step=steps,
            params=eqx.combine(arrays, rest),
            cost=float(cost),
            info=info,
            seconds=run.seconds,
            remaining=self._budget.remaining(steps, evaluations, run.seconds),
        )
        if run.answer == _GO_ON:
            run.guarded(lambda: run.heed(self._callbacks, event))
        damping = np.nan if run.steering.damping is None else run.steering.damping
        return np.asarray(run.answer, np.int32), np.asarray(damping, cost.dtype)

    def _end(self, number, totals, info, cost, result) -> np.ndarray:
        run = self._runs.pop(int(number))
        ending = Ending(
            step=int(totals["num_steps"]),
            cost=float(cost),
            seconds=run.seconds,
            result=result,
            criterion=info.criterion,
            reason=run.steering.stop or "",
        )
        for callback in self._callbacks:
            run.guarded(partial(callback.end, ending))
        return np.zeros((), np.int32)


class _Run:
    """One run of the program, seen from the host."""

    def __init__(self, began: float):
        self._began = began
        self.steering, self.answer = Steering(), _GO_ON

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def heed(self, callbacks: tuple[AbstractCallback, ...], event: Event) -> None:
        self.steering = Steering()
        for callback in callbacks:
            self.steering = heeded(self.steering, callback(event), callback)
        if self.steering.stop is not None:
            self.answer = _STOP

    def guarded(self, call: Callable[[], Any]) -> None:
        """Calls; what is raised becomes an answer, since a program cannot hold it."""
        try:
            call()
        except KeyboardInterrupt:
            self.answer = _INTERRUPTED
        except Exception:
            traceback.print_exc()
            self.answer = _FAILED


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
