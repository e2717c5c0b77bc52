"""The callbacks of one run of a solve: what they are told, and what they ask for."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from .._core.results import RESULTS
from .._step.info import StepInfo
from .._step.state import State
from .callback.action import Steering, heeded
from .callback.base import AbstractCallback, Beginning, Ending, Event
from .callback.budget import Budget
from .checkpoint.checkpoint import Checkpoint

Snapshot = Callable[[], Checkpoint]


class Session:
    """One run, in the loop on the host or in that of a program, on one clock and one budget.

    - `order`: how the solve has to end by what callbacks asked for, or did; None if it need not.
    - `reason`: why, in the words of `Stop`. `cause`: the first exception of a callback.

    `at_once` makes a block that Ctrl-C leaves at once.
    """

    def __init__(
        self,
        callbacks: tuple[AbstractCallback, ...],
        plan: str,
        budget: Budget,
        began: float | None = None,
        at_once: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):
        self.callbacks, self.plan, self.budget = callbacks, plan, budget
        self.order: RESULTS | None = None
        self.reason = ""
        self.cause: Exception | None = None
        self.seconds_before = 0.0
        self._began = time.perf_counter() if began is None else began
        self._at_once = at_once
        self._begun: list[AbstractCallback] = []

    @property
    def elapsed(self) -> float:
        """Seconds of this run."""
        return time.perf_counter() - self._began

    @property
    def seconds(self) -> float:
        """With those of the runs that it goes on from."""
        return self.seconds_before + self.elapsed

    @property
    def seconds_left(self) -> float | None:
        """Of the budget; None without a limit."""
        limit = self.budget.seconds
        return None if limit is None else limit - self.elapsed

    def start(self, step: int, compiled: bool) -> None:
        """Before the first step."""
        beginning = Beginning(self.plan, self.budget, step, compiled)
        for callback in self.callbacks:
            self._begun.append(callback)
            self._guarded(partial(callback.start, beginning))

    def consult(
        self,
        step: int,
        evaluations: int,
        params: Any,
        cost: float,
        info: StepInfo,
        state: State | None = None,
        snapshot: Snapshot | None = None,
    ) -> float | None:
        """After a step; the λ of the next, where a callback has set it."""
        elapsed = self.elapsed
        event = Event(
            step=step,
            params=params,
            cost=cost,
            info=info,
            seconds=self.seconds_before + elapsed,
            remaining=self.budget.remaining(step, evaluations, elapsed),
            state=state,
            snapshot=snapshot,
        )
        answers = Steering()

        def ask() -> None:
            nonlocal answers
            for callback in self.callbacks:
                answers = heeded(answers, callback(event), callback)

        if not self._guarded(ask):
            return None
        if answers.stop is not None:
            self.order, self.reason = RESULTS.stopped, answers.stop
        return answers.damping

    def end(
        self,
        result: RESULTS,
        step: int,
        cost: float,
        info: StepInfo,
        snapshot: Snapshot | None = None,
    ) -> None:
        """After the last step."""
        self._dismiss(
            Ending(step, cost, self.seconds, result, info.criterion, self.reason, snapshot)
        )

    def fail(self) -> None:
        """After an error in a step."""
        self._dismiss(None)

    def _dismiss(self, ending: Ending | None) -> None:
        for callback in self._begun:
            self._guarded(partial(callback.end, ending))

    def _guarded(self, call: Callable[[], Any]) -> bool:
        """Calls, and says whether it went well; what is raised ends the solve, nothing else."""
        try:
            with self._at_once():
                call()
        except KeyboardInterrupt:
            self.order = RESULTS.interrupted
        except Exception as error:
            self.order = RESULTS.callback_failed
            self.cause = self.cause or error
        else:
            return True
        return False
