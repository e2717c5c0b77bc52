"""Preconditioned conjugate gradients, with a preconditioner that outlives its Jacobian."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core.arrays import safe_divide
from ..._core.checks import check_at_least, check_not_negative
from ..._core.reductions import all_finite, norm
from ..._model.form import Form
from ..._model.linearisation import AbstractLinearisation
from ..._model.memory import AbstractMemoryPolicy
from ..._model.undamped import UndampedSystem
from ..._problem.residual.base import AbstractResidual
from ..algebra.cg import CGSolution, dual_gap, normal_gap, preconditioned_cg
from ..algebra.directions import SearchDirections
from ..algebra.secular import LengthBound
from ..algebra.usable import USABLE_MISS
from ..preconditioner.base import AbstractPreconditioner
from ..preconditioner.recycled_directions import RecycledDirections
from .base import (
    AbstractDampedSystem,
    AbstractFactorisation,
    AbstractGramSolver,
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


class PreconditionedCG(AbstractGramSolver):
    """Conjugate gradients on `(JM⁻¹Jᵀ + λI) w = b`, or in the normal form on `L⁻¹JᵀJL⁻ᵀ + λI`.

    It stores a preconditioner and search directions, where a Krylov basis would be too large to
    hold: for a spectrum that decays slowly, or very many residuals.

    The preconditioner approximates K, not `K + λI`, so that one approximation serves any λ, and
    the next Jacobians as well. It is built anew when the iterations beyond those of the
    Jacobian that it was built for have cost as many products as building it takes. So the
    first Jacobians are solved without, unless it is free.

    The first `num_directions` search directions of a Jacobian, and their images under K, are
    remembered: each further solve with it (the geodesic correction, another λ) starts from the best
    solution in their span, and `RecycledDirections` and `Nystrom` learn from them.

    Each solve ends when no more than the part η² of the decrease is missed, η its tolerance, or
    after `max_iterations`. Two products with J an iteration.

    !!! Example

        ```python
        import gramlm

        # For residuals that are sorted in space.
        linear = gramlm.PreconditionedCG(gramlm.BlockJacobi(32), num_directions=64)
        solver = gramlm.LevenbergMarquardt(linear_solver=linear)
        ```
    """

    preconditioner: AbstractPreconditioner = RecycledDirections()
    max_iterations: int = eqx.field(static=True, default=500)
    num_directions: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        if not isinstance(self.preconditioner, AbstractPreconditioner):
            raise TypeError(
                "`PreconditionedCG(preconditioner=…)` takes an `AbstractPreconditioner`; got "
                f"{self.preconditioner!r}. A lineax operator goes into `UserPreconditioner`."
            )
        check_at_least(self.max_iterations, "max_iterations", 1)
        check_not_negative(self.num_directions, "num_directions")

    def init(
        self, residual: Float[Array, " n"], params: Float[Array, " p"], form: Form
    ) -> Recycled:
        dual = form.resolve(residual.size, params.size) is Form.dual
        none = jnp.zeros((), jnp.int32)
        return Recycled(
            state=self.preconditioner.init(residual if dual else params),
            reference=none,
            debt=none,
            damping=jnp.zeros((), residual.dtype),
            step=none,
        )

    def linearise(
        self, memory: AbstractMemoryPolicy, function: AbstractResidual, params: Float[Array, " p"]
    ) -> tuple[AbstractLinearisation, int]:
        return memory.linearise(function, params)

    def factorise(
        self,
        linearisation: AbstractLinearisation,
        metric: lx.AbstractLinearOperator,
        largest_eigenvalue: Float[Array, ""],
        form: Form,
        recycled: Recycled,
    ) -> "PCGFactorisation":
        system = UndampedSystem.of(linearisation, metric, largest_eigenvalue, form)
        price = self.preconditioner.price(system)
        # Solutions do not depend on what preconditions them: no derivatives of decompositions.
        fixed, damping = _without_derivatives((system, recycled.damping))

        def build(state: PyTree[Any]) -> tuple[PyTree[Any], Int[Array, ""]]:
            state, products = self.preconditioner.build(fixed, damping, recycled.step, state)
            return state, jnp.asarray(products, jnp.int32)

        def keep(state: PyTree[Any]) -> tuple[PyTree[Any], Int[Array, ""]]:
            return state, jnp.zeros((), jnp.int32)

        if price == 0:
            built = jnp.asarray(True)
            state, products = build(recycled.state)
        else:
            built = recycled.debt >= price
            state, products = jax.lax.cond(built, build, keep, recycled.state)
        # A Jacobian that is not finite must not be remembered.
        leaves = jax.tree.leaves(state)
        sound = jnp.all(jnp.asarray([all_finite(leaf) for leaf in leaves]))
        state = jax.tree.map(lambda new, old: jnp.where(sound, new, old), state, recycled.state)
        built = built & sound
        capacity = min(self.num_directions, system.size)
        none = jnp.zeros((), jnp.int32)
        return PCGFactorisation(
            settings=self,
            system=system,
            state=state,
            built=built,
            recycled=recycled,
            rounding=jnp.finfo(system.dtype).eps * largest_eigenvalue,
            work=Work(
                directions=SearchDirections.empty(
                    capacity, jnp.zeros((system.size,), system.dtype)
                ),
                longest=none,
                debt=none,
                damping=recycled.damping,
                unreported=products,
            ),
        )


class PCGFactorisation(AbstractFactorisation):
    """The undamped system and a preconditioner, `built` for it or kept from before."""

    settings: PreconditionedCG
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
            state=self.settings.preconditioner.harvest(self.state, work.directions),
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
        settings, system = self.factors.settings, self.factors.system
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
        cut = found.iterations >= settings.max_iterations
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
    undamped, settings = factors.system, factors.settings
    start = None
    if directions.vectors.shape[0] > 0:
        start = jax.lax.cond(
            directions.count > 0,
            lambda: directions.galerkin(b, damping),
            lambda: (jnp.zeros_like(b), jnp.zeros_like(b)),
        )
    return preconditioned_cg(
        undamped.multiply,
        settings.preconditioner.at(undamped, damping, factors.state),
        b,
        damping,
        largest_eigenvalue=undamped.largest,
        tolerance=tolerance**2,
        max_iterations=settings.max_iterations,
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


def _without_derivatives(tree: PyTree[Any]) -> PyTree[Any]:
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)
