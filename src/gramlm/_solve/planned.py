"""Plans, and all else that a solve learns for the next one of the same shapes."""

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._core.costs import ProductCosts
from .._linear.auto import Plan, wants_measurement
from .._linear.product_costs import measured
from .._step.levenberg_marquardt import LevenbergMarquardt
from .._step.state import donated
from .carry import Carry, PackedCarry
from .loop import Room
from .program import Fixed, Split
from .step_time import StepTime
from .task import Task

# Solves that are remembered; arbitrary. JAX keeps 4096 programs.
_MOST = 256

# Bytes of a state up to which the start of a solve is made by the program of its steps: zeros in
# the place of a state are kept for it. Arbitrary; a second program takes 0.05 ms.
_SMALL = 2**20


class TaskSplit(NamedTuple):
    """A task as it was given, for programs: all but its solver, and the solver."""

    problem: Split
    solver: Split

    @classmethod
    def of(cls, task: Task) -> "TaskSplit":
        problem = Split.of((task.problem, task.params, task.args, task.has_aux))
        # Most calls bring the same solver, whose tree is large.
        solver, known = task.solver, _solvers.find(id(task.solver))
        if known is None or known[0] is not solver:
            known = _solvers.keep(id(solver), (solver, Split.of(solver)))
        return cls(problem, known[1])

    @property
    def traced(self) -> bool:
        """Whether some of its arrays are."""
        return self.problem.traced or self.solver.traced


class Planned(NamedTuple):
    """What was learnt by an earlier solve of the same shapes.

    - `given`: the solver that was given, and `solver`: the same, following the plan.
    - `fixed`, `arrays`: what of the task is compiled in, and the arrays of the solver.
    """

    plan: Plan
    words: str
    room: Room
    step_time: StepTime
    given: LevenbergMarquardt
    solver: LevenbergMarquardt
    fixed: Fixed
    arrays: list[Any]

    def followed(self, task: Task, split: TaskSplit) -> tuple[Task, Split]:
        """The task with the solver that follows the plan."""
        arrays = [*split.problem.arrays, *self.arrays]
        return task._replace(solver=self.solver), Split(self.fixed, arrays)


class Shelf(OrderedDict[Any, Any]):
    """Keeps what was used last, for all threads."""

    _lock = threading.Lock()

    def find(self, key: Any) -> Any:
        with self._lock:
            found = self.get(key)
            if found is not None:
                self.move_to_end(key)
            return found

    def keep(self, key: Any, value: Any) -> Any:
        with self._lock:
            self[key] = value
            if len(self) > _MOST:
                self.popitem(last=False)
            return value


_planned, _solvers = Shelf(), Shelf()


def planned(task: Task, split: TaskSplit, costs: ProductCosts | None) -> Planned:
    """What is known of such a task, whose arrays are not traced.

    With `costs` products with J are not measured again, which might lead to another plan.
    """
    # NumPy's numbers may have more bits than a program uses.
    key = (*split.problem.key, *split.solver.key, costs, jnp.result_type(float))
    found = _planned.find(key)
    if found is None:
        found = _planned.keep(key, _new(task, split, costs))
    elif found.given is not task.solver:
        solver = task.solver.following(found.plan)
        arrays = Split.of(solver).arrays
        found = _planned.keep(key, found._replace(given=task.solver, solver=solver, arrays=arrays))
    return found


def plan_of(task: Task) -> Plan:
    """The plan alone, of what may be traced; nothing is measured."""
    return _looked_at(task, None)[0]


def _new(task: Task, split: TaskSplit, costs: ProductCosts | None) -> Planned:
    given = task.solver
    plan, started = _looked_at(task, costs)
    if costs is None and wants_measurement(plan.size, given.linear_solver, given.memory):
        problem, flat = task.flat()
        costs = measured(task.problem.residual_fn, plan.memory, problem.function, flat)
        plan, started = _looked_at(task, costs)
    following = task._replace(solver=given.following(plan))
    whole = Split.of(following)
    return Planned(
        plan=plan,
        words=str(plan),
        room=_room(started),
        step_time=StepTime(),
        given=given,
        solver=following.solver,
        fixed=whole.fixed,
        arrays=whole.arrays[len(split.problem.arrays) :],
    )


def _looked_at(task: Task, costs: ProductCosts | None) -> tuple[Plan, Carry]:
    """The plan, and the shapes of what a solve starts from."""
    plan: Plan | None = None

    def start(task: Task) -> Carry:
        nonlocal plan
        problem, flat = task.flat()
        plan = task.solver.plan_flat(problem, flat, costs)
        return Carry.start(task.solver.following(plan), problem, flat)

    started = eqx.filter_eval_shape(start, task)
    assert plan is not None
    return plan, started


def _room(started: Carry) -> Room:
    """How a solve of these shapes is run."""
    leaves = jax.tree.leaves(started)
    if not all(isinstance(leaf.dtype, np.dtype) for leaf in leaves):  # random keys, for example
        return Room(started, blank=None, overwritten=False)
    carry = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), started)
    if donated(carry.state):
        return Room(started, blank=None, overwritten=True)
    small = sum(leaf.nbytes for leaf in jax.tree.leaves(carry.state)) <= _SMALL
    return Room(
        started, jax.device_put(PackedCarry.of(carry)) if small else None, overwritten=False
    )
