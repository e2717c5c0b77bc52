"""The front door."""

import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jax.core import Tracer
from jaxtyping import PyTree

from .._core.free import resolved
from .._core.results import RESULTS, code
from .._step.levenberg_marquardt import LevenbergMarquardt
from .callback.base import AbstractCallback, as_callbacks
from .callback.budget import Budget
from .callback.progress import as_progress
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.periodic import Checkpoints
from .checkpoint.resume import AbstractSource, as_source
from .compiling import outside
from .declared import declared
from .history import Saving
from .host import HostLoop
from .interrupts import Interrupts
from .loop import solved
from .planned import TaskSplit, plan_of, planned
from .program import Split
from .session import Session
from .solution import Solution, SolveError, SolveInterrupted
from .sound import check_values, look_closely
from .task import Task, cost_at
from .traced import TracedSession

Callback = Callable[..., Any]

_DEFAULT = LevenbergMarquardt()
# Bytes that are sent to the device with each program as quickly as not; arbitrary.
_LITTLE = 1024

_NO_FAILURE = (code(RESULTS.successful), code(RESULTS.stopped))


@beartype
def solve(
    residual_fn: Callable[..., Any],
    params: PyTree,
    args: PyTree = None,
    *,
    solver: LevenbergMarquardt | None = None,
    has_aux: bool = False,
    free: PyTree = None,
    max_steps: int = 1000,
    max_evaluations: int | None = None,
    max_seconds: float | int | None = None,
    throw: bool = True,
    callback: Callback | Sequence[Callback] | None = None,
    verbose: bool | AbstractCallback = False,
    history: Saving = Saving(),
    resume: str | PathLike[str] | Checkpoint | Solution | None = None,
    loss: PyTree = None,
    weights: PyTree = None,
    lower: PyTree = None,
    upper: PyTree = None,
) -> Solution:
    """Minimises `½‖r(θ)‖²` over the parameters θ.

    **Arguments:**

    - `residual_fn`: `residual_fn(params)` or `residual_fn(params, args)`, returning the residuals
      as any pytree of arrays; or `gramlm.Rows`, where each residual belongs to a data point.
    - `params`: the start; any pytree of arrays of one precision, float32 or float64, which is
      that of the whole computation. Parameters and residuals may be complex, complex64 or
      complex128: `‖r‖² = Σ|rᵢ|²`, and derivatives are those by real and imaginary parts.
    - `args`: whatever `residual_fn` takes beside the parameters. Other arrays of the same shapes
      do not compile anew.
    - `solver`: the method, `gramlm.LevenbergMarquardt()` unless given.
    - `has_aux`: whether `residual_fn` returns a pair `(residual, aux)`.
    - `free`: which parameters to solve for, all unless given: a pytree prefix of `params` with
      leaves True, False, or functions of a leaf, as for `equinox.filter`, or boolean arrays of the
      shape of a parameter, where single entries are free. What is fixed may be anything and comes
      back as it came; fixed arrays of other values do not compile anew.
    - `max_steps`: the largest number of Jacobians. `max_evaluations`: of residual evaluations at
      trial points, tested after each step. Both count the steps before a `resume`.
    - `max_seconds`: of this call, compilation included, tested between steps; not inside of a
      transformation.
    - `throw`: whether to raise when no tolerance of `solver.termination` was met.
    - `callback`: a function of a `gramlm.extend.Event`, a `gramlm.extend.AbstractCallback`, or a
      list of them, called after each step. It returns None, or `gramlm.Stop(…)`,
      `gramlm.SetDamping(…)`.
    - `verbose`: `True` for one line a step, `gramlm.ProgressBar()` for a bar.
    - `history`: `gramlm.Saving(params=True)` keeps the parameters of each step.
    - `resume`: the file of a checkpoint, a `gramlm.Checkpoint`, or a `gramlm.Solution` to go on
      from. `params` then gives the structure alone.
    - `loss`, `weights`, `lower`, `upper`: what a residual costs, what it counts, and bounds of the
      parameters, as in `gramlm.Problem`. A start outside of the bounds is moved to the nearest
      point within, with a warning.

    **Returns:** a `gramlm.Solution`. Whatever the result, `value` is the best point found.

    **Raises:** `gramlm.SolveError`, which holds the solution, when no tolerance was met or a
    callback failed, and `gramlm.SolveInterrupted`, which holds it, too, after Ctrl-C, if
    `throw` is set (inside of a transformation a runtime error with the same message); not
    when a callback stopped the solve. `TypeError` or `ValueError`, naming the argument, for bad
    input; `gramlm.CheckpointError` for a checkpoint of another solve, or a damaged one.

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm


        def residual(params, data):
            x, y = data
            return params["a"] * jnp.exp(-params["b"] * x) - y


        x = jnp.linspace(0.0, 4.0, 20)
        data = (x, 2.5 * jnp.exp(-1.3 * x))
        solution = gramlm.solve(residual, {"a": 1.0, "b": 1.0}, data)
        assert jnp.allclose(solution.value["b"], 1.3, rtol=1e-4)
        ```
    """
    began = time.perf_counter()
    budget = Budget(max_steps, max_evaluations, max_seconds)
    callbacks = as_progress(verbose) + as_callbacks(callback)
    source = None if resume is None else as_source(resume)
    problem = declared(residual_fn, loss, weights, lower, upper, free)
    free = resolved(problem.free, params)
    start, params, args = params, free.map(_as_array, params), jax.tree.map(_strong, args)
    task = Task(problem, params, args, has_aux, _DEFAULT if solver is None else solver)
    split = TaskSplit.of(task)
    if _is_transformed(task, split):
        _refuse_in_transformation(budget, callbacks, source)
        solution = _transformed(task, budget, history, callbacks, throw)
        return dataclasses.replace(solution, value=free.merge(start, solution.value))
    known = planned(task, split, None if source is None else source.costs)
    task, whole = known.followed(task, split)
    check_values(task, whole)
    interrupts = Interrupts()
    session = Session(callbacks, known.words, budget, began, interrupts.at_once)
    solution = HostLoop(task, whole, known, history, session, interrupts).run(source)
    return _concluded(solution, session, interrupts.asked, throw)


def _concluded(solution: Solution, session: Session, asked: bool, throw: bool) -> Solution:
    """The solution, or what is raised with it."""
    cause = session.cause
    if not throw:
        if cause is not None:
            print("A callback of `gramlm.solve` failed:", file=sys.stderr)
            traceback.print_exception(cause)
        return solution
    if cause is not None:
        what = f"{type(cause).__name__}: {cause}"
        message = f"{RESULTS[RESULTS.callback_failed]} It was {what}"
        raise SolveError(message, solution) from cause
    if asked or session.order is RESULTS.interrupted:
        message = RESULTS[solution.result] or RESULTS[RESULTS.interrupted]
        raise SolveInterrupted(message, solution)
    if code(solution.result) not in _NO_FAILURE:
        raise SolveError(RESULTS[solution.result], solution)
    return solution


def _is_transformed(task: Task, split: TaskSplit) -> bool:
    """Whether something is traced: an argument, or what the residual closes over."""
    if split.traced or outside():
        return split.traced
    flat = task.flat()[1]
    return isinstance(flat, Tracer) or isinstance(cost_at(Split.of(task), flat), Tracer)


def _transformed(
    task: Task,
    budget: Budget,
    history: Saving,
    callbacks: tuple[AbstractCallback, ...],
    throw: bool,
) -> Solution:
    """A solve inside of `jit`, `vmap`, or a derivative: one program."""
    if task.problem.checked:
        task = task._replace(params=look_closely(task))
    plan = plan_of(task)
    task = task._replace(solver=task.solver.following(plan))
    session = TracedSession(callbacks, str(plan), budget) if callbacks else None
    solution = solved(task, budget.steps, budget.evaluations, history, session)
    solution = dataclasses.replace(solution, plan=str(plan), costs=plan.size.costs)
    if not throw:
        return solution
    result = solution.result
    failed = (result != RESULTS.successful) & (result != RESULTS.stopped)
    value, result = result.error_if((solution.value, result), failed)
    return dataclasses.replace(solution, value=value, result=result)


def _refuse_in_transformation(
    budget: Budget, callbacks: tuple[AbstractCallback, ...], source: AbstractSource | None
) -> None:
    given = {
        "max_seconds": budget.seconds is not None,
        "resume": source is not None,
        "callback=gramlm.Checkpoints(…)": any(isinstance(c, Checkpoints) for c in callbacks),
    }
    for name, present in given.items():
        if present:
            raise ValueError(
                f"`{name}` does not go with `jit`, `vmap`, or derivatives of a solve, which make "
                "one program of it that knows neither clock nor files. Call `gramlm.solve` outside "
                "of them, or leave it out."
            )


def _as_array(leaf: Any) -> Any:
    # Python numbers become arrays, so that their values are not compiled in. What is no number is
    # left alone, for the check of the parameters to name.
    if isinstance(leaf, bool | int | float | complex):
        return np.asarray(leaf, jnp.result_type(leaf))
    return _strong(leaf)


def _strong(leaf: Any) -> Any:
    # A weakly typed array (`jnp.full(3, 2.0)`) would be another program than a strongly typed one,
    # and an array of NumPy's would go to the device anew for each program.
    if isinstance(leaf, jax.Array):
        if not leaf.weak_type:
            return leaf
        known = leaf.ndim == 0 and not isinstance(leaf, Tracer)
        return np.asarray(leaf) if known else jnp.asarray(leaf, leaf.dtype)
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
        return leaf.copy() if leaf.nbytes <= _LITTLE else jnp.asarray(leaf)
    return leaf
