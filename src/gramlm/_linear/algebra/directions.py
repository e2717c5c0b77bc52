"""Search directions of conjugate gradients, and their images under K."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._core.arrays import safe_divide, symmetrised
from ..._core.reductions import matmul, norm


class SearchDirections(eqx.Module):
    """Unit vectors s and their images `K s`, in arrays with room for k; unused rows are zero."""

    vectors: Float[Array, "k m"]
    images: Float[Array, "k m"]
    count: Int[Array, ""]

    @classmethod
    def empty(cls, capacity: int, like: Float[Array, " m"]) -> "SearchDirections":
        """Room for `capacity` directions of the shape and dtype of `like`."""
        room = jnp.zeros((capacity, like.size), like.dtype)
        return cls(room, room, jnp.zeros((), jnp.int32))

    def added(
        self, vector: Float[Array, " m"], image: Float[Array, " m"], wanted: Bool[Array, ""]
    ) -> "SearchDirections":
        """With one more vector, of any length, if it is wanted and there is room."""
        capacity = self.vectors.shape[0]
        if capacity == 0:
            return self
        wanted = wanted & (self.count < capacity)
        place = (jnp.minimum(self.count, capacity - 1), jnp.zeros((), self.count.dtype))
        length = safe_divide(jnp.ones((), vector.dtype), norm(vector))

        def put(room: Float[Array, "k m"], row: Float[Array, " m"]) -> Float[Array, "k m"]:
            old = jax.lax.dynamic_slice(room, place, (1, row.size))
            row = jnp.where(wanted, row * length, old[0])
            return jax.lax.dynamic_update_slice(room, row[None], place)

        count = self.count + jnp.where(wanted, 1, 0)
        return SearchDirections(put(self.vectors, vector), put(self.images, image), count)

    def orthonormal(self) -> tuple[Float[Array, "k m"], Float[Array, "k m"]]:
        """Orthonormal vectors of the same span, without what is dependent but for rounding.

        Returns them and their images; rows of zeros make up the number.
        """
        mixing = self._mixing()
        return matmul(mixing, self.vectors), matmul(mixing, self.images)

    def galerkin(
        self, rhs: Float[Array, " m"], damping: Float[Array, ""]
    ) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """The w in the span with `b − (K + λI)w` orthogonal to it, and its `Kw`: no products."""
        mixing = self._mixing()
        projected = matmul(matmul(mixing, matmul(self.vectors, self.images.T)), mixing.T)
        values, rotation = jnp.linalg.eigh(symmetrised(projected))
        mixing = matmul(rotation.T, mixing)
        coordinates = matmul(mixing, matmul(self.vectors, rhs))
        y = matmul(coordinates / (jnp.maximum(values, 0) + damping), mixing)
        return matmul(y, self.vectors), matmul(y, self.images)

    def _mixing(self) -> Float[Array, "k k"]:
        """Combinations of the vectors that are orthonormal, or zero."""
        gram = symmetrised(matmul(self.vectors, self.vectors.T))
        values, rotation = jnp.linalg.eigh(gram)
        # Images of combinations are known to ε over the root of this.
        kept = values > jnp.sqrt(jnp.finfo(values.dtype).eps) * values[-1]
        root = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
        return (rotation * root).T
