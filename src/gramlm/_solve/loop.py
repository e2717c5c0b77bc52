"""The compiled programs of a solve: its start, some steps of it, or all of it at once."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from .._core.results import RESULTS
from .carry import Best, Carry, PackedCarry, stats_of
from .history import Records, Saving, unflatten_rows
from .packed import Packed
from .program import Program, Split
from .solution import Solution
from .task import Task
from .traced import TracedSession

# The steps that one call of a program has room to record; arbitrary. A program that fills
# 512 with NaN takes 0.02 ms longer.
ROOM = 128

# No limit.
MOST = int(np.iinfo(np.int32).max)

# What an `Until` is in a program.
Limits = Int[Array, " k"] | Int[np.ndarray, " k"]


class Until(NamedTuple):
    """Where to pause: at so many steps, or evaluations, in all."""

    step: Int[Array, ""] | int
    evaluations: Int[Array, ""] | int

    def before(self, carry: Carry) -> Bool[Array, ""]:
        """Whether there is a step to make."""
        going = carry.running & (carry.told.totals.num_steps < self.step)
        return going & (carry.told.totals.num_evaluations < self.evaluations)

    def reached(self, carry: Carry) -> RESULTS:
        """Which of the two it was, after the last step."""
        return RESULTS.where(
            carry.told.totals.num_steps < self.step,
            RESULTS.evaluation_limit_reached,
            RESULTS.nonlinear_max_steps_reached,
        )

    @property
    def numbers(self) -> list[int]:
        """For a program, which counts in 32 bits."""
        return [min(int(self.step), MOST), min(int(self.evaluations), MOST)]


class Found(NamedTuple):
    """The best point so far: the leaves of its parameters, and its cost and the result, packed."""

    leaves: list[Array | None]
    numbers: Packed

    @classmethod
    def of(cls, best: Best) -> "Found":
        return cls(best.leaves, Packed.of((best.cost, best.result)))

    @property
    def best(self) -> Best:
        """Outside of a program with NumPy's scalars, which are waited for."""
        return Best(self.leaves, *self.numbers.tree())


class Room(NamedTuple):
    """How a solve of these shapes is run, by the size of its state.

    - `started`: the shapes of the carry it starts from. `blank`: zeros of them, for a small one,
      whose start is made by the same program as its steps.
    - `overwritten`: whether steps overwrite the state before them, lest there be two large ones.
    """

    started: Carry
    blank: PackedCarry | None
    overwritten: bool


Piece = tuple[PackedCarry, Records, Found]


def _start(task: Task) -> PackedCarry:
    return PackedCarry.of(Carry.start(task.solver, *task.flat()))


def _steps(task: Task, state: Packed, told: Packed, until: Limits) -> Piece:
    """From where a solve has come to."""
    problem, limits = task.flat()[0], Until(until[0], until[1])
    start = PackedCarry(told, state)
    first, flat = start.carry.told.totals.num_steps, start.carry.told.flat

    # Packed from step to step as well: fewer arrays are copied.
    def unfinished(now: tuple[PackedCarry, Records]):
        carry = now[0].carry
        return limits.before(carry) & (carry.told.totals.num_steps < first + ROOM)

    def advance(now: tuple[PackedCarry, Records]):
        live, records = now
        index = live.carry.told.totals.num_steps - first
        carry = live.carry.stepped(task.solver, problem)
        return PackedCarry.of(carry), records.with_step(index, carry.told.info)

    live, records = jax.lax.while_loop(unfinished, advance, (start, Records.empty(ROOM, flat)))
    return live, records, Found.of(Best.of(task.solver, problem, live.carry))


def _steps_from_any(task: Task, state: Packed, told: Packed, until: Limits) -> Piece:
    """The same; from the start where `until[2]` is 1, and what is given is ignored."""
    live = jax.lax.cond(until[2] == 1, lambda: _start(task), lambda: PackedCarry(told, state))
    return _steps(task, live.state, live.told, until)


_starting, _anywhere = Program(_start), Program(_steps_from_any)
_going_on, _overwriting = Program(_steps), Program(_steps, donate=True)


def next_piece(
    task: Split, room: Room, carry: PackedCarry | None, until: Until
) -> tuple[Program, tuple[Any, ...]]:
    """The program that makes the next steps, and its arguments; None is the start.

    It goes on until a tolerance is met or `until` says so, for `ROOM` steps at most.
    """
    limits = until.numbers
    if room.blank is not None:
        given = room.blank if carry is None else carry
        limits, program = [*limits, carry is None], _anywhere
    else:
        given = _starting(task) if carry is None else carry
        program = _overwriting if room.overwritten else _going_on
    return program, (task, given.state, given.told, np.asarray(limits, np.int32))


@eqx.filter_jit
def solved(
    task: Task,
    max_steps: int,
    max_evaluations: int | None,
    recording: Saving,
    session: TracedSession | None,
) -> Solution:
    """All steps in one program, for a solve that is itself transformed."""
    limits = Until(max_steps, MOST if max_evaluations is None else max_evaluations)
    problem, flat = task.flat()
    carry = Carry.start(task.solver, problem, flat)
    run = jnp.zeros((), jnp.int32) if session is None else session.begin(carry.told.initial_cost)
    records = Records.empty(max_steps, flat)
    rows = recording.room(max_steps, flat)

    def unfinished(now):
        carry, _, _, halted = now
        return limits.before(carry) & (halted == RESULTS.running)

    def advance(now):
        carry, records, rows, halted = now
        index = carry.told.totals.num_steps
        carry = carry.stepped(task.solver, problem)
        records = records.with_step(index, carry.told.info)
        rows = recording.with_row(rows, index + 1, carry.told.flat)
        if session is not None:
            best = Best.of(task.solver, problem, carry)
            carry, halted = session.step(task, run, carry, best)
        return carry, records, rows, halted

    start = (carry, records, rows, RESULTS.running)
    carry, records, rows, halted = jax.lax.while_loop(unfinished, advance, start)
    best = Best.of(task.solver, problem, carry)
    halted = RESULTS.where(halted == RESULTS.running, limits.reached(carry), halted)
    result = RESULTS.where(best.result == RESULTS.running, halted, best.result)
    if session is not None:
        session.end(run, carry.told, best, result)
    value = task.value(best.leaves)
    params = None if rows is None else unflatten_rows(problem.params_spec, rows)
    history = records.history(carry.told, params)
    stats, aux = stats_of(carry.told, best), task.aux(value)
    return Solution(value, result, stats, history, aux, PackedCarry.of(carry))
