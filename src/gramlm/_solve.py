"""The front door."""

import dataclasses
import warnings
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree, jaxtyped

from ._free import Free, resolved
from ._levenberg_marquardt import LevenbergMarquardt
from ._linearisation import AbstractLinearisation, AbstractMemoryPolicy, Keep
from ._misc import all_finite
from ._plan import Plan
from ._problem.declared import Problem, as_problem, free_of, residual_of
from ._problem.flat import FlatProblem, flat_problem
from ._problem.row_factor import DiagonalFactor
from ._progress import AbstractProgress, as_progress, report, shown
from ._residual.canonical import bind_args, split_aux
from ._solution import CRITERIA, RESULTS, History, Solution, SolveError

Params = TypeVar("Params", bound=PyTree)


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
    throw: bool = True,
    verbose: bool | AbstractProgress = False,
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
    - `max_steps`: the largest number of Jacobians.
    - `throw`: whether to raise when no tolerance of `solver.termination` was met.
    - `verbose`: `True` for one line a step, `gramlm.ProgressBar()` for a bar.
    - `loss`, `weights`, `lower`, `upper`: what a residual costs, what it counts, and bounds of the
      parameters, as in `gramlm.Problem`. A start outside of the bounds is moved to the nearest
      point within, with a warning.

    **Returns:** a `gramlm.Solution`. Whatever the result, `value` is the best point found.

    **Raises:** `gramlm.SolveError`, which holds the solution, when no tolerance was met and
    `throw` is set (inside of a transformation a runtime error with the same message). `TypeError`
    or `ValueError`, naming the argument, for bad input.
    """
    if max_steps < 1:
        raise ValueError(f"`max_steps` must be at least 1; got {max_steps}.")
    solver = LevenbergMarquardt() if solver is None else solver
    progress = as_progress(verbose)
    residual_fn = as_problem(
        residual_fn, loss=loss, weights=weights, lower=lower, upper=upper, free=free
    )
    chosen = resolved(free_of(residual_fn), params)
    start, params = params, chosen.map(_as_array, params)
    args = jax.tree.map(_strong, args)
    if isinstance(residual_fn, Problem):
        residual_fn = dataclasses.replace(residual_fn, free=chosen)
        if residual_fn.checked:
            params = _checked(*flat_problem(residual_fn, params, args, has_aux), params)
    plan = _planned(solver, residual_of(residual_fn), params, args, has_aux, chosen)
    solver = solver.following(plan)
    with shown(progress, max_steps, str(plan)):
        solution = _compiled(
            residual_fn, params, args, solver, has_aux, max_steps, progress is not None
        )
    value = chosen.merge(start, solution.value)
    solution = dataclasses.replace(solution, value=value, plan=str(plan))
    if not isinstance(solution.stats["num_steps"], Tracer):
        solution = _trimmed(solution)
        if throw and solution.result != RESULTS.successful:
            raise SolveError(RESULTS[solution.result], solution)
        return solution
    if throw:
        value, result = solution.result.error_if(
            (solution.value, solution.result), solution.result != RESULTS.successful
        )
        return eqx.tree_at(lambda s: (s.value, s.result), solution, (value, result))
    return solution


@jaxtyped(typechecker=beartype)
def linearise(
    residual_fn: Callable[..., Any],
    params: PyTree,
    args: PyTree = None,
    *,
    has_aux: bool = False,
    memory: AbstractMemoryPolicy | None = None,
) -> AbstractLinearisation:
    """The residual at `params` and products with its Jacobian there.

    `linearisation.residual` is the flat residual (n,); `jvp` and `vjp` multiply one vector by J
    and Jᵀ, `jvp_block` and `vjp_block` several. `memory` is `Keep()` unless given. Vectors are
    real: a complex array is all its real parts, and then all its imaginary parts.
    """
    problem, flat = flat_problem(residual_fn, params, args, has_aux)
    memory = Keep() if memory is None else memory
    problem = problem.prepared(memory)
    return problem.model(memory.linearise(problem.function, flat)[0]).at


def _checked(problem: FlatProblem, flat: Float[Array, " p"], params: PyTree) -> PyTree:
    """The parameters; says so if they have to be moved, or if what is traced turns out wrong."""
    box, weights = problem.box, problem.weights
    if box is not None:
        crossed = jnp.any(box.lower > box.upper)
        if isinstance(crossed, Tracer):
            params = eqx.error_if(params, crossed, "`lower` exceeds `upper` for some parameters.")
        outside = ~box.contains(flat)
        if not isinstance(outside, Tracer) and np.any(outside):
            warnings.warn(
                f"{int(np.sum(outside))} of the {flat.size} parameters given are outside of their "
                "bounds; the solve starts at the nearest point within.",
                stacklevel=5,
            )
    if isinstance(weights, DiagonalFactor) and isinstance(weights.values, Tracer):
        wrong = ~all_finite(weights.values)
        params = eqx.error_if(params, wrong, "`weights` must be finite and not negative.")
    return params


# The plans of earlier solves, so that another one need not look at the residual again.
_plans: weakref.WeakKeyDictionary[Any, dict[Any, Plan]] = weakref.WeakKeyDictionary()


def _planned(
    solver: LevenbergMarquardt, residual_fn, params, args, has_aux: bool, free: Free
) -> Plan:
    declared = as_problem(residual_fn, free=free)

    def shapes(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure, tuple(
            (leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf for leaf in leaves
        )

    try:
        choices = (solver.linear_solver, solver.memory, solver.memory_limit, has_aux)
        known = _plans.setdefault(residual_fn, {})
        key = (choices, shapes(params), shapes(args), free)
        hash(key)
    except (TypeError, AttributeError):  # not hashable, or no array
        return solver.plan(declared, params, args, has_aux=has_aux)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((params, args))):
        return solver.plan(declared, params, args, has_aux=has_aux)
    if key not in known:
        known[key] = solver.plan(declared, params, args, has_aux=has_aux)
    return known[key]


def _as_array(leaf: Any) -> Any:
    # Python numbers become arrays, so that their values are not compiled in. What is no number is
    # left alone, for the check of the parameters to name.
    return _strong(jnp.asarray(leaf) if isinstance(leaf, bool | int | float | complex) else leaf)


def _strong(leaf: Any) -> Any:
    # A weakly typed array (`jnp.full(3, 2.0)`) would be another program than a strongly typed one.
    return jnp.asarray(leaf, leaf.dtype) if isinstance(leaf, jax.Array) else leaf


@eqx.filter_jit
def _compiled(
    residual_fn,
    params,
    args,
    solver: LevenbergMarquardt,
    has_aux: bool,
    max_steps: int,
    verbose: bool,
) -> Solution:
    problem, flat = flat_problem(residual_fn, params, args, has_aux)
    flat = problem.project(flat)
    state = solver.init_flat(problem, flat)
    dtype = flat.dtype
    empty = jnp.full((max_steps,), jnp.nan, dtype)
    history = History(jnp.full((max_steps + 1,), jnp.nan, dtype), empty, empty)
    totals = {
        "num_accepted": jnp.zeros((), jnp.int32),
        "num_evaluations": jnp.zeros((), jnp.int32),
        "num_products": jnp.zeros((), jnp.int32),
        "inner_iterations": jnp.zeros((), jnp.int32),
    }
    last = {"linear_residual": jnp.zeros((), dtype), "relative_gradient": jnp.zeros((), dtype)}

    def unfinished(carry):
        _, state, _, _, _, result, _ = carry
        return (result == RESULTS.running) & (state.step < max_steps)

    def advance(carry):
        flat, state, history, totals, _, _, _ = carry
        index = state.step
        flat, state, info = solver.step_flat(problem, flat, state)
        if verbose:
            report(state.step, info)
        history = History(
            history.cost.at[index].set(info.cost_before).at[index + 1].set(info.cost),
            history.damping.at[index].set(info.damping),
            history.gradient_norm.at[index].set(info.gradient_norm),
        )
        totals = {
            "num_accepted": totals["num_accepted"] + info.accepted,
            "num_evaluations": totals["num_evaluations"] + info.evaluations,
            "num_products": totals["num_products"] + info.products,
            "inner_iterations": totals["inner_iterations"] + info.inner_iterations,
        }
        last = {
            "linear_residual": info.linear_residual,
            "relative_gradient": info.relative_gradient,
        }
        return flat, state, history, totals, last, info.result, info.criterion

    start = (flat, state, history, totals, last, RESULTS.running, CRITERIA.none)
    flat, state, history, totals, last, result, criterion = jax.lax.while_loop(
        unfinished, advance, start
    )
    result = RESULTS.where(result == RESULTS.running, RESULTS.nonlinear_max_steps_reached, result)
    end = history.cost[state.step]
    flat, cost = solver.acceptance.best(state.rules.acceptance, flat, end)
    passed = (result == RESULTS.successful) & (cost < (1 - jnp.finfo(dtype).eps ** 0.5) * end)
    result = RESULTS.where(passed, RESULTS.passed_better, result)
    value = problem.params_spec.unflatten(flat)
    aux = split_aux(bind_args(residual_of(residual_fn), args)(value))[1] if has_aux else None
    stats: dict[str, Any] = {
        "cost": cost,
        "initial_cost": history.cost[0],
        "num_steps": state.step,
        **totals,
        **last,
        "criterion": criterion,
    }
    return Solution(value, result, stats, history, aux, state)


def _trimmed(solution: Solution) -> Solution:
    k = int(solution.stats["num_steps"])
    history = solution.history

    def first(array: Array, count: int) -> Array:
        if isinstance(array, Tracer):
            return array[:count]
        # By NumPy: a slice by JAX would compile for each new length.
        return jax.device_put(np.asarray(array)[:count])

    trimmed = History(
        first(history.cost, k + 1), first(history.damping, k), first(history.gradient_norm, k)
    )
    return eqx.tree_at(lambda s: s.history, solution, trimmed)
