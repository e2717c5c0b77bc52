"""Systems solved by conjugate gradients, and what one Jacobian leaves to the next."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core.arrays import safe_divide
from ..._core.reductions import all_finite, norm
from ..._model.undamped import UndampedSystem
from ..algebra.cg import CGSolution, dual_gap, normal_gap, preconditioned_cg
from ..algebra.directions import SearchDirections
from ..algebra.secular import LengthBound
from ..algebra.usable import USABLE_MISS
from ..preconditioner.base import AbstractPreconditioner
from .base import (
    AbstractDampedSystem,
    AbstractFactorisation,
    FoundDamping,
    LinearStep,
    damping_by_solves,
)


class Recycled(eqx.Module):
    """What the next Jacobian is told.

    **Attributes:** `state` of the preconditioner; `reference`, the iterations of the longest solve
    with the Jacobian that it was last built for; `debt`, the products that iterations beyond
    `reference` have cost since then; `damping` λ of the last solve, 0 before any; `step`, Jacobians
    so far.
    """

    state: PyTree[Any]
    reference: Int[Array, ""]
    debt: Int[Array, ""]
    damping: Float[Array, ""]
    step: Int[Array, ""]


class Work(eqx.Module):
    """What the solves of one Jacobian leave: search directions, and their counts.

    `unreported`: products of the set-up that no solve has yet reported.
    """

    directions: SearchDirections
    longest: Int[Array, ""]
    debt: Int[Array, ""]
    damping: Float[Array, ""]
    unreported: Int[Array, ""]


class PCGFactorisation(AbstractFactorisation):
    """The undamped system and a preconditioner, `built` for it or kept from before."""

    preconditioner: AbstractPreconditioner
    max_iterations: int = eqx.field(static=True)
    system: UndampedSystem
    state: PyTree[Any]
    built: Bool[Array, ""]
    recycled: Recycled
    rounding: Float[Array, ""]
    work: Work

    def at(self, damping: Float[Array, ""]) -> "PCGSystem":
        return PCGSystem(factors=self, damping=damping)

    def damping_within(self, bound: LengthBound, work: Work) -> FoundDamping:
        return damping_by_solves(self, bound, work)

    def recycle(self, work: Work) -> Recycled:
        before = self.recycled
        measured = self.built & (work.longest > 0)
        return Recycled(
            state=self.preconditioner.harvest(self.state, work.directions),
            reference=jnp.where(measured, work.longest, before.reference),
            debt=jnp.where(self.built, 0, before.debt + work.debt),
            damping=work.damping,
            step=before.step + 1,
        )


class PCGSystem(AbstractDampedSystem):
    """The system at one λ."""

    factors: PCGFactorisation
    damping: Float[Array, ""]
    setup_products: int = eqx.field(static=True, default=0)

    def solve(self, rhs: Float[Array, " n"], work: Work, tolerance: Float[Array, ""]) -> LinearStep:
        system = self.factors.system
        b = rhs if system.dual else system.push(rhs)
        found = _solved(self, b, work.directions, tolerance)
        if system.dual:
            step, image = -system.whitening.step(system.pull(found.solution)), -found.image
        else:
            step = -system.whitening.step(found.solution)
            image = -system.pull(found.solution)
        relative = safe_divide(norm(found.residual), norm(b))
        good = (found.missed <= USABLE_MISS) | found.rounded
        beyond = jnp.maximum(found.iterations - self.factors.recycled.reference, 0)
        # A solve that was cut short is no measure of what the preconditioner can do.
        cut = found.iterations >= self.factors.max_iterations
        beyond = jnp.where(cut, found.iterations, beyond)
        return LinearStep(
            step=step,
            image=image,
            relative_residual=relative,
            iterations=found.iterations,
            products=2 * found.products + (1 if system.dual else 2) + work.unreported,
            solved=good & all_finite(step) & all_finite(image),
            work=Work(
                directions=found.directions,
                longest=jnp.maximum(work.longest, found.iterations),
                debt=work.debt + 2 * beyond,
                damping=self.damping,
                unreported=jnp.zeros_like(work.unreported),
            ),
        )


@eqx.filter_custom_jvp
def _solved(
    system: PCGSystem,
    b: Float[Array, " m"],
    directions: SearchDirections,
    tolerance: Float[Array, ""],
) -> CGSolution:
    """`(K + λI)⁻¹ b`, starting from the solution in the span of the directions."""
    factors, damping = system.factors, system.damping
    undamped = factors.system
    start = None
    if directions.vectors.shape[0] > 0:
        start = jax.lax.cond(
            directions.count > 0,
            lambda: directions.galerkin(b, damping),
            lambda: (jnp.zeros_like(b), jnp.zeros_like(b)),
        )
    return preconditioned_cg(
        undamped.multiply,
        factors.preconditioner.at(undamped, damping, factors.state),
        b,
        damping,
        largest_eigenvalue=undamped.largest,
        tolerance=tolerance**2,
        max_iterations=factors.max_iterations,
        start=start,
        gap=dual_gap if undamped.dual else normal_gap,
        directions=directions,
    )


@_solved.def_jvp
def _(primals, tangents):
    """`(K + λI) ẇ = ḃ − K̇ w − λ̇ w`, and the derivative of `K w`; of nothing else."""
    system, b, directions, tolerance = primals
    t_system, t_b, *_ = tangents
    found = _solved(system, b, directions, tolerance)

    def applied(system: PCGSystem):
        return system.factors.system.multiply(found.solution), system.damping * found.solution

    parts = *eqx.filter_jvp(applied, (system,), (t_system,))[1], t_b
    t_image, t_shift, t_b = (jnp.zeros_like(b) if t is None else t for t in parts)
    moved = _solved(system, t_b - t_image - t_shift, found.directions, tolerance)
    nothing = jax.tree.map(lambda _: None, found)
    derivative = eqx.tree_at(
        lambda solution: (solution.solution, solution.image),
        nothing,
        (moved.solution, t_image + moved.image),
        is_leaf=lambda leaf: leaf is None,
    )
    return found, derivative
