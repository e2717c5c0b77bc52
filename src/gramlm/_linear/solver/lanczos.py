"""The Krylov basis of the dual form, for n ≤ p, by block Lanczos."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._core.reductions import all_finite, dot, matmul, norm, sum_squares
from ..._model.gram import Gram
from ..._model.whitening import Inverse
from ..algebra.basis import DampedSubspace, Subspace
from ..algebra.cg import dual_gap, preconditioned_cg
from ..algebra.finish import deflation, finished
from ..algebra.growth import Attempt, Outcome, Recycled, Work, grown, recycled
from ..algebra.secular import LengthBound, spectral_root
from ..algebra.sizes import BlockSizes
from .base import AbstractDampedSystem, AbstractFactorisation, FoundDamping, LinearStep


class KrylovFactorisation(AbstractFactorisation):
    """The dual form: products with K, and what is recycled; the basis itself is the work."""

    gram: Gram[Inverse]
    recycled: Recycled
    formed: Bool[Array, ""]
    matrix: Float[Array, "n n"] | None
    largest: Float[Array, ""]
    rounding: Float[Array, ""]
    work: Work[Subspace]
    sizes: BlockSizes = eqx.field(static=True)
    keep: float = eqx.field(static=True)
    max_iterations: int = eqx.field(static=True)

    def at(self, damping: Float[Array, ""]) -> "KrylovSystem":
        return KrylovSystem(factors=self, damping=damping)

    def recycle(self, work: Work[Subspace]) -> Recycled:
        return recycled(work.space, work.damping, self.keep, self.recycled)

    def damping_within(self, bound: LengthBound, work: Work[Subspace]) -> FoundDamping:
        """From the Ritz values of the basis that a solve at `guess` takes."""
        # The basis is what is wanted, not the step.
        unfinished = dataclasses.replace(self, max_iterations=0)
        system = unfinished.at(jnp.maximum(bound.guess, bound.least))
        solution = system.solve(bound.rhs, work, bound.tolerance)
        space = solution.work.space
        values, coordinates = space.spectrum()
        along = matmul(coordinates, space.coordinates(bound.rhs))
        damping = spectral_root(values, jnp.sqrt(values) * along, bound)
        return FoundDamping(damping, solution.work, solution.iterations, solution.products)

    def multiply(self, block: Float[Array, "b n"]) -> Float[Array, "b n"]:
        """K times each row of a block, in two passes over the data unless it is formed."""
        gram, matrix = self.gram, self.matrix
        if matrix is None:
            return gram.multiply_block(block)
        return jax.lax.cond(
            self.formed, lambda x: matmul(x, matrix), lambda x: gram.multiply_block(x), block
        )


class KrylovSystem(AbstractDampedSystem):
    """Galerkin solutions from the basis, which grows until they are good enough."""

    factors: KrylovFactorisation
    damping: Float[Array, ""]
    setup_products: int = eqx.field(static=True, default=0)

    def solve(
        self, rhs: Float[Array, " n"], work: Work[Subspace], tolerance: Float[Array, ""]
    ) -> LinearStep:
        factors = self.factors
        w, _, outcome = _solved(self, rhs, work, tolerance)
        step = -factors.gram.pull(w)  # M⁻¹ Jᵀ w
        return LinearStep(
            step=step,
            # Not −K w: a small λ makes w large, and rounds the step and K w each in its own way.
            image=factors.gram.at.jvp(step),
            relative_residual=outcome.relative_residual,
            iterations=outcome.passes,
            products=self._products(work, outcome) + 2,
            solved=all_finite(step) & outcome.usable,
            work=outcome.work,
        )

    def _products(self, work: Work[Subspace], outcome: Outcome[Subspace]) -> Int[Array, ""]:
        """Products with J for K times vectors; forming K counts as one for each of its rows."""
        before = work.space.count
        multiplied = 2 * (outcome.work.space.count - before) + outcome.products
        forming = jnp.where(before == 0, outcome.work.space.vectors.shape[1], 0)
        return jnp.where(self.factors.formed, forming, multiplied)


@eqx.filter_custom_jvp
def _solved(
    system: KrylovSystem, rhs: Float[Array, " n"], work: Work[Subspace], tolerance: Float[Array, ""]
) -> tuple[Float[Array, " n"], Float[Array, " n"], Outcome[Subspace]]:
    """`w ≈ (K + λI)⁻¹ b`, `K w`, and how it went."""
    factors, damping = system.factors, system.damping
    eps = jnp.finfo(rhs.dtype).eps

    def attempt(space: Subspace, damped: DampedSubspace) -> Attempt:
        y = damped.solve(space.coordinates(rhs))
        w, image = space.combine(y), space.multiply(y)
        # ½‖b‖² − P(w), and P(w) − min P ≤ ½‖ρ‖².
        decrease = dot(rhs, image) - 0.5 * sum_squares(image) - 0.5 * damping * dot(w, image)
        return Attempt(
            coordinates=y,
            rho=rhs - image - damping * w,
            decrease=decrease,
            curvature=jnp.ones_like(decrease),
            target=norm(rhs),
            scale=norm(rhs),
            rounding=eps * (factors.largest * norm(w) + norm(rhs)),
        )

    def extend(space: Subspace, damped: DampedSubspace, candidates: Float[Array, "b n"]):
        larger = space.extended(candidates, factors.multiply)
        return larger, damped.grown(larger, candidates.shape[0])

    damped = DampedSubspace.of(work.space, damping)
    end = grown(factors.recycled, factors.sizes, work, damped, tolerance, attempt, extend)
    y = end.last.coordinates
    known = end.space.combine(y), end.space.multiply(y)
    outcome = Outcome.of(end, damping)
    if factors.max_iterations == 0:
        return *known, outcome

    def iterate():
        found = preconditioned_cg(
            lambda x: factors.multiply(x[None])[0],
            deflation(end.space, damping, end.damped.solve),
            rhs,
            damping,
            largest_eigenvalue=factors.largest,
            tolerance=tolerance**2,
            max_iterations=factors.max_iterations,
            start=known,
            gap=dual_gap,
        )
        return found, found.image

    return finished(*known, outcome, ~end.last.meets(tolerance), norm(rhs), iterate)


@_solved.def_jvp
def _(primals, tangents):
    """`(K + λI) ẇ = ḃ − K̇ w − λ̇ w`, a further right-hand side for the same basis."""
    system, rhs, work, tolerance = primals
    t_system, t_rhs, *_ = tangents
    w, image, outcome = _solved(system, rhs, work, tolerance)

    def damped(system: KrylovSystem):
        return system.factors.multiply(w[None])[0], system.damping * w

    _, (t_image, t_shift) = eqx.filter_jvp(damped, (system,), (t_system,))
    t_image, t_shift, t_rhs = (
        jnp.zeros_like(w) if t is None else t for t in (t_image, t_shift, t_rhs)
    )
    t_w, image_of_t_w, _ = _solved(system, t_rhs - t_image - t_shift, outcome.work, tolerance)
    nothing = jax.tree.map(lambda _: None, outcome)
    return (w, image, outcome), (t_w, t_image + image_of_t_w, nothing)
