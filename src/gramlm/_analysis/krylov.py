"""Krylov methods on `K = A Aᵀ`, with the whitened Jacobian `A = J L⁻ᵀ` for a metric `M = L Lᵀ`.

`A Aᵀ` and `AᵀA` have the same eigenvalues, beside zeros. The methods work in one of the two
spaces, the smaller unless told otherwise, of dimension m, and write K for either product.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._core.arrays import VECTORS_AT_A_TIME, map_blocks, safe_divide, unit_rows
from .._core.reductions import column_sum_squares, matmul
from .._linear.algebra.basis import Subspace
from .._linear.algebra.blocks import combined
from .._model.gram import Gram


class RitzPairs(NamedTuple):
    """Ritz values, largest first, the norms `‖K u − μ u‖` of their residuals, and their vectors."""

    values: Float[Array, " k"]
    errors: Float[Array, " k"]
    vectors: Float[Array, "k m"]


def ritz_pairs(space: Subspace, rank: int) -> RitzPairs:
    """The `rank` leading Ritz pairs of a basis; those of unused rows come last."""
    values, coordinates = space.spectrum()
    values, coordinates = values[:rank], coordinates[:rank]
    vectors = combined(coordinates, space.vectors, space.count)
    residuals = combined(coordinates, space.images, space.count) - values[:, None] * vectors
    # No residual is known more accurately than the products with K.
    rounding = jnp.finfo(values.dtype).eps * values[0]
    return RitzPairs(values, jnp.maximum(_lengths(residuals), rounding), vectors)


def krylov_basis(
    gram: Callable[[Float[Array, "k m"]], Float[Array, "k m"]],
    size: int,
    random: Float[Array, "b m"],
    enough: Callable[[Subspace], Bool[Array, ""]] | None = None,
) -> tuple[Subspace, Int[Array, ""]]:
    """A block Krylov basis of at least `size` vectors, or until `enough`; and the products with J.

    `gram` multiplies each row of a block by K. The basis starts from a block of `random` vectors,
    is reorthogonalised, and has products of K itself for its images, so that no recurrence is
    relied on. Where it would fill the space it is the unit vectors.
    """
    (block, dimension), dtype = random.shape, random.dtype
    steps = -(-size // block)
    if steps * block >= dimension:
        count = min(VECTORS_AT_A_TIME, dimension)
        units = jnp.eye(dimension, dtype=dtype)
        images = map_blocks(
            lambda start: gram(unit_rows(start, count, dimension, dtype)), dimension, count
        )
        full = jnp.asarray(dimension, jnp.int32)
        return Subspace(units, images, images, full, full), 2 * full

    def unfinished(space: Subspace):
        going = space.count < steps * block
        return going if enough is None else going & ~((space.count > 0) & enough(space))

    def grow(space: Subspace) -> Subspace:
        candidates = jnp.where(space.count == 0, random, space.last_images(block))
        # Shifted, random vectors are as good as new ones, which would take long to compile.
        added = _orthonormal(candidates, space.vectors, jnp.roll(random, space.count, axis=1))
        return space.joined(added, jnp.asarray(block, jnp.int32), gram)

    start = Subspace.empty(steps * block, random[0])
    space = jax.lax.while_loop(unfinished, grow, start)
    return space, 2 * space.count


def _lengths(rows: Float[Array, "k m"]) -> Float[Array, " k"]:
    return jnp.sqrt(column_sum_squares(rows.T))


def _orthonormal(
    candidates: Float[Array, "b m"], basis: Float[Array, "c m"], fill: Float[Array, "b m"]
) -> Float[Array, "b m"]:
    """What the candidates add to the basis; directions of `fill` where they add nothing.

    By Householder's QR, not as `Subspace.extended`: that judges a direction by its squared length,
    to the root of rounding, and leaves out what adds nothing, where here eigenvalues are wanted to
    rounding, and vectors outside of a Krylov space that has ended, for what is multiple.
    """

    def remainder(x):
        return x - matmul(matmul(x, basis.T), basis)

    q, r = jnp.linalg.qr(remainder(candidates).T)
    longest = jnp.max(_lengths(candidates))
    nothing = jnp.abs(jnp.diag(r)) <= 8 * jnp.finfo(q.dtype).eps * longest
    q = jnp.where(nothing[:, None], fill, q.T)
    # Once more after the rounding errors have been scaled up, and once for the new directions.
    for _ in range(2):
        q = jnp.linalg.qr(remainder(q).T)[0].T
    return q


def damped_forms(
    gram: Gram,
    starts: Float[Array, "k m"],
    steps: int,
    damping: Float[Array, "*l"],
) -> tuple[Float[Array, "*l k"], Float[Array, "*l k"]]:
    """Lower and upper bounds of `zᵀ K(K+λ)⁻¹ z / zᵀz`, for each damping λ and each start z.

    The Gauss–Radau and Gauss rules of Golub–Kahan bidiagonalisation (Golub and von Matt 1997).
    Without reorthogonalisation: rounding costs steps, not accuracy (Golub and Strakoš 1994).
    """

    def normalised(x):
        length = _lengths(x)
        return safe_divide(x, length[:, None]), length

    def step(carry, _):
        u, v, beta = carry
        v, alpha = normalised(gram.leave(u) - beta[:, None] * v)
        u, beta = normalised(gram.enter(v) - alpha[:, None] * u)
        return (u, v, beta), (alpha, beta)

    u, length = normalised(starts)
    start = (u, jnp.zeros((len(starts), gram.other_size), u.dtype), jnp.zeros_like(length))
    alphas, betas = jax.lax.scan(step, start, length=steps)[1]

    # (B Bᵀ + λ)⁻¹ for the bidiagonal B of alphas and betas, by Schur complements from the last
    # row up: sums, products and quotients of what is not negative, so no digit is lost.
    shift = jnp.broadcast_to(damping[..., None], (*damping.shape, len(starts)))

    def eliminate(gained, entries):
        alpha, beta = entries
        complement = gained + shift
        return alpha**2 * complement / (beta**2 + complement), None

    def form(betas):
        gained = jax.lax.scan(eliminate, jnp.zeros_like(shift), (alphas, betas), reverse=True)[0]
        return gained / (gained + shift)

    return form(betas), form(betas.at[-1].set(0))
