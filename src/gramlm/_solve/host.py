"""A solve outside of any transformation: some steps at a time, and callbacks in between."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._core.flatten import as_parameters
from .._core.results import RESULTS, code
from .._step.state import redamped
from .carry import Best, PackedCarry, Told, stats_of
from .checkpoint.checkpoint import Checkpoint, described, layout
from .checkpoint.resume import AbstractSource, Wanted
from .history import HistoryBuffer, Past, Saving
from .interrupts import Interrupts
from .loop import MOST, Found, Until, next_piece
from .packed import Packed
from .planned import Planned
from .program import Split, equinox_error, without_logged_errors
from .session import Session
from .solution import Parts, Solution
from .task import Task, aux_at, cost_at

_RUNNING = code(RESULTS.running)


class Now(NamedTuple):
    """Where a solve has come to: on the device, and what is told of it, in NumPy's scalars."""

    packed: PackedCarry
    told: Told
    best: Best
    running: bool

    @classmethod
    def of(cls, packed: PackedCarry, found: Found) -> "Now":
        best = found.best
        return cls(packed, packed.told.tree(), best, code(best.result) == _RUNNING)

    @property
    def whole(self) -> bool:
        """Whether the state has not been given to steps that were left in the middle."""
        return not any(array.is_deleted() for array in self.packed.state.arrays)

    @property
    def step(self) -> int:
        return int(self.told.totals.num_steps)

    @property
    def evaluations(self) -> int:
        return int(self.told.totals.num_evaluations)

    @property
    def cost(self) -> float:
        return float(self.best.cost)


class HostLoop:
    """One solve, by pieces of some steps. `session` knows how callbacks ended it, if they did."""

    def __init__(
        self,
        task: Task,
        split: Split,
        planned: Planned,
        recording: Saving,
        session: Session,
        interrupts: Interrupts,
    ):
        self._task, self._split, self._planned = task, split, planned
        self._recording, self._session, self._interrupts = recording, session, interrupts
        self._now: Now | None = None
        self._history: HistoryBuffer | None = None
        # From where to go on, None for the start, and the steps that were made before.
        self._packed: PackedCarry | None = None
        self._before = 0

    def run(self, source: AbstractSource | None) -> Solution:
        """Steps, from where `source` was left if there is one, until something ends them."""
        session = self._session
        with self._interrupts, without_logged_errors():
            try:
                if source is not None:
                    self._resume(source)
                self._steps()
            except KeyboardInterrupt:
                session.order = RESULTS.interrupted
            except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX raises either
                session.fail()
                known = equinox_error(error)
                if known is None:
                    raise
                raise known from None
            except BaseException:
                session.fail()
                raise
            now, result = self._found(), self._verdict() or RESULTS.interrupted
            snapshot = partial(self._snapshot, now) if now.whole else None
            session.end(result, now.step, now.cost, now.told.info, snapshot)
        return self._solution(result)

    def _found(self) -> Now:
        """What was found: the start, where nothing was asked for, or the first steps were left."""
        if self._now is None:
            self._advance(0)
        assert self._now is not None
        return self._now

    def _resume(self, source: AbstractSource) -> None:
        task, room = self._task, self._planned.room
        wanted = Wanted(
            described(task, self._planned.plan, self._recording),
            room.started,
            as_parameters(task.params, task.problem.free)[0],
            partial(cost_at, self._split),
        )
        carry, past = source.restored(wanted)
        # Copied, for the next steps may overwrite them.
        self._packed = PackedCarry.of(jax.tree.map(jnp.array, carry))
        self._history, self._before = HistoryBuffer(past), int(carry.told.totals.num_steps)
        self._session.seconds_before = self._history.seconds
        self._advance(0)

    def _steps(self) -> None:
        watched = bool(self._session.callbacks)
        if watched:
            self._session.start(self._step, self._planned.step_time.compiled)
        if self._recording.params:
            self._found()  # for the parameters of the start
        while self._verdict() is None:
            left = self._session.seconds_left
            self._advance(1 if watched else self._planned.step_time.steps(left))
            if watched:
                self._consult()
        self._found()

    @property
    def _step(self) -> int:
        return self._before if self._now is None else self._now.step

    def _verdict(self) -> RESULTS | None:
        """Why there is no further step to make; None if there is."""
        now, session = self._now, self._session
        if now is not None and not now.running:
            return now.best.result
        if session.order is not None:
            return session.order
        if self._interrupts.asked:
            return RESULTS.interrupted
        evaluations = 0 if now is None else now.evaluations
        return session.budget.spent(self._step, evaluations, session.elapsed)

    def _advance(self, steps: int) -> None:
        """So many steps, unless one of them is the last, or a limit or a recording comes before."""
        budget, step_time, step = self._session.budget, self._planned.step_time, self._step
        begin = self._session.elapsed
        stop = self._recording.next_stop(step, min(step + steps, budget.steps)) if steps else step
        until = Until(stop, MOST if budget.evaluations is None else budget.evaluations)
        program, given = next_piece(self._split, self._planned.room, self._packed, until)
        packed, records, found = program(*given)
        step_time.wait(packed.told.vectors[0], stop - step)
        now, end = Now.of(packed, found), self._session.elapsed
        made = now.step - step
        step_time.learn(made, end - begin)
        if self._history is None:
            self._history = HistoryBuffer(Past.empty(0, 0, now.told.flat))
            if self._recording.params and not made:
                self._history.add_params(now.told.flat)
        if made:
            self._history.add(records, made, self._session.seconds_before + end)
            if self._recording.wants(now.step):
                self._history.add_params(now.told.flat)
        self._now, self._packed = now, packed

    def _consult(self) -> None:
        """Asks the callbacks how to go on."""
        now, task = self._found(), self._task
        state = now.packed.state.tree()
        damping = self._session.consult(
            step=now.step,
            evaluations=now.evaluations,
            params=task.value(now.best.leaves),
            cost=now.cost,
            info=now.told.info,
            state=state,
            snapshot=partial(self._snapshot, now),
        )
        if damping is not None:
            state = jax.tree.map(jnp.asarray, state)
            wanted = jnp.asarray(damping, now.told.flat.dtype)
            state = redamped(task.solver.damping, state, jnp.asarray(True), wanted)
            self._packed = now.packed._replace(state=Packed.of(state))
            self._now = now._replace(packed=self._packed)

    def _snapshot(self, now: Now) -> Checkpoint:
        past = self._past(now)
        copied = jnp.copy if self._planned.room.overwritten else jnp.asarray
        carry = jax.tree.map(copied, now.packed.carry)
        so_far = {
            "steps": now.step,
            "rows": len(past.params),
            "cost": now.cost,
            "cost_again": float(cost_at(self._split, now.told.flat)),
            "leaves": layout(carry),
        }
        description = described(self._task, self._planned.plan, self._recording)
        return Checkpoint(description | so_far, carry, past)

    def _past(self, now: Now) -> Past:
        assert self._history is not None
        return self._history.first(now.step, self._recording)

    def _solution(self, result: RESULTS) -> Solution:
        now, task, planned = self._found(), self._task, self._planned
        problem = task.problem
        spec = as_parameters(task.params, problem.free)[0] if self._recording.params else None
        value = task.value(now.best.leaves)
        parts = Parts(
            value=value,
            result=result,
            stats=stats_of(now.told, now.best),
            history=self._past(now).history(now.told.info.cost, spec),
            aux=aux_at(task, value) if task.has_aux else None,
            carry=now.packed if now.whole else None,
        )
        return parts.solution(planned.words, planned.plan.size.costs, self._session.reason)
