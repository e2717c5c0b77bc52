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
from jaxtyping import Array, Float, Int

from ..._core.reductions import all_finite, dot, matmul, norm, sum_squares, times_transpose
from ..._model.gram import Gram
from ..._model.whitening import Whitening
from ..algebra.basis import KEPT, Subspace, combined, orthonormal, outside
from ..algebra.cg import normal_gap, preconditioned_cg
from ..algebra.finish import deflation, finished
from ..algebra.growth import Attempt, BlockSizes, Outcome, Recycled, Work, grown, recycled
from ..algebra.secular import LengthBound
from .base import (
    AbstractDampedSystem,
    AbstractFactorisation,
    FoundDamping,
    LinearStep,
    damping_by_solves,
)


class TallSubspace(eqx.Module):
    """Z with `Z AᵀA` and `Z AᵀA Zᵀ`, the basis U of `Z Aᵀ`, and R."""

    params: Subspace
    left: Float[Array, "k n"]
    triangle: Float[Array, "k k"]

    @classmethod
    def empty(cls, capacity: int, residual: Float[Array, " n"], num_params: int) -> "TallSubspace":
        """Room for `capacity` vectors."""
        params = Subspace.empty(capacity, jnp.zeros((num_params,), residual.dtype))
        left = jnp.zeros((capacity, residual.size), residual.dtype)
        return cls(params, left, jnp.zeros_like(params.projected))

    @property
    def count(self) -> Int[Array, ""]:
        return self.params.count

    @property
    def newest(self) -> Int[Array, ""]:
        return self.params.newest

    @property
    def capacity(self) -> int:
        return self.params.capacity

    @property
    def dtype(self):
        return self.left.dtype

    def last_images(self, size: int) -> Float[Array, "size p"]:
        """`z AᵀA` for the `size` vectors z that were added last."""
        return self.params.last_images(size)

    def ritz(self, room: int) -> tuple[Float[Array, " k"], Float[Array, "room p"]]:
        """The Ritz values of `AᵀA` in descending order, and the vectors of the first of them."""
        return self.params.ritz(room)

    def image(self, y: Float[Array, " k"]) -> Float[Array, " n"]:
        """`A Zᵀ y`."""
        return combined(matmul(self.triangle, y), self.left, self.count)

    def extended(self, candidates: Float[Array, "b p"], forward, backward) -> "TallSubspace":
        """With at most b more vectors; `forward` and `backward` multiply blocks by Aᵀ and A."""
        images = []

        def multiply(added):
            images.append(forward(added))
            return backward(images[0])

        params = self.params.extended(candidates, multiply)
        (image,) = images
        # U has to span all of the image, however small a part is, so that its rank is not judged;
        # what is arbitrary about Householder's Q may lie inside of U, and is dropped.
        added = jnp.linalg.qr(outside(image, self.left, self.count).T)[0].T
        added = jnp.where(jnp.arange(len(image))[:, None] < params.newest, added, 0)
        added = orthonormal(outside(added, self.left, self.count), KEPT)
        added = jnp.roll(added, params.newest, axis=0)
        zero, start = jnp.zeros((), self.count.dtype), self.count
        left = jax.lax.dynamic_update_slice(self.left, added, (start, zero))
        columns = times_transpose(image, left).T
        triangle = jax.lax.dynamic_update_slice(self.triangle, columns, (zero, start))
        return TallSubspace(params, left, triangle)

    def factors(self, damping: Float[Array, ""]) -> tuple[Float[Array, "_ k"], Float[Array, "k k"]]:
        """Q and R' of `[R; √λ I] = Q R'`."""
        shift = jnp.sqrt(damping) * jnp.eye(self.capacity, dtype=self.dtype)
        return jnp.linalg.qr(jnp.concatenate([self.triangle, shift]))

    def solve(
        self,
        gradient: Float[Array, " p"],
        rhs: Float[Array, " n"] | None,
        damping: Float[Array, ""],
    ) -> Float[Array, " k"]:
        """`(RᵀR + λI)⁻¹ Z g`.

        With the b of `g = Aᵀ b` it is `argmin ½‖b − A Zᵀ y‖² + ½λ‖y‖²`, and R is never squared.
        """
        q, r = self.factors(damping)
        if rhs is None:
            back = jsl.solve_triangular(r, self.params.coordinates(gradient), trans=1)
        else:
            back = matmul(q[: self.capacity].T, matmul(self.left, rhs))
        return jsl.solve_triangular(r, back)


class GolubKahanFactorisation(AbstractFactorisation):
    """Products with A, and what is recycled; the bases are the work."""

    gram: Gram[Whitening]
    recycled: Recycled
    largest: Float[Array, ""]
    rounding: Float[Array, ""]
    work: Work
    sizes: BlockSizes = eqx.field(static=True)
    keep: float = eqx.field(static=True)
    max_iterations: int = eqx.field(static=True)

    def at(self, damping: Float[Array, ""]) -> "GolubKahanSystem":
        return GolubKahanSystem(factors=self, damping=damping)

    def damping_within(self, bound: LengthBound, work: Work) -> FoundDamping:
        return damping_by_solves(self, bound, work)

    def recycle(self, work: Work) -> Recycled:
        return recycled(work.space, work.damping, self.keep, self.recycled)


class GolubKahanSystem(AbstractDampedSystem):
    """Least-squares solutions from the bases, which grow until they are good enough."""

    factors: GolubKahanFactorisation
    damping: Float[Array, ""]
    setup_products: int = eqx.field(static=True, default=0)

    def solve(self, rhs: Float[Array, " n"], work: Work, tolerance: Float[Array, ""]) -> LinearStep:
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
            products=2 * (outcome.work.space.count - work.space.count)
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
    work: Work,
    tolerance: Float[Array, ""],
) -> tuple[Float[Array, " p"], Float[Array, " n"], Outcome]:
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
            rho = outside(gradient_left, space.params.vectors, space.count)[0]
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
