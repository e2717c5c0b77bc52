"""What is solved, and how."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .._problem.build import flat_problem
from .._problem.flat import FlatProblem
from .._problem.problem import residual_of
from .._problem.residual.canonical import bind_args, split_aux
from .._step.levenberg_marquardt import LevenbergMarquardt
from .program import Program, Split


class Task(NamedTuple):
    """A problem from its start, and a solver that follows a plan: arguments of all programs."""

    residual_fn: Callable[..., Any]
    params: PyTree
    args: PyTree
    solver: LevenbergMarquardt
    has_aux: bool

    def flat(self) -> tuple[FlatProblem, Float[Array, " p"]]:
        """The problem over a flat vector, and the flat start."""
        return flat_problem(self.residual_fn, self.params, self.args, self.has_aux)

    def value(self, leaves: Sequence[Array | None]) -> PyTree:
        """The parameters of these leaves, and those of the start in the place of None."""
        given, structure = jax.tree.flatten(self.params)
        pairs = zip(given, leaves, strict=True)
        return jax.tree.unflatten(structure, [a if b is None else b for a, b in pairs])

    def aux(self, value: PyTree) -> PyTree:
        """What the residual returns beside itself."""
        if not self.has_aux:
            return None
        return split_aux(bind_args(residual_of(self.residual_fn), self.args)(value))[1]


@eqx.filter_jit
def aux_at(task: Task, value: PyTree) -> PyTree:
    """`Task.aux`, compiled."""
    return task.aux(value)


def _cost(task: Task, flat: Float[Array, " p"]) -> Float[Array, ""]:
    problem = task.flat()[0]
    return problem.cost(problem.residual(flat))


_costing = Program(_cost)


def cost_at(task: Task, flat: Float[Array, " p"]) -> Float[Array, ""]:
    """`½‖r‖²`, or the loss, at any point."""
    return _costing(Split(task), flat)
