"""Krylov methods on `K = A Aᵀ`, with the whitened Jacobian `A = J L⁻ᵀ` for a metric `M = L Lᵀ`.

`A Aᵀ` and `AᵀA` have the same eigenvalues, beside zeros. The methods work in one of the two
spaces, the smaller unless told otherwise, of dimension m, and write K for either product.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._core.arrays import VECTORS_AT_A_TIME, map_blocks, safe_divide, symmetrised, unit_rows
from .._core.reductions import column_sum_squares, matmul
from .._model.gram import Gram


class RitzPairs(NamedTuple):
    """Ritz values, largest first, the norms `‖K u − μ u‖` of their residuals, and their vectors."""

    values: Float[Array, " k"]
    errors: Float[Array, " k"]
    vectors: Float[Array, "k m"]


class Basis(NamedTuple):
    """An orthonormal basis V, its image V K and `T = V K Vᵀ`; unused rows are zero."""

    vectors: Float[Array, "c m"]
    images: Float[Array, "c m"]
    projected: Float[Array, "c c"]
    used: Int[Array, ""]

    def ritz_pairs(self, rank: int) -> RitzPairs:
        """The `rank` leading Ritz pairs; those of unused rows come last."""
        scale = jnp.max(jnp.diag(self.projected))
        unused = jnp.arange(len(self.vectors)) >= self.used
        pushed = jnp.where(unused, jnp.where(scale > 0, -scale, -1), 0)
        values, combined = jnp.linalg.eigh(symmetrised(self.projected) + jnp.diag(pushed))
        values, combined = jnp.maximum(values[::-1][:rank], 0), combined[:, ::-1][:, :rank].T
        vectors = matmul(combined, self.vectors)
        residuals = matmul(combined, self.images) - values[:, None] * vectors
        # No residual is known more accurately than the products with K.
        rounding = jnp.finfo(values.dtype).eps * values[0]
        return RitzPairs(values, jnp.maximum(_lengths(residuals), rounding), vectors)


def krylov_basis(
    gram: Callable[[Float[Array, "k m"]], Float[Array, "k m"]],
    size: int,
    random: Float[Array, "b m"],
    enough: Callable[[Basis], Bool[Array, ""]] | None = None,
) -> tuple[Basis, Int[Array, ""]]:
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
        return Basis(units, images, images, full), 2 * full

    def unfinished(carry):
        _, basis = carry
        going = basis.used < steps * block
        return going if enough is None else going & ~((basis.used > 0) & enough(basis))

    def grow(carry):
        candidates, basis = carry
        row, zero = basis.used, jnp.zeros((), basis.used.dtype)
        # Shifted, random vectors are as good as new ones, which would take long to compile.
        added = _orthonormal(candidates, basis.vectors, jnp.roll(random, row, axis=1))
        image = gram(added)
        vectors = jax.lax.dynamic_update_slice(basis.vectors, added, (row, zero))
        images = jax.lax.dynamic_update_slice(basis.images, image, (row, zero))
        columns = matmul(vectors, image.T)
        projected = jax.lax.dynamic_update_slice(basis.projected, columns, (zero, row))
        projected = jax.lax.dynamic_update_slice(projected, columns.T, (row, zero))
        return image, Basis(vectors, images, projected, row + block)

    room = jnp.zeros((steps * block, dimension), dtype)
    square = jnp.zeros((steps * block, steps * block), dtype)
    empty = Basis(room, room, square, jnp.zeros((), jnp.int32))
    basis = jax.lax.while_loop(unfinished, grow, (random, empty))[1]
    return basis, 2 * basis.used


def _lengths(rows: Float[Array, "k m"]) -> Float[Array, " k"]:
    return jnp.sqrt(column_sum_squares(rows.T))


def _orthonormal(
    candidates: Float[Array, "b m"], basis: Float[Array, "c m"], fill: Float[Array, "b m"]
) -> Float[Array, "b m"]:
    """What the candidates add to the basis; directions of `fill` where they add nothing."""

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
