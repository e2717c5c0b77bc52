"""Corrections of a step beyond the linear model."""

import abc
from typing import Any

import equinox as eqx
import jax
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._gram_solver.base import AbstractDampedSystem, LinearStep
from ._metric import metric_norm
from ._misc import Scalar, all_finite, safe_divide
from ._residual import AbstractResidual


class Correction(eqx.Module):
    """A correction a of a step v: the corrected step is `v + a`.

    **Attributes:** `step` a, (p,); `ratio`: `2‖a‖_M/‖v‖_M`; `usable`: whether v + a is worth an
    evaluation; `iterations`, `products` and `work` of its linear solve.
    """

    step: Float[Array, " p"]
    ratio: Float[Array, ""]
    usable: Bool[Array, ""]
    iterations: Int[Array, ""]
    products: Int[Array, ""]
    work: PyTree[Any] = None


class AbstractCorrection(eqx.Module):
    """Supplies a correction for each trial step, or None where there is none by design."""

    @abc.abstractmethod
    def correct(
        self,
        function: AbstractResidual,
        params: Float[Array, " p"],
        metric: lx.AbstractLinearOperator,
        system: AbstractDampedSystem,
        velocity: LinearStep,
        tolerance: Float[Array, ""],
    ) -> Correction | None:
        """The correction of `velocity`, with the factorisation that gave it.

        The linear solve starts from `velocity.work` and passes its own on; `tolerance` is for it.
        """


class NoCorrection(AbstractCorrection):
    """The plain Levenberg–Marquardt step."""

    def correct(self, function, params, metric, system, velocity, tolerance) -> None:
        return None


class Geodesic(AbstractCorrection):
    """Geodesic acceleration (Transtrum, Machta and Sethna 2011; Transtrum and Sethna 2012).

    `a = −½ M⁻¹Jᵀ(JM⁻¹Jᵀ + λI)⁻¹ r_vv`, with the exact second directional derivative
    `r_vv = d²/dt² r(θ + t v)` by nested forward differentiation, and the factorisation of v. It
    is used only if `2‖a‖_M ≤ max_ratio·‖v‖_M` and the cost at `θ + v + a` is no higher than the
    cost at `θ + v`.
    """

    max_ratio: Scalar = 0.75

    def __check_init__(self):
        if isinstance(self.max_ratio, float | int) and not self.max_ratio > 0:
            raise ValueError(f"`max_ratio` must be positive; got {self.max_ratio}.")

    def correct(
        self,
        function: AbstractResidual,
        params: Float[Array, " p"],
        metric: lx.AbstractLinearOperator,
        system: AbstractDampedSystem,
        velocity: LinearStep,
        tolerance: Float[Array, ""],
    ) -> Correction:
        v = velocity.step

        def first(at):
            return jax.jvp(function, (at,), (v,))[1]

        try:
            second = jax.jvp(first, (params,), (v,))[1]
        except TypeError as error:
            error.add_note(
                "Geodesic acceleration differentiates the residual twice in forward mode. For a "
                "residual with a reverse rule alone (`jax.custom_vjp`), pass "
                "`LevenbergMarquardt(correction=NoCorrection())`."
            )
            raise
        solution = system.solve(0.5 * second, velocity.work, tolerance)
        ratio = safe_divide(2 * metric_norm(metric, solution.step), metric_norm(metric, v))
        usable = all_finite(solution.step) & solution.solved & (ratio <= self.max_ratio)
        return Correction(
            step=solution.step,
            ratio=ratio,
            usable=usable,
            iterations=solution.iterations,
            products=solution.products + 2,
            work=solution.work,
        )
