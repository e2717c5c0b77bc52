"""A solve outside of any transformation: some steps at a time, and callbacks in between."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core.results import RESULTS, code
from .._linear.auto import Plan
from .._step.state import State, donated, redamped
from .callback.action import Steering, heeded
from .callback.base import AbstractCallback, Beginning, Ending, Event
from .callback.budget import Budget
from .carry import Account, Outcome
from .checkpoint.checkpoint import Checkpoint, described, layout
from .checkpoint.resume import AbstractSource
from .history import Chronicle, Past, Recording, history_of
from .interrupts import Interrupts
from .loop import Until, advance, look, solution_of
from .pace import Pace
from .program import Split, equinox_error, without_logged_errors
from .solution import Solution
from .task import Task, aux_at, cost_at

_RUNNING = code(RESULTS.running)


class Standing(NamedTuple):
    """Where a solve has come to, with what decides on its way as numbers."""

    account: Account
    state: State
    found: Outcome
    step: int = 0
    evaluations: int = 0
    result: int = _RUNNING

    @classmethod
    def of(cls, account: Account, state: State, found: Outcome) -> "Standing":
        totals = account.totals
        numbers = (totals["num_steps"], totals["num_evaluations"], found.result)
        step, evaluations, result = jax.device_get(numbers)
        return cls(account, state, found, int(step), int(evaluations), code(result))

    @property
    def cost(self) -> float:
        return float(self.found.cost)

    @property
    def whole(self) -> bool:
        """Whether the state has not been given to steps that were left in the middle."""
        return not any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))


class Run:
    """One solve, and how it ended: by the exception `cause` of a callback, or `interrupted`."""

    def __init__(
        self,
        task: Task,
        split: Split,
        plan: Plan,
        budget: Budget,
        recording: Recording,
        callbacks: tuple[AbstractCallback, ...],
        pace: Pace,
        began: float,
    ):
        self._task, self._plan, self._budget, self._recording = task, plan, budget, recording
        self._split = split
        self._callbacks, self._pace, self._began = callbacks, pace, began
        self._interrupts = Interrupts()
        self._ordered: RESULTS | None = None
        self._reason = ""
        self.cause: Exception | None = None
        self.interrupted = False

    def start(self, account: Account, state: State, found: Outcome) -> None:
        """Takes up a new solve."""
        self._now = Standing(account, state, found)
        self._chronicle = Chronicle(Past.empty(0, 0, account.flat.size, account.flat.dtype))
        self._seconds_before = 0.0
        if self._recording.params:
            self._chronicle.add_params(account.flat)

    def resume(self, source: AbstractSource, account: Account, state: State) -> None:
        """Takes up one that was left; `account` and `state` are those of a new one."""
        account, state, past = source.restored(self._task, account, state, self._description())
        # Copied, for the next steps may overwrite them.
        account, state = jax.tree.map(jnp.array, (account, state))
        self._now = Standing.of(account, state, look(self._split, account, state))
        self._chronicle = Chronicle(past)
        self._seconds_before = self._chronicle.seconds

    def go(self) -> Solution:
        """Steps until something ends them."""
        begun: list[AbstractCallback] = []
        with self._interrupts, without_logged_errors():
            try:
                self._steps(begun)
            except KeyboardInterrupt:
                self.interrupted = True
            except jax.errors.JaxRuntimeError as error:
                self._dismiss(begun, None)
                known = equinox_error(error)
                if known is None:
                    raise
                raise known from None
            except BaseException:
                self._dismiss(begun, None)
                raise
            self.interrupted = self.interrupted or self._interrupts.asked
            result = self._verdict() or RESULTS.interrupted
            self._dismiss(begun, self._ending(result))
        return self._solution(result)

    def _steps(self, begun: list[AbstractCallback]) -> None:
        if self._callbacks:
            now = self._now
            beginning = Beginning(str(self._plan), self._budget, now.step, now.cost)
            for callback in self._callbacks:
                begun.append(callback)
                self._guarded(partial(callback.start, beginning))
        while self._verdict() is None:
            self._advance()
            if self._callbacks:
                self._guarded(self._consult)

    def _verdict(self) -> RESULTS | None:
        """Why there is no further step to make; None if there is."""
        now, budget = self._now, self._budget
        if now.result != _RUNNING:
            return now.found.result
        if self._ordered is not None:
            return self._ordered
        if self.interrupted or self._interrupts.asked:
            return RESULTS.interrupted
        if now.step >= budget.steps:
            return RESULTS.nonlinear_max_steps_reached
        if budget.evaluations is not None and now.evaluations >= budget.evaluations:
            return RESULTS.evaluation_limit_reached
        if budget.seconds is not None and self._elapsed() >= budget.seconds:
            return RESULTS.time_limit_reached
        return None

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began

    def _advance(self) -> None:
        """Some steps: one if somebody watches, otherwise as many as take a moment."""
        now, budget = self._now, self._budget
        begin = self._elapsed()
        left = None if budget.seconds is None else budget.seconds - begin
        steps = 1 if self._callbacks else self._pace.steps(left)
        until = self._recording.next_stop(now.step, min(now.step + steps, budget.steps))
        account, state, records, found = advance(
            self._split, now.account, now.state, Until.of(until, budget.evaluations)
        )
        self._pace.wait(found.cost, until - now.step)
        after, end = Standing.of(account, state, found), self._elapsed()
        made = after.step - now.step
        self._pace.learn(made, end - begin)
        self._chronicle.add(records, made, self._seconds_before + end)
        if self._recording.wants(after.step):
            self._chronicle.add_params(account.flat)
        self._now = after

    def _consult(self) -> None:
        """Asks the callbacks how to go on."""
        now, seconds = self._now, self._elapsed()
        event = Event(
            step=now.step,
            params=self._task.value(now.found.leaves),
            cost=now.cost,
            info=jax.device_get(now.account.info),
            seconds=self._seconds_before + seconds,
            remaining=self._budget.remaining(now.step, now.evaluations, seconds),
            state=now.state,
            snapshot=partial(self._snapshot, now),
        )
        steering = Steering()
        for callback in self._callbacks:
            steering = heeded(steering, callback(event), callback)
        if steering.stop is not None:
            self._ordered, self._reason = RESULTS.stopped, steering.stop
        if steering.damping is not None:
            damping = jnp.asarray(steering.damping, now.account.flat.dtype)
            rule = self._task.solver.damping
            state = redamped(rule, now.state, jnp.asarray(True), damping)
            self._now = now._replace(state=state)

    def _guarded(self, call: Callable[[], None]) -> None:
        """Calls; an exception ends the solve, as does Ctrl-C, which need not wait here."""
        try:
            with self._interrupts.at_once():
                call()
        except Exception as error:
            self.cause = self.cause or error
            self._ordered = RESULTS.callback_failed

    def _ending(self, result: RESULTS) -> Ending:
        now = self._now
        return Ending(
            step=now.step,
            cost=now.cost,
            seconds=self._seconds_before + self._elapsed(),
            result=result,
            criterion=now.account.info.criterion,
            reason=self._reason,
            snapshot=partial(self._snapshot, now) if now.whole else None,
        )

    def _dismiss(self, begun: list[AbstractCallback], ending: Ending | None) -> None:
        for callback in begun:
            try:
                self._guarded(partial(callback.end, ending))
            except KeyboardInterrupt:
                self.interrupted = True

    def _description(self) -> dict[str, Any]:
        return described(self._task, str(self._plan), self._plan.size.costs, self._recording)

    def _snapshot(self, now: Standing) -> Checkpoint:
        past = self._chronicle.first(now.step, self._recording)
        account, state = now.account, now.state
        if donated(state):
            state = jax.tree.map(jnp.copy, state)
        so_far = {
            "steps": now.step,
            "rows": len(past.params),
            "cost": now.cost,
            "cost_again": float(cost_at(self._task, account.flat)),
            "leaves": layout((account, state)),
        }
        return Checkpoint(self._description() | so_far, account, state, past)

    def _solution(self, result: RESULTS) -> Solution:
        now, task = self._now, self._task
        past = self._chronicle.first(now.step, self._recording)
        spec = task.flat()[0].params_spec if self._recording.params else None
        history = history_of(past, now.account.info.cost, spec)
        value = task.value(now.found.leaves)
        aux = aux_at(task, value) if task.has_aux else None
        state = now.state if now.whole else None
        solution = solution_of(now.account, state, now.found, value, result, history, aux)
        return dataclasses.replace(
            solution, plan=str(self._plan), costs=self._plan.size.costs, reason=self._reason
        )
