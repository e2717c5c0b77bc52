"""A step with its correction, from one factorisation."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.arrays import safe_divide
from .._core.reductions import all_finite, sum_squares
from .._linear.solver.base import AbstractDampedSystem, LinearStep
from .._model.metric import metric_norm
from .._model.model import Model
from .._problem.flat import FlatProblem
from .faces import OnFace, WantedFace
from .rules.correction import AbstractCorrection


class CorrectedStep(eqx.Module):
    """A step v, and its correction a if there is one.

    `length`: `‖v‖_M`; `ratio`: `2‖a‖_M/‖v‖_M`; `usable`: whether v + a is worth an evaluation;
    `iterations`, `products` and `work` of both solves; `face`: with bounds, that which v asks for.
    """

    velocity: LinearStep
    acceleration: LinearStep | None
    length: Float[Array, ""]
    ratio: Float[Array, ""]
    usable: Bool[Array, ""]
    iterations: Int[Array, ""]
    products: Int[Array, ""]
    work: PyTree[Any]
    face: WantedFace | None


def corrected_step(
    correction: AbstractCorrection | None,
    problem: FlatProblem,
    model: Model,
    params: Float[Array, " p"],
    metric: lx.AbstractLinearOperator,
    system: AbstractDampedSystem,
    work: PyTree[Any],
    velocity_tolerance: Float[Array, ""],
    acceleration_tolerance: Float[Array, ""],
    on_face: OnFace | None,
) -> CorrectedStep:
    """Solves for the velocity, and with the same factorisation for its correction.

    What the velocity may miss of the decrease the correction may miss as well: where its whole
    right-hand side is hardly more than that, an iterative solver spends nothing on it, and it is
    used only if it is solved anyway.
    """
    residual = model.at.residual if on_face is None else on_face.residual

    def completed(solution: LinearStep, first) -> tuple[LinearStep, WantedFace | None]:
        if on_face is None:
            return solution, None
        # Bound methods of modules that hold arrays cannot be hashed.
        here = on_face
        return jax.lax.cond(first, lambda x: here.completed(x), lambda x: here.freed(x), solution)

    if correction is None:
        solution = system.solve(residual, work, velocity_tolerance)
        velocity, face = completed(solution, True)
        zero = jnp.zeros_like(velocity.relative_residual)
        return CorrectedStep(
            velocity, None, metric_norm(metric, velocity.step), zero, jnp.asarray(False),
            velocity.iterations, velocity.products, velocity.work, face,
        )  # fmt: skip

    def curvature(v: Float[Array, " p"]) -> Float[Array, " n"]:
        return model.curved(correction.right_hand_side(problem.function, params, v))

    # In a loop, so that the solver is compiled once.
    def solve(carry, first):
        previous, allowed, work = carry
        rhs = jax.lax.cond(first, lambda v: residual, curvature, previous)
        size = 0.5 * sum_squares(rhs)
        # Either enough for a solver to call it solved, or nothing.
        worth = 3 * allowed < size
        enough = jnp.where(worth, jnp.sqrt(safe_divide(allowed, size)), 1)
        tolerance = jnp.maximum(acceleration_tolerance, enough)
        solution = system.solve(rhs, work, jnp.where(first, velocity_tolerance, tolerance))
        work = solution.work
        solution, face = completed(dataclasses.replace(solution, work=None), first)
        promised = jnp.maximum(solution.predicted_decrease(model.at.residual), 0)
        allowed = velocity_tolerance**2 * promised
        if face is not None:
            # A step that is not tried needs no correction.
            allowed = jnp.where(face.refine, jnp.inf, allowed)
        return (solution.step, allowed, work), (solution, face)

    start = jnp.zeros_like(params), jnp.zeros((), params.dtype), work
    (_, _, work), both = jax.lax.scan(solve, start, jnp.asarray([True, False]))
    (velocity, face), (acceleration, _) = (jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))
    length = metric_norm(metric, velocity.step)
    ratio = safe_divide(2 * metric_norm(metric, acceleration.step), length)
    good = acceleration.solved & all_finite(acceleration.step)
    usable = good & (ratio <= correction.max_ratio)
    if face is not None:
        usable &= ~face.refine
    iterations = velocity.iterations + acceleration.iterations
    products = velocity.products + acceleration.products + correction.products
    return CorrectedStep(
        velocity, acceleration, length, ratio, usable, iterations, products, work, face
    )
