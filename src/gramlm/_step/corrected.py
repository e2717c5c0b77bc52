"""The step for one λ, and what is tried of it: by itself, or with a correction as well.

A correction wraps any damped solve: it is one further right-hand side for the same system.
"""

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, PyTree

from .._core.arrays import safe_divide
from .._core.reductions import all_finite, norm, sum_squares
from .._core.spent import Spent
from .._linear.solver.base import AbstractDampedSystem, LinearStep
from .._model.metric import metric_norm
from .._model.model import Model
from .._problem.residual.base import AbstractResidual
from .region import AbstractSubproblem
from .rules.correction import AbstractCorrection


class DampedSolve(eqx.Module):
    """A subproblem at one λ: all that it takes to solve for a step.

    - `model`: that whose decrease a step promises. `function` and `params`, (p,): the residual of
      which a correction asks for more than the model knows, and where.
    - `velocity`, `acceleration`: how exactly to solve for either.
    """

    subproblem: AbstractSubproblem
    system: AbstractDampedSystem
    metric: lx.AbstractLinearOperator
    model: Model
    function: AbstractResidual
    params: Float[Array, " p"]
    velocity: Float[Array, ""]
    acceleration: Float[Array, ""]


class TrialStep(eqx.Module):
    """A step v for one λ, and the k steps that are tried: v, and v + a where there is a correction.

    - `steps`, (k, p), the plain one first; `wanted`, (k,): whether each is worth an evaluation.
    - `length`: `‖v‖_M`; `ratio`: `2‖a‖_M/‖v‖_M`.
    - `spent`, `work`: of all solves. `demand`: what v asks of the region.
    """

    velocity: LinearStep
    steps: Float[Array, "k p"]
    wanted: Bool[Array, " k"]
    length: Float[Array, ""]
    ratio: Float[Array, ""]
    spent: Spent
    work: PyTree[Any]
    demand: PyTree[Any]


class AbstractStepper(eqx.Module):
    """Makes the steps that are tried at one λ."""

    @abc.abstractmethod
    def step(self, solve: DampedSolve, work: PyTree[Any]) -> TrialStep:
        """The step, from the `work` of the last solve."""

    @abc.abstractmethod
    def curvature(
        self, step: TrialStep, taken: Float[Array, " p"], params: Float[Array, " p"]
    ) -> Float[Array, ""]:
        """Of r over what rounds θ: infinite where nothing is known of it."""


class Plain(AbstractStepper):
    """The step alone."""

    def step(self, solve: DampedSolve, work: PyTree[Any]) -> TrialStep:
        subproblem = solve.subproblem
        solution = solve.system.solve(subproblem.rhs, work, solve.velocity)
        velocity, demand = subproblem.completed(solution, True)
        return TrialStep(
            velocity=velocity,
            steps=velocity.step[None],
            wanted=jnp.asarray([subproblem.tried(demand)]),
            length=metric_norm(solve.metric, velocity.step),
            ratio=jnp.zeros_like(velocity.relative_residual),
            spent=Spent(0, velocity.iterations, velocity.products),
            work=solution.work,
            demand=demand,
        )

    def curvature(
        self, step: TrialStep, taken: Float[Array, " p"], params: Float[Array, " p"]
    ) -> Float[Array, ""]:
        return jnp.full_like(step.ratio, jnp.inf)


class Corrected(AbstractStepper):
    """The step, and with the same factorisation its correction.

    What the velocity may miss of the decrease the correction may miss as well: where its whole
    right-hand side is hardly more than that, an iterative solver spends nothing on it, and it is
    used only if it is solved anyway.
    """

    correction: AbstractCorrection

    def step(self, solve: DampedSolve, work: PyTree[Any]) -> TrialStep:
        subproblem = solve.subproblem

        def second(v: Float[Array, " p"]) -> Float[Array, " n"]:
            rhs = self.correction.right_hand_side(solve.function, solve.params, v)
            return solve.model.curved(rhs)

        # In a loop, so that the solver is compiled once.
        def solved(carry, first):
            previous, allowed, work = carry
            rhs = jax.lax.cond(first, lambda v: subproblem.rhs, second, previous)
            size = 0.5 * sum_squares(rhs)
            # Either enough for a solver to call it solved, or nothing.
            worth = 3 * allowed < size
            enough = jnp.where(worth, jnp.sqrt(safe_divide(allowed, size)), 1)
            tolerance = jnp.maximum(solve.acceleration, enough)
            solution = solve.system.solve(rhs, work, jnp.where(first, solve.velocity, tolerance))
            work = solution.work
            solution = dataclasses.replace(solution, work=None)
            solution, demand = subproblem.completed(solution, first)
            promised = jnp.maximum(solution.predicted_decrease(solve.model.at.residual), 0)
            allowed = solve.velocity**2 * promised
            # A step that is not tried needs no correction.
            allowed = _unless(subproblem.tried(demand), allowed, jnp.inf)
            return (solution.step, allowed, work), (solution, demand)

        step = solve.metric.in_structure()
        start = jnp.zeros(step.shape, step.dtype), jnp.zeros((), step.dtype), work
        (_, _, work), both = jax.lax.scan(solved, start, jnp.asarray([True, False]))
        (velocity, demand), (acceleration, _) = (
            jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1)
        )
        length = metric_norm(solve.metric, velocity.step)
        ratio = safe_divide(2 * metric_norm(solve.metric, acceleration.step), length)
        good = acceleration.solved & all_finite(acceleration.step)
        usable = good & (ratio <= self.correction.max_ratio)
        tried = subproblem.tried(demand)
        return TrialStep(
            velocity=velocity,
            steps=jnp.stack([velocity.step, velocity.step + acceleration.step]),
            wanted=jnp.stack([jnp.asarray(tried), usable & tried]),
            length=length,
            ratio=ratio,
            spent=Spent(0, velocity.iterations, velocity.products)
            + Spent(0, acceleration.iterations, acceleration.products)
            + Spent(products=self.correction.products),
            work=work,
            demand=demand,
        )

    def curvature(
        self, step: TrialStep, taken: Float[Array, " p"], params: Float[Array, " p"]
    ) -> Float[Array, ""]:
        """The correction over its step, or over what rounds θ where that is the longer."""
        rounding = jnp.finfo(params.dtype).eps * norm(params)
        return step.ratio * jnp.maximum(1, safe_divide(rounding, norm(taken)))


def stepper_of(correction: AbstractCorrection | None) -> AbstractStepper:
    """With the correction of the solver, if there is one."""
    return Plain() if correction is None else Corrected(correction)


def _unless(sure: Bool[Array, ""] | bool, value: Array, otherwise: float) -> Array:
    """`value`, or the other where it is not sure; nothing to compute where that is known."""
    return value if sure is True else jnp.where(sure, value, otherwise)
