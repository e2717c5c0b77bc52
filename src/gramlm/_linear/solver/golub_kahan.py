"""The Krylov basis of the normal form, for n > p, by block Golub–Kahan: JᵀJ is never squared.

In whitened parameters, `A = J L⁻ᵀ` with `M = L Lᵀ`, and two orthonormal bases:

    Z (k, p),    Z Aᵀ = Rᵀ U,    U (k, n)

The damped problem restricted to `δ = −L⁻ᵀ Zᵀ y` is `min ‖b − A Zᵀ y‖² + λ‖y‖²`, a least-squares
problem with R, which has the condition number of J.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ..._core.reductions import all_finite, dot, norm, sum_squares
from ..._model.gram import Gram
from ..._model.whitening import Whitening
from ..algebra.blocks import outside
from ..algebra.cg import normal_gap, preconditioned_cg
from ..algebra.finish import deflation, finished
from ..algebra.growth import Attempt, Outcome, Recycled, Work, grown, recycled
from ..algebra.secular import LengthBound
from ..algebra.sizes import BlockSizes
from ..algebra.tall import TallSubspace
from .base import (
    AbstractDampedSystem,
    AbstractFactorisation,
    FoundDamping,
    LinearStep,
    damping_by_solves,
)


class GolubKahanFactorisation(AbstractFactorisation):
    """Products with A, and what is recycled; the bases are the work."""

    gram: Gram[Whitening]
    recycled: Recycled
    largest: Float[Array, ""]
    rounding: Float[Array, ""]
    work: Work[TallSubspace]
    sizes: BlockSizes = eqx.field(static=True)
    keep: float = eqx.field(static=True)
    max_iterations: int = eqx.field(static=True)

    def at(self, damping: Float[Array, ""]) -> "GolubKahanSystem":
        return GolubKahanSystem(factors=self, damping=damping)

    def damping_within(self, bound: LengthBound, work: Work[TallSubspace]) -> FoundDamping:
        return damping_by_solves(self, bound, work)

    def recycle(self, work: Work[TallSubspace]) -> Recycled:
        return recycled(work.space, work.damping, self.keep, self.recycled)


class GolubKahanSystem(AbstractDampedSystem):
    """Least-squares solutions from the bases, which grow until they are good enough."""

    factors: GolubKahanFactorisation
    damping: Float[Array, ""]
    setup_products: int = eqx.field(static=True, default=0)

    def solve(
        self, rhs: Float[Array, " n"], work: Work[TallSubspace], tolerance: Float[Array, ""]
    ) -> LinearStep:
        factors = self.factors
        gradient = factors.gram.push(rhs)
        v, image, outcome = _solved(self, gradient, rhs, work, tolerance)
        step = -factors.gram.params.step(v)
        return LinearStep(
            step=step,
            image=-image,
            relative_residual=outcome.relative_residual,
            iterations=outcome.passes,
            # One for the gradient, and one for the residual of each attempt.
            products=2 * (outcome.work.space.basis.count - work.space.basis.count)
            + outcome.products
            + outcome.passes
            + 2,
            solved=all_finite(step) & outcome.usable,
            work=outcome.work,
        )


@eqx.filter_custom_jvp
def _solved(
    system: GolubKahanSystem,
    gradient: Float[Array, " p"],
    rhs: Float[Array, " n"] | None,
    work: Work[TallSubspace],
    tolerance: Float[Array, ""],
) -> tuple[Float[Array, " p"], Float[Array, " n"], Outcome[TallSubspace]]:
    """`v ≈ (AᵀA + λI)⁻¹ g`, `A v`, and how it went; more exactly with the b of `g = Aᵀ b`."""
    factors, damping = system.factors, system.damping
    eps = jnp.finfo(gradient.dtype).eps

    def attempt(space: TallSubspace, _) -> Attempt:
        y = space.solve(gradient, rhs, damping)
        v, image = space.params.combine(y), space.image(y)
        if rhs is None:
            rho = gradient - space.params.multiply(y) - damping * v
            scale = norm(gradient)
            rounding = eps * (factors.largest * norm(y) + scale)
        else:
            # From what is left of b, not from AᵀA, whose rounding may exceed λ. Inside of the
            # basis it vanishes but for the rounding of y.
            scale = jnp.sqrt(factors.largest) * norm(rhs)
            left = rhs - image
            gradient_left = factors.gram.transposed(left[None]) - damping * v
            rho = outside(gradient_left, space.params.vectors, space.params.count)[0]
            rounding = eps * (jnp.sqrt(factors.largest) * norm(left) + damping * norm(y))
        return Attempt(
            coordinates=y,
            rho=rho,
            decrease=dot(gradient, v) - 0.5 * sum_squares(image) - 0.5 * damping * sum_squares(y),
            # The objective is λ-strongly convex: it misses at most ½‖ρ‖²/λ.
            curvature=damping,
            target=norm(gradient),
            scale=scale,
            rounding=rounding,
        )

    def extend(space: TallSubspace, damped, candidates: Float[Array, "b p"]):
        return space.extended(candidates, factors.gram.times, factors.gram.transposed), damped

    end = grown(factors.recycled, factors.sizes, work, None, tolerance, attempt, extend)
    y = end.last.coordinates
    params = end.space.params
    v, image = params.combine(y), end.space.image(y)
    outcome = Outcome.of(end, damping)
    if factors.max_iterations == 0:
        return v, image, outcome

    def iterate():
        triangle = end.space.factors(damping)[1]
        found = preconditioned_cg(
            lambda x: factors.gram.multiply_block(x[None])[0],
            deflation(params, damping, lambda x: jsl.cho_solve((triangle, False), x)),
            gradient,
            damping,
            largest_eigenvalue=factors.largest,
            tolerance=tolerance**2,
            max_iterations=factors.max_iterations,
            start=(v, params.multiply(y)),
            gap=normal_gap,
        )
        return found, factors.gram.times(found.solution[None])[0]

    return finished(v, image, outcome, ~end.last.meets(tolerance), norm(gradient), iterate)


@_solved.def_jvp
def _(primals, tangents):
    """`(AᵀA + λI) v̇ = ġ − (AᵀA)˙ v − λ̇ v`, a further right-hand side for the same bases."""
    system, gradient, rhs, work, tolerance = primals
    t_system, t_gradient, *_ = tangents
    v, image, outcome = _solved(system, gradient, rhs, work, tolerance)

    def damped(system: GolubKahanSystem):
        image = system.factors.gram.times(v[None])
        return image[0], system.factors.gram.transposed(image)[0], system.damping * v

    _, moved = eqx.filter_jvp(damped, (system,), (t_system,))
    t_image = jnp.zeros_like(image) if moved[0] is None else moved[0]
    t_square, t_shift, t_gradient = (
        jnp.zeros_like(v) if t is None else t for t in (*moved[1:], t_gradient)
    )
    right = t_gradient - t_square - t_shift
    t_v, image_of_t_v, _ = _solved(system, right, None, outcome.work, tolerance)
    nothing = jax.tree.map(lambda _: None, outcome)
    return (v, image, outcome), (t_v, t_image + image_of_t_v, nothing)
