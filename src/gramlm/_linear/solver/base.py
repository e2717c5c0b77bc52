"""The seam for linear solvers: one factorisation a Jacobian, any right-hand side and any λ.

Four nouns, each made from the one before it:

    AbstractGramSolver ── linearise(policy, residual_fn, θ) ──▶ AbstractLinearisation
                       ── factorise(linearisation, metric) ──▶ AbstractFactorisation
    AbstractFactorisation ── at(λ) ──▶ AbstractDampedSystem
    AbstractDampedSystem ── solve(b) ──▶ LinearStep

What a solver learns on the way, a Krylov basis for example, travels as a pytree of arrays: its
*work* from solve to solve with one Jacobian, and what it *recycles* from Jacobian to Jacobian.

    AbstractGramSolver.init ──▶ recycled ── factorise ──▶ work ── solve ──▶ work … ──▶ recycled
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core.arrays import Scalar, safe_divide
from ..._core.reductions import all_finite, dot, sum_squares
from ..._model.form import Form
from ..._model.linearisation import AbstractLinearisation
from ..._model.memory import AbstractMemoryPolicy
from ..._model.metric import metric_norm
from ..._problem.residual.base import AbstractResidual
from ..algebra.secular import COARSE, LengthBound, root


class LinearStep(eqx.Module):
    """The Levenberg–Marquardt step for one right-hand side b and one λ.

    **Attributes:**

    - `step`: `δ = −M⁻¹Jᵀ(JM⁻¹Jᵀ + λI)⁻¹ b`, (p,), parameter units; `image`: `Jδ`, (n,).
    - `relative_residual`: norm of what is left of the linear system over that of its right-hand
      side, computed from products with J, not from a recurrence.
    - `iterations` of an iterative solver, 0 for a direct one; `products` with J and Jᵀ.
    - `solved`: whether the step can be trusted.
    - `work`: what the solver has learnt so far, for its next solve with this Jacobian.
    """

    step: Float[Array, " p"]
    image: Float[Array, " n"]
    relative_residual: Float[Array, ""]
    iterations: Int[Array, ""]
    products: Int[Array, ""]
    solved: Bool[Array, ""]
    work: PyTree[Any] = None

    def predicted_decrease(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        """`½‖r‖² − ½‖r + Jδ‖²`, from the step as it is, not as it should be."""
        return -dot(residual, self.image) - 0.5 * sum_squares(self.image)


class AbstractDampedSystem(eqx.Module):
    """The system of one Jacobian at one λ.

    `setup_products`: the products with J that it took to prepare for this λ.
    """

    setup_products: eqx.AbstractVar[int]

    @abc.abstractmethod
    def solve(
        self, rhs: Float[Array, " n"], work: PyTree[Any], tolerance: Float[Array, ""]
    ) -> LinearStep:
        """The step for a right-hand side in residual space, (n,).

        `work` is that of the last solve, or the factorisation's. `tolerance` is a wish, which
        direct solvers ignore: the part of the decrease of `½‖b + Jδ‖² + ½λ‖δ‖²_M` that may be
        missed.
        """


class FoundDamping(eqx.Module):
    """A λ, and what it took to find it: `work` for the next solve, iterations and products."""

    damping: Float[Array, ""]
    work: PyTree[Any]
    iterations: Int[Array, ""]
    products: Int[Array, ""]


class AbstractFactorisation(eqx.Module):
    """What is known of one Jacobian in one metric, before λ is chosen.

    - `rounding`: the rounding error of K, in its units, below which a λ is lost. About
      `ε·λmax(K)` where K is formed or applied, and of ε² where J is factorised without
      squaring it.
    - `work`: what the first solve starts from, a pytree of arrays, or None.
    """

    rounding: eqx.AbstractVar[Float[Array, ""]]
    work: eqx.AbstractVar[PyTree[Any]]

    @abc.abstractmethod
    def at(self, damping: Float[Array, ""]) -> AbstractDampedSystem:
        """The system at `damping`."""

    @abc.abstractmethod
    def recycle(self, work: PyTree[Any]) -> PyTree[Any]:
        """What the next Jacobian shall know, from the work of the last solve; None for nothing."""

    @abc.abstractmethod
    def damping_within(self, bound: LengthBound, work: PyTree[Any]) -> FoundDamping:
        """The λ of a bound on the length of the step, to a tenth of it.

        `damping_by_solves(self, bound, work)` finds it from any factorisation. `work` is that of
        the last solve.
        """


def damping_by_solves(
    factors: AbstractFactorisation, bound: LengthBound, work: PyTree[Any]
) -> FoundDamping:
    """The λ of a bound on the length of the step, by solving for a few values of λ."""

    def look(damping: Float[Array, ""], extra: tuple):
        (before, inverse_before), work, iterations, products = extra
        system = factors.at(damping)
        solution = system.solve(bound.rhs, work, bound.tolerance)
        length = metric_norm(bound.metric, solution.step)
        square = length**2
        # The slope of 1/‖δ‖ over 1/‖δ‖ is a mean of 1/(μ + λ). Before there is a secant, take the
        # inverse of the same mean of μ + λ, which is less where more than one μ counts.
        first = safe_divide(square, sum_squares(solution.image) + damping * square)
        inverse = safe_divide(jnp.ones_like(length), length)
        secant = (inverse - inverse_before) / (damping - before) * length
        slope = jnp.where(secant > 0, secant, first)
        used = (iterations + solution.iterations, products + solution.products)
        return length, slope, ((damping, inverse), solution.work, *used)

    none = jnp.zeros((), jnp.int32)
    unknown = (jnp.full_like(bound.guess, jnp.nan), jnp.full_like(bound.guess, jnp.nan))
    damping, extra = root(look, (unknown, work, none, none), bound, COARSE, 8)
    return FoundDamping(damping, *extra[1:])


class AbstractGramSolver(eqx.Module):
    """Solves for Levenberg–Marquardt steps."""

    @abc.abstractmethod
    def init(
        self, residual: Float[Array, " n"], params: Float[Array, " p"], form: Form
    ) -> PyTree[Any]:
        """What is recycled before the first Jacobian, from arrays of the right shape and dtype."""

    @abc.abstractmethod
    def linearise(
        self, memory: AbstractMemoryPolicy, function: AbstractResidual, params: Float[Array, " p"]
    ) -> tuple[AbstractLinearisation, int]:
        """The linearisation that this solver wants, and the products with J it cost.

        That of the memory policy, `memory.linearise(function, params)`, unless it wants another.
        """

    @abc.abstractmethod
    def factorise(
        self,
        linearisation: AbstractLinearisation,
        metric: lx.AbstractLinearOperator,
        largest_eigenvalue: Float[Array, ""],
        form: Form,
        recycled: PyTree[Any],
    ) -> AbstractFactorisation:
        """Everything that does not depend on λ. `largest_eigenvalue` estimates λmax(JM⁻¹Jᵀ)."""


def trusted(
    step: Float[Array, " p"], relative_residual: Float[Array, ""], tolerance: Scalar
) -> Bool[Array, ""]:
    """Whether a linear solve may be used: finite, and its true residual below `tolerance`."""
    return all_finite(step) & (relative_residual <= tolerance) & jnp.isfinite(relative_residual)
