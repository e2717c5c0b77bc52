"""The compiled programs of a solve: its start, some steps of it, or all of it at once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from .._core.results import RESULTS
from .._step.state import State, donated
from .carry import Account, Outcome, Records, at_start, outcome, stepped
from .history import Recording, unflatten_rows
from .program import Program, Split
from .solution import History, Solution
from .task import Task
from .traced import Watch

# The steps that one call of `advance` has room to record.
ROOM = 512


class Until(eqx.Module):
    """Where to pause: at so many steps, or evaluations, in all."""

    step: Int[np.ndarray | Array, ""]
    evaluations: Int[np.ndarray | Array, ""]

    @classmethod
    def of(cls, step: int, evaluations: int | None) -> "Until":
        most = np.iinfo(np.int32).max
        evaluations = most if evaluations is None else min(evaluations, most)
        return cls(np.asarray(min(step, most), np.int32), np.asarray(evaluations, np.int32))

    def before(self, account: Account, state: State):
        """Whether there is a step to make."""
        going = (account.info.result == RESULTS.running) & (state.step < self.step)
        return going & (account.totals["num_evaluations"] < self.evaluations)


def _begin(task: Task, nothing: None) -> tuple[Account, State, Outcome]:
    problem, flat = task.flat()
    account, state = at_start(task.solver, problem, flat)
    return account, state, outcome(task.solver, problem, account, state)


def _look(task: Task, state: State, account: Account) -> Outcome:
    return outcome(task.solver, task.flat()[0], account, state)


def _advance(task: Task, state: State, account: Account, until: Until):
    problem, first = task.flat()[0], state.step

    def unfinished(carry):
        account, state, _ = carry
        return until.before(account, state) & (state.step < first + ROOM)

    def advance(carry):
        account, state, records = carry
        account, following = stepped(task.solver, problem, account, state)
        return account, following, records.with_step(state.step - first, account.info)

    start = (account, state, Records.empty(ROOM, account.flat.dtype))
    account, state, records = jax.lax.while_loop(unfinished, advance, start)
    return account, state, records, outcome(task.solver, problem, account, state)


_beginning, _looking = Program(_begin), Program(_look)
_advancing, _overwriting = Program(_advance), Program(_advance, donate=True)


def begin(task: Split) -> tuple[Account, State, Outcome]:
    """The start of a solve."""
    return _beginning(task, None)


def look(task: Split, account: Account, state: State) -> Outcome:
    """What was found so far."""
    return _looking(task, state, account)


def advance(
    task: Split, account: Account, state: State, until: Until
) -> tuple[Account, State, Records, Outcome]:
    """Steps until a tolerance is met or `until` says so, `ROOM` at most."""
    program = _overwriting if donated(state) else _advancing
    return program(task, state, account, until)


@eqx.filter_jit
def whole(
    task: Task,
    max_steps: int,
    max_evaluations: int | None,
    recording: Recording,
    watch: Watch | None,
) -> Solution:
    """All steps in one program, for a solve that is itself transformed."""
    problem, flat = task.flat()
    account, state = at_start(task.solver, problem, flat)
    until = Until.of(max_steps, max_evaluations)
    run = jnp.zeros((), jnp.int32) if watch is None else watch.begin(account.info.cost)
    records = Records.empty(max_steps, flat.dtype)
    rows = recording.room(max_steps, account.flat)

    def unfinished(carry):
        account, state, _, _, halted = carry
        return until.before(account, state) & (halted == RESULTS.running)

    def advance(carry):
        account, state, records, rows, halted = carry
        index = state.step
        account, state = stepped(task.solver, problem, account, state)
        records = records.with_step(index, account.info)
        rows = recording.with_row(rows, state.step, account.flat)
        if watch is not None:
            found = outcome(task.solver, problem, account, state)
            state, halted = watch.step(task, run, account, state, found)
        return account, state, records, rows, halted

    start = (account, state, records, rows, RESULTS.running)
    account, state, records, rows, halted = jax.lax.while_loop(unfinished, advance, start)
    found = outcome(task.solver, problem, account, state)
    spent = RESULTS.where(
        state.step < max_steps,
        RESULTS.evaluation_limit_reached,
        RESULTS.nonlinear_max_steps_reached,
    )
    halted = RESULTS.where(halted == RESULTS.running, spent, halted)
    result = RESULTS.where(found.result == RESULTS.running, halted, found.result)
    if watch is not None:
        watch.end(run, account, found, result)
    cost_before, damping, gradient_norm = records.values
    cost = jnp.append(cost_before, jnp.nan).at[state.step].set(account.info.cost)
    params = None if rows is None else unflatten_rows(problem.params_spec, rows)
    seconds = jnp.full_like(damping, jnp.nan)
    history = History(cost, damping, gradient_norm, seconds, params)
    value = task.value(found.leaves)
    return solution_of(account, state, found, value, result, history, task.aux(value))


def solution_of(
    account: Account,
    state: State | None,
    found: Outcome,
    value: PyTree,
    result: RESULTS,
    history: History,
    aux: PyTree,
) -> Solution:
    """The solution, all but what is said of it in words."""
    info = account.info
    stats: dict[str, Any] = {
        "cost": found.cost,
        "initial_cost": account.initial_cost,
        **account.totals,
        "linear_residual": info.linear_residual,
        "relative_gradient": info.relative_gradient,
        "criterion": info.criterion,
    }
    return Solution(value, result, stats, history, aux, state, account.flat)
