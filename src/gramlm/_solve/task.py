"""What is solved, and how."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._problem.build import flat_problem
from .._problem.flat import FlatProblem
from .._problem.problem import Problem
from .._problem.residual.canonical import bind_args
from .._problem.residual.plain import split_aux
from .._step.levenberg_marquardt import LevenbergMarquardt
from .compiling import compiler_options, outside
from .program import Program, Split


class Task(NamedTuple):
    """A problem from its start, and a solver that follows a plan: arguments of all programs."""

    problem: Problem
    params: PyTree
    args: PyTree
    has_aux: bool
    solver: LevenbergMarquardt

    def flat(self) -> tuple[FlatProblem, Float[Array, " p"]]:
        """The problem over a flat vector, and the flat start within its bounds."""
        problem, flat = flat_problem(self.problem, self.params, self.args, self.has_aux)
        return problem, problem.box.project(flat)

    def value(self, leaves: Sequence[Array | None]) -> PyTree:
        """The parameters of these leaves, and those of the start in the place of None."""
        given, structure = jax.tree.flatten(self.params)
        pairs = zip(given, leaves, strict=True)
        return jax.tree.unflatten(structure, [a if b is None else b for a, b in pairs])

    def aux(self, value: PyTree) -> PyTree:
        """What the residual returns beside itself."""
        if not self.has_aux:
            return None
        return split_aux(bind_args(self.problem.residual_fn, self.args)(value))[1]


def aux_at(task: Task, value: PyTree) -> PyTree:
    """`Task.aux`, compiled. It need not be arrays."""
    return _aux_program(compiler_options() if outside() else ())(task, value)


@cache
def _aux_program(options: tuple[tuple[str, Any], ...]):
    def aux(task: Task, value: PyTree) -> PyTree:
        return task.aux(value)

    return eqx.filter_jit(aux, compiler_options=dict(options))  # pyright: ignore[reportCallIssue]


def _cost(task: Task, flat: Float[Array, " p"]) -> Float[Array, ""]:
    problem = task.flat()[0]
    return problem.cost(problem.residual(flat))


_costing = Program(_cost)


def cost_at(task: Split, flat: Float[Array | np.ndarray, " p"]) -> Float[Array, ""]:
    """`½‖r‖²`, or the loss, at any point."""
    return _costing(task, flat)
