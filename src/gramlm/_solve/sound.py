"""Whether what was declared is sound by its values, which no shape shows."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, PyTree

from .._problem.build import flat_problem
from .program import Program, Split
from .task import Task


def check_values(task: Task, split: Split) -> None:
    """Raises `ValueError` for bounds or weights that cannot be; warns of a start out of bounds.

    All is looked at by one program, and again, one by one, where something is wrong.
    """
    if task.problem.checked and _doubting(split):
        look_closely(task)


def look_closely(task: Task) -> PyTree:
    """The parameters. Says what is wrong; of what is traced, when the program runs."""
    problem, flat = flat_problem(task.problem, task.params, task.args, task.has_aux)
    box = problem.box
    empty, outside = box.empty, ~box.contains(flat)
    if isinstance(empty, Tracer):
        flat = eqx.error_if(flat, empty, "`lower` exceeds `upper` for some parameters.")
    if not isinstance(outside, Tracer) and np.any(outside):
        warnings.warn(
            f"{int(np.sum(outside))} of the {flat.size} parameters given are outside of their "
            "bounds; the solve starts at the nearest point within.",
            stacklevel=5,
        )
    return problem.params_spec.unflatten(problem.weights.guarding(flat))


def _doubts(task: Task) -> Bool[Array, ""]:
    problem, flat = flat_problem(task.problem, task.params, task.args, task.has_aux)
    outside = ~jnp.all(problem.box.contains(flat))
    return problem.box.empty | outside | ~problem.weights.sound


_doubting = Program(_doubts)
