"""The front door."""

import dataclasses
import sys
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree, jaxtyped

from .._core.free import Free, resolved
from .._core.results import RESULTS, code
from .._linear.auto import Plan
from .._problem.box import Box
from .._problem.build import flat_problem
from .._problem.flat import FlatProblem
from .._problem.problem import Problem, as_problem, free_of, residual_of, with_arrays
from .._step.levenberg_marquardt import LevenbergMarquardt
from .callback.base import AbstractCallback, as_callbacks
from .callback.budget import Budget
from .callback.progress import as_progress
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.periodic import Checkpoints
from .checkpoint.resume import AbstractSource, as_source
from .history import Recording
from .host import Run
from .loop import begin, whole
from .pace import Pace
from .program import Split
from .solution import Solution, SolveError, SolveInterrupted
from .task import Task
from .traced import Watch

Callback = Callable[..., Any]

_DEFAULT = LevenbergMarquardt()


@jaxtyped(typechecker=beartype)
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
    history: Recording = Recording(),
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
    - `callback`: a function of a `gramlm.Event`, a `gramlm.AbstractCallback`, or a list of them,
      called after each step. It returns None, or `gramlm.Stop(…)`, `gramlm.SetDamping(…)`.
    - `verbose`: `True` for one line a step, `gramlm.ProgressBar()` for a bar.
    - `history`: `gramlm.Recording(params=True)` keeps the parameters of each step.
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
    solver = _DEFAULT if solver is None else solver
    residual_fn = with_arrays(
        as_problem(residual_fn, loss=loss, weights=weights, lower=lower, upper=upper, free=free)
    )
    chosen = resolved(free_of(residual_fn), params)
    start, params = params, chosen.map(_as_array, params)
    args = jax.tree.map(_strong, args)
    if isinstance(residual_fn, Problem):
        residual_fn = dataclasses.replace(residual_fn, free=chosen)
        if residual_fn.checked:
            params = _checked(*flat_problem(residual_fn, params, args, has_aux))
    known = _planned(solver, residual_fn, params, args, has_aux, chosen, source)
    task = Task(residual_fn, params, args, known.solver, has_aux)
    split = Split(task)
    begun = None if _any_traced(split.arrays) else begin(split)
    # A residual may close over what is transformed, too.
    if begun is None or _any_traced(begun):
        _refuse_in_transformation(budget, callbacks, source)
        solution = _transformed(task, known.plan, budget, history, callbacks, throw)
        return dataclasses.replace(solution, value=chosen.merge(start, solution.value))
    run = Run(task, split, known.plan, budget, history, callbacks, known.pace, began)
    if source is None:
        run.start(*begun)
    else:
        run.resume(source, *begun[:2])
    return _concluded(run.go(), run, throw)


def _concluded(solution: Solution, run: Run, throw: bool) -> Solution:
    """The solution, or what is raised with it."""
    if not throw:
        if run.cause is not None:
            print("A callback of `gramlm.solve` failed:", file=sys.stderr)
            traceback.print_exception(run.cause)
        return solution
    message = RESULTS[solution.result]
    if run.cause is not None:
        what = f"{type(run.cause).__name__}: {run.cause}"
        raise SolveError(
            f"{RESULTS[RESULTS.callback_failed]} It was {what}", solution
        ) from run.cause
    if run.interrupted:
        raise SolveInterrupted(message or RESULTS[RESULTS.interrupted], solution)
    if code(solution.result) not in (code(RESULTS.successful), code(RESULTS.stopped)):
        raise SolveError(message, solution)
    return solution


def _transformed(
    task: Task,
    plan: Plan,
    budget: Budget,
    history: Recording,
    callbacks: tuple[AbstractCallback, ...],
    throw: bool,
) -> Solution:
    """A solve inside of `jit`, `vmap`, or a derivative: one program."""
    watch = Watch(callbacks, str(plan), budget) if callbacks else None
    solution = whole(task, budget.steps, budget.evaluations, history, watch)
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


def _checked(problem: FlatProblem, flat: Float[Array, " p"]) -> PyTree:
    """The parameters within their bounds.

    Says so if they have to be moved, or if what is traced turns out wrong.
    """
    box = problem.box
    if isinstance(box, Box):
        crossed = jnp.any(box.lower > box.upper)
        if isinstance(crossed, Tracer):
            flat = eqx.error_if(flat, crossed, "`lower` exceeds `upper` for some parameters.")
        outside = ~box.contains(flat)
        if not isinstance(outside, Tracer) and np.any(outside):
            warnings.warn(
                f"{int(np.sum(outside))} of the {flat.size} parameters given are outside of their "
                "bounds; the solve starts at the nearest point within.",
                stacklevel=5,
            )
    flat = problem.weights.guarding(flat)
    return problem.params_spec.unflatten(box.project(flat))


class _Known(NamedTuple):
    """What was learnt by an earlier solve of the same shapes."""

    plan: Plan
    pace: Pace
    given: LevenbergMarquardt
    solver: LevenbergMarquardt  # that was given, following the plan


# So that another solve need not look at the residual again.
_known: weakref.WeakKeyDictionary[Any, dict[Any, _Known]] = weakref.WeakKeyDictionary()


def _planned(
    solver: LevenbergMarquardt,
    residual_fn,
    params,
    args,
    has_aux: bool,
    free: Free,
    source: AbstractSource | None,
) -> _Known:
    # Of what is declared, a plan depends on what is fixed and on whether there are bounds.
    function, lower, upper = residual_of(residual_fn), None, None
    if isinstance(residual_fn, Problem):
        lower, upper = residual_fn.lower, residual_fn.upper
    bounded = lower is not None or upper is not None
    declared = as_problem(function, free=free, lower=lower, upper=upper)

    def shapes(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure, tuple(
            (leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf for leaf in leaves
        )

    def new() -> _Known:
        if source is None:
            plan = solver.plan(declared, params, args, has_aux=has_aux)
        else:  # measured again, costs might lead to another plan
            problem, flat = flat_problem(declared, params, args, has_aux)
            plan = solver.plan_flat(problem, flat, source.costs)
        return _Known(plan, Pace(), solver, solver.following(plan))

    try:
        choices = (solver.linear_solver, solver.memory, solver.memory_limit, has_aux)
        known = _known.setdefault(function, {})
        costs = None if source is None else source.costs
        key = (choices, shapes(params), shapes(args), free, bounded, costs)
        hash(key)
    except (TypeError, AttributeError):  # not hashable, or no array
        return new()
    if _any_traced((params, args, solver)):
        return new()
    found = known.get(key)
    if found is None:
        found = known[key] = new()
    elif found.given is not solver:
        found = found._replace(given=solver, solver=solver.following(found.plan))
        known[key] = found
    return found


def _any_traced(tree: PyTree) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _as_array(leaf: Any) -> Any:
    # Python numbers become arrays, so that their values are not compiled in. What is no number is
    # left alone, for the check of the parameters to name.
    return _strong(jnp.asarray(leaf) if isinstance(leaf, bool | int | float | complex) else leaf)


def _strong(leaf: Any) -> Any:
    # A weakly typed array (`jnp.full(3, 2.0)`) would be another program than a strongly typed one,
    # and an array of NumPy's would go to the device anew for each program.
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
        return jnp.asarray(leaf)
    return jnp.asarray(leaf, leaf.dtype) if isinstance(leaf, jax.Array) else leaf
