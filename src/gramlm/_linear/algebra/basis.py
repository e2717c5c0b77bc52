"""An orthonormal basis of a part of the space on which K acts, and K restricted to it.

    Z (k, m), rows orthonormal,    V = Z K (k, m),    T = Z K Zᵀ (k, k)

Since V holds products with K itself, and not what a recurrence makes of them, everything that is
computed from Z, V and T is known to rounding: the Galerkin solution for any λ and any right-hand
side, its true residual, its energy. None of that takes another product with K.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, Float, Int

from ..._core.arrays import safe_divide
from ..._core.reductions import (
    matmul,
    nonzero_rows,
    row_magnitudes,
    row_sum_squares,
    times_transpose,
)
from .blocks import combined, orthonormal, outside, over_used

# Of its squared length a direction that is new keeps at least this part where it is projected once
# more. Half of the length, which is arbitrary.
KEPT = 0.25

# Orders at which the eigenvalue problem of T is compiled beside the full one: the smallest that
# holds it is solved. Each takes a sixth of a second to compile.
_ORDERS = (128, 512)


class AbstractSubspace(eqx.Module):
    """A basis of a part of the space of a symmetric K, and what is known of K there."""

    @property
    @abc.abstractmethod
    def basis(self) -> "Subspace":
        """The vectors, and their products with K."""


class Subspace(AbstractSubspace):
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
    def basis(self) -> "Subspace":
        return self

    @property
    def dtype(self) -> Any:
        """That of the vectors."""
        return self.vectors.dtype

    @property
    def capacity(self) -> int:
        """The number of vectors there is room for."""
        return self.vectors.shape[0]

    def coordinates(self, x: Float[Array, " m"]) -> Float[Array, " k"]:
        """`Z x`."""

        def put(start: Int[Array, ""], y: Float[Array, " k"], part: Float[Array, "c m"]):
            return jax.lax.dynamic_update_slice_in_dim(y, matmul(part, x), start, 0)

        return over_used(self.vectors, self.count, put, jnp.zeros(self.capacity, self.dtype))

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
        added = self._orthonormalised(candidates)
        newest = jnp.sum(nonzero_rows(added), dtype=jnp.int32)
        # Zero rows go to the end, where the next vectors will be.
        return self.joined(jnp.roll(added, newest, axis=0), newest, multiply)

    def joined(
        self,
        added: Float[Array, "b m"],
        newest: Int[Array, ""],
        multiply: Callable[[Float[Array, "b m"]], Float[Array, "b m"]],
    ) -> "Subspace":
        """With `newest` more vectors, orthonormal and orthogonal to the basis, before zero rows."""
        size, images = added.shape[0], multiply(added)
        here = (self.count, jnp.zeros((), self.count.dtype))
        vectors = jax.lax.dynamic_update_slice(self.vectors, added, here)

        def columns(start: Int[Array, ""], rows: Float[Array, "b k"], part: Float[Array, "c m"]):
            return jax.lax.dynamic_update_slice_in_dim(
                rows, times_transpose(images, part), start, 1
            )

        rows = jnp.zeros((size, self.capacity), images.dtype)
        rows = over_used(vectors, self.count + size, columns, rows)
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
            lengths = jnp.sqrt(row_sum_squares(block))[:, None]
            block = jnp.where(first, safe_divide(block, lengths), block)
            return orthonormal(block, jnp.where(first, 0, KEPT)), None

        size = row_magnitudes(candidates)[:, None]
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
