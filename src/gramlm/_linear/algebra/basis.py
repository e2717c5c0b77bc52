"""An orthonormal basis of a part of the space on which K acts, and K restricted to it.

    Z (k, m), rows orthonormal,    V = Z K (k, m),    T = Z K Zᵀ (k, k)

Since V holds products with K itself, and not what a recurrence makes of them, everything that is
computed from Z, V and T is known to rounding: the Galerkin solution for any λ and any right-hand
side, its true residual, its energy. None of that takes another product with K.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, Float, Int

from ..._core.arrays import Scalar, safe_divide
from ..._core.reductions import all_finite, matmul, times_transpose

# About as many vectors of a basis are worked on at a time, and none where there are none yet.
_PART = 256

# A basis of no more numbers than these, 8 MB in float64, is worked on as a whole, used or not: it
# takes no time, and a loop less is compiled. Arbitrary.
_SMALL = 2**20

# Of its squared length a direction that is new keeps at least this part where it is projected once
# more.
KEPT = 0.25

# Rows of about unit length whose Gram matrix has no eigenvalue below this are independent.
_INDEPENDENT = 1e-3

# Orders at which the eigenvalue problem of T is compiled beside the full one: the smallest that
# holds it is solved. Each takes a sixth of a second to compile.
_ORDERS = (128, 512)


class Subspace(eqx.Module):
    """Z, K Z and Z K Zᵀ, in arrays with room for `capacity` vectors; unused rows are zero.

    Of the symmetric `projected` only the lower triangle is filled. `count` rows are in use, of
    which `newest` were added last.
    """

    vectors: Float[Array, "k m"]
    images: Float[Array, "k m"]
    projected: Float[Array, "k k"]
    count: Int[Array, ""]
    newest: Int[Array, ""]

    @classmethod
    def empty(cls, capacity: int, like: Float[Array, " m"]) -> "Subspace":
        """Room for `capacity` vectors of the shape and dtype of `like`."""
        room = jnp.zeros((capacity, like.size), like.dtype)
        square = jnp.zeros((capacity, capacity), like.dtype)
        none = jnp.zeros((), jnp.int32)
        return cls(room, room, square, none, none)

    @property
    def dtype(self):
        return self.vectors.dtype

    @property
    def capacity(self) -> int:
        """The number of vectors there is room for."""
        return self.vectors.shape[0]

    def coordinates(self, x: Float[Array, " m"]) -> Float[Array, " k"]:
        """`Z x`."""

        def put(start: Int[Array, ""], y: Float[Array, " k"], part: Float[Array, "c m"]):
            return jax.lax.dynamic_update_slice_in_dim(y, matmul(part, x), start, 0)

        return _over_used(self.vectors, self.count, put, jnp.zeros(self.capacity, self.dtype))

    def combine(self, y: Float[Array, " k"]) -> Float[Array, " m"]:
        """`Zᵀ y`."""
        return combined(y, self.vectors, self.count)

    def multiply(self, y: Float[Array, " k"]) -> Float[Array, " m"]:
        """`K Zᵀ y`, without a product with K."""
        return combined(y, self.images, self.count)

    def last_images(self, size: int) -> Float[Array, "size m"]:
        """`K z` for at most `size` vectors z, those that were added last; after zero rows."""
        wanted = jnp.minimum(self.newest, size)
        images = jax.lax.dynamic_slice_in_dim(self.images, self.count - wanted, size)
        return jnp.roll(images, size - wanted, axis=0)

    def extended(
        self,
        candidates: Float[Array, "b m"],
        multiply: Callable[[Float[Array, "b m"]], Float[Array, "b m"]],
    ) -> "Subspace":
        """With at most b more vectors, that span the candidates' part outside, and their products.

        The caller sees to it that there is room: `count + b ≤ capacity`.
        """
        size = candidates.shape[0]
        added = self._orthonormalised(candidates)
        newest = jnp.sum(jnp.any(added != 0, axis=1), dtype=jnp.int32)
        # Zero rows go to the end, where the next vectors will be.
        added = jnp.roll(added, newest, axis=0)
        images = multiply(added)
        here = (self.count, jnp.zeros((), self.count.dtype))
        vectors = jax.lax.dynamic_update_slice(self.vectors, added, here)

        def columns(start: Int[Array, ""], rows: Float[Array, "b k"], part: Float[Array, "c m"]):
            return jax.lax.dynamic_update_slice_in_dim(
                rows, times_transpose(images, part), start, 1
            )

        rows = jnp.zeros((size, self.capacity), images.dtype)
        rows = _over_used(vectors, self.count + size, columns, rows)
        projected = jax.lax.dynamic_update_slice(self.projected, rows, here)
        return Subspace(
            vectors=vectors,
            images=jax.lax.dynamic_update_slice(self.images, images, here),
            projected=projected,
            count=self.count + newest,
            newest=newest,
        )

    def _orthonormalised(self, candidates: Float[Array, "b m"]) -> Float[Array, "b m"]:
        """Orthonormal rows that span what the candidates have outside of the basis.

        Block Gram–Schmidt, twice; all but a b × b problem are matrix products. What loses half of
        its length to the second projection was a rounding error of the first. Directions that are
        rounding errors come out as zero rows, first.
        """

        def project(block: Float[Array, "b m"], first: Bool[Array, ""]):
            block = outside(block, self.vectors, self.count)
            lengths = jnp.sqrt(jnp.sum(block * block, axis=1, keepdims=True))
            block = jnp.where(first, safe_divide(block, lengths), block)
            return orthonormal(block, jnp.where(first, 0, KEPT)), None

        size = jnp.max(jnp.abs(candidates), axis=1, keepdims=True)
        block = safe_divide(candidates, size)
        return jax.lax.scan(project, block, jnp.asarray([True, False]))[0]

    def ritz(self, room: int) -> tuple[Float[Array, " k"], Float[Array, "room m"]]:
        """The Ritz values of K in descending order, and the vectors of the first of them.

        Zeros beyond `count`.
        """
        values, coordinates = self.spectrum()
        return values, combined(coordinates[:room], self.vectors, self.count)

    def spectrum(self) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
        """The Ritz values in descending order, and the coordinates of their vectors, as rows."""
        orders = [order for order in _ORDERS if order < self.capacity] + [self.capacity]
        used = jnp.arange(self.capacity) < self.count

        def solve(order: int):
            def branch(projected):
                # Unused rows would mix with Ritz vectors of the value 0.
                bound = jnp.max(jnp.abs(projected)) + jnp.finfo(projected.dtype).tiny
                part = projected[:order, :order] - jnp.diag(jnp.where(used, 0, bound)[:order])
                values, vectors = jnp.linalg.eigh(part, symmetrize_input=False)
                fill = (0, self.capacity - order)
                return jnp.pad(values[::-1], fill), jnp.pad(vectors[:, ::-1].T, (fill, fill))

            return branch

        index = jnp.sum(jnp.asarray(orders[:-1], jnp.int32) < self.count)
        values, coordinates = jax.lax.switch(index, list(map(solve, orders)), self.projected)
        values = jnp.where(used, jnp.maximum(values, 0), 0)
        return values, jnp.where(used[:, None], coordinates, 0)


def _over_used(
    vectors: Float[Array, "k m"],
    count: Int[Array, ""],
    body: Callable[[Int[Array, ""], Array, Float[Array, "c m"]], Array],
    init: Array,
) -> Array:
    """`body(start, carry, vectors[start : start + c])` over those of the vectors that are in use.

    The last part may reach beyond them, where the vectors are zero.
    """
    if vectors.size <= _SMALL:
        return body(jnp.zeros((), count.dtype), init, vectors)
    capacity = vectors.shape[0]
    part = next((c for c in range(_PART, _PART // 4, -1) if capacity % c == 0), capacity)

    def advance(i, carry):
        start = i * part
        return body(start, carry, jax.lax.dynamic_slice_in_dim(vectors, start, part))

    return jax.lax.fori_loop(0, -(-count // part), advance, init)


def combined(
    y: Float[Array, "*b k"], vectors: Float[Array, "k m"], count: Int[Array, ""]
) -> Float[Array, "*b m"]:
    """`y` times the first `count` of the vectors."""

    def add(start: Int[Array, ""], sums: Float[Array, "*b m"], part: Float[Array, "c m"]):
        columns = jax.lax.dynamic_slice_in_dim(y, start, part.shape[0], y.ndim - 1)
        return sums + matmul(columns, part)

    sums = jnp.zeros((*y.shape[:-1], vectors.shape[1]), y.dtype)
    return _over_used(vectors, count, add, sums)


def outside(
    block: Float[Array, "b m"], basis: Float[Array, "k m"], count: Int[Array, ""]
) -> Float[Array, "b m"]:
    """What the rows of a block have outside of the first `count` vectors, orthonormal ones."""

    def subtract(_, rest: Float[Array, "b m"], part: Float[Array, "c m"]):
        return rest - matmul(times_transpose(block, part), part)

    return _over_used(basis, count, subtract, block)


def orthonormal(block: Float[Array, "b m"], least: Scalar) -> Float[Array, "b m"]:
    """Rows of length one that span those of a block, and zero rows, first.

    Dropped are directions of a squared length of at most `least`, and those that are rounding
    errors of others. By the Cholesky factor of the Gram matrix of the rows, or where they are
    nearly dependent by its eigenvectors (Stathopoulos and Wu 2002), in ascending order.
    """
    gram = matmul(block, block.T)
    size, eps = block.shape[0], jnp.finfo(block.dtype).eps
    identity = jnp.eye(size, dtype=block.dtype)

    def triangular() -> Float[Array, "b b"]:
        return jsl.solve_triangular(jnp.linalg.cholesky(gram), identity, lower=True)

    def spectral() -> Float[Array, "b b"]:
        values, vectors = jnp.linalg.eigh(gram)
        kept = values > jnp.maximum(8 * size * eps * values[-1], least)
        scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
        return scale[:, None] * vectors.T

    sure = jnp.maximum(jnp.asarray(least, block.dtype), _INDEPENDENT)
    independent = all_finite(jnp.linalg.cholesky(gram - sure * identity))
    return matmul(jax.lax.cond(independent, triangular, spectral), block)


class DampedSubspace(eqx.Module):
    """The Cholesky factor L of `T + λI`, which grows with the basis.

    Unused rows of L are those of `√λ I`, so that they need no care.
    """

    factor: Float[Array, "k k"]
    damping: Float[Array, ""]

    @classmethod
    def of(cls, space: Subspace, damping: Float[Array, ""]) -> "DampedSubspace":
        """The factor for a basis as it is; NaN where rounding makes `T + λI` indefinite."""
        identity = jnp.eye(space.capacity, dtype=space.projected.dtype)
        factor = jax.lax.cond(
            space.count > 0,
            lambda: jnp.linalg.cholesky(
                space.projected + damping * identity, symmetrize_input=False
            ),
            lambda: jnp.sqrt(damping) * identity,
        )
        return cls(factor, damping)

    def grown(self, space: Subspace, size: int) -> "DampedSubspace":
        """The factor after at most `size` vectors were added to the basis: k²·size operations."""
        start = space.count - space.newest
        zero = jnp.zeros((), start.dtype)
        rows = jax.lax.dynamic_slice(space.projected, (start, zero), (size, space.capacity))
        corner = jax.lax.dynamic_slice(rows, (zero, start), (size, size))
        before = jnp.where(jnp.arange(space.capacity) < start, rows, 0)
        below = jsl.solve_triangular(self.factor, before.T, lower=True).T
        corner = corner + self.damping * jnp.eye(size, dtype=rows.dtype)
        last = jnp.linalg.cholesky(corner - matmul(below, below.T))
        rows = jax.lax.dynamic_update_slice(below, last, (zero, start))
        factor = jax.lax.dynamic_update_slice(self.factor, rows, (start, zero))
        return DampedSubspace(factor, self.damping)

    def solve(self, coordinates: Float[Array, " k"]) -> Float[Array, " k"]:
        """`(T + λI)⁻¹` applied to coordinates."""
        return jsl.cho_solve((self.factor, True), coordinates)
