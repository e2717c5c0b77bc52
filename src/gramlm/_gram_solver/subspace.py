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
from jaxtyping import Array, Float, Int

from .._misc import matmul, safe_divide, symmetrised

# Orders at which the eigenvalue problem of T is compiled: the smallest that holds it is solved.
_ORDERS = (32, 64, 128, 256, 384, 512, 768, 1024, 2048)


class Subspace(eqx.Module):
    """Z, K Z and Z K Zᵀ, in arrays with room for `capacity` vectors; unused rows are zero."""

    vectors: Float[Array, "k m"]
    images: Float[Array, "k m"]
    projected: Float[Array, "k k"]
    count: Int[Array, ""]

    @classmethod
    def empty(cls, capacity: int, like: Float[Array, " m"]) -> "Subspace":
        """Room for `capacity` vectors of the shape and dtype of `like`."""
        room = jnp.zeros((capacity, like.size), like.dtype)
        square = jnp.zeros((capacity, capacity), like.dtype)
        return cls(room, room, square, jnp.zeros((), jnp.int32))

    @property
    def dtype(self):
        return self.vectors.dtype

    @property
    def rank(self) -> Int[Array, ""]:
        """The number of vectors that are not zero."""
        return jnp.sum(jnp.any(self.vectors != 0, axis=1)).astype(self.count.dtype)

    @property
    def capacity(self) -> int:
        """The number of vectors there is room for."""
        return self.vectors.shape[0]

    def coordinates(self, x: Float[Array, " m"]) -> Float[Array, " k"]:
        """`Z x`."""
        return matmul(self.vectors, x)

    def combine(self, y: Float[Array, " k"]) -> Float[Array, " m"]:
        """`Zᵀ y`."""
        return matmul(y, self.vectors)

    def multiply(self, y: Float[Array, " k"]) -> Float[Array, " m"]:
        """`K Zᵀ y`, without a product with K."""
        return matmul(y, self.images)

    def last_images(self, size: int) -> Float[Array, "size m"]:
        """`K z` for the `size` vectors z that were added last."""
        zero = jnp.zeros((), self.count.dtype)
        return jax.lax.dynamic_slice(
            self.images, (self.count - size, zero), (size, self.images.shape[1])
        )

    def extended(
        self,
        candidates: Float[Array, "b m"],
        multiply: Callable[[Float[Array, "b m"]], Float[Array, "b m"]],
    ) -> "Subspace":
        """With b more vectors, that span the candidates' part outside, and their products.

        The caller sees to it that there is room: `count + b ≤ capacity` and `≤ m`.
        """
        added = self._orthonormalised(candidates)
        images = multiply(added)
        here = (self.count, jnp.zeros((), self.count.dtype))
        vectors = jax.lax.dynamic_update_slice(self.vectors, added, here)
        rows = matmul(images, vectors.T)
        projected = jax.lax.dynamic_update_slice(self.projected, rows, here)
        return Subspace(
            vectors=vectors,
            images=jax.lax.dynamic_update_slice(self.images, images, here),
            projected=symmetrised(projected),
            count=self.count + candidates.shape[0],
        )

    def _orthonormalised(self, candidates: Float[Array, "b m"]) -> Float[Array, "b m"]:
        """Orthonormal rows that span what the candidates have outside of the basis.

        Block Gram–Schmidt, twice; within the block by the eigenvectors of its Gram matrix
        (Stathopoulos and Wu 2002): all but a b × b problem are matrix products. Directions that
        are rounding errors of others come out as zero rows, first.
        """

        size = jnp.max(jnp.abs(candidates), axis=1, keepdims=True)
        block = orthonormal(outside(safe_divide(candidates, size), self.vectors))
        return orthonormal(remaining(outside(block, self.vectors)))

    def ritz(self) -> tuple[Float[Array, " k"], Float[Array, "k m"]]:
        """The Ritz values of K in descending order, and their vectors; zeros beyond `count`."""
        orders = [order for order in _ORDERS if order < self.capacity] + [self.capacity]
        used = jnp.arange(self.capacity) < self.count

        def solve(order: int):
            def branch(projected):
                # Unused rows would mix with Ritz vectors of the value 0.
                bound = jnp.max(jnp.abs(projected)) + jnp.finfo(projected.dtype).tiny
                part = projected[:order, :order] - jnp.diag(jnp.where(used, 0, bound)[:order])
                values, vectors = jnp.linalg.eigh(part)
                fill = (0, self.capacity - order)
                return jnp.pad(values[::-1], fill), jnp.pad(vectors[:, ::-1].T, (fill, fill))

            return branch

        index = jnp.sum(jnp.asarray(orders[:-1], jnp.int32) < self.count)
        values, coordinates = jax.lax.switch(index, list(map(solve, orders)), self.projected)
        kept = jnp.where(used[:, None], coordinates, 0)
        return jnp.where(used, jnp.maximum(values, 0), 0), matmul(kept, self.vectors)


def outside(block: Float[Array, "b m"], basis: Float[Array, "k m"]) -> Float[Array, "b m"]:
    """What the rows of a block have outside of an orthonormal basis."""
    return block - matmul(matmul(block, basis.T), basis)


def orthonormal(block: Float[Array, "b m"]) -> Float[Array, "b m"]:
    """Rows that are orthogonal, of length one or zero, in ascending order of significance."""
    block = safe_divide(block, jnp.sqrt(jnp.sum(block * block, axis=1, keepdims=True)))
    values, vectors = jnp.linalg.eigh(matmul(block, block.T))
    noise = 8 * block.shape[0] * jnp.finfo(block.dtype).eps * values[-1]
    scale = jnp.where(values > noise, 1 / jnp.sqrt(jnp.where(values > noise, values, 1)), 0)
    return matmul(scale[:, None] * vectors.T, block)


def remaining(block: Float[Array, "b m"]) -> Float[Array, "b m"]:
    """Orthonormal directions of once orthonormal rows that kept half of their length, and zeros.

    What loses more of it to a second projection was a rounding error of the first.
    """
    values, vectors = jnp.linalg.eigh(matmul(block, block.T))
    scale = jnp.where(values > 0.25, 1 / jnp.sqrt(jnp.maximum(values, 0.25)), 0)
    return matmul(scale[:, None] * vectors.T, block)


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
            lambda: jnp.linalg.cholesky(space.projected + damping * identity),
            lambda: jnp.sqrt(damping) * identity,
        )
        return cls(factor, damping)

    def grown(self, space: Subspace, size: int) -> "DampedSubspace":
        """The factor after `size` vectors were added to the basis: k²·size operations."""
        start = space.count - size
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
