"""A basis of parameter space and one of its image, by block Golub–Kahan."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ..._core.reductions import matmul, times_transpose
from .basis import KEPT, AbstractSubspace, Subspace
from .blocks import combined, orthonormal, outside


class TallSubspace(AbstractSubspace):
    """A basis for `K = AᵀA` that does not square A: with `Z Aᵀ = Rᵀ U` and two orthonormal bases.

    `params` is Z (k, p), with `Z AᵀA` and `Z AᵀA Zᵀ`; `left` is U (k, n), and `triangle` R.
    """

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
    def basis(self) -> Subspace:
        return self.params

    def image(self, y: Float[Array, " k"]) -> Float[Array, " n"]:
        """`A Zᵀ y`."""
        return combined(matmul(self.triangle, y), self.left, self.params.count)

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
        added = jnp.linalg.qr(outside(image, self.left, self.params.count).T)[0].T
        added = jnp.where(jnp.arange(len(image))[:, None] < params.newest, added, 0)
        added = orthonormal(outside(added, self.left, self.params.count), KEPT)
        added = jnp.roll(added, params.newest, axis=0)
        zero, start = jnp.zeros((), self.params.count.dtype), self.params.count
        left = jax.lax.dynamic_update_slice(self.left, added, (start, zero))
        columns = times_transpose(image, left).T
        triangle = jax.lax.dynamic_update_slice(self.triangle, columns, (zero, start))
        return TallSubspace(params, left, triangle)

    def factors(self, damping: Float[Array, ""]) -> tuple[Float[Array, "_ k"], Float[Array, "k k"]]:
        """Q and R' of `[R; √λ I] = Q R'`."""
        shift = jnp.sqrt(damping) * jnp.eye(self.params.capacity, dtype=self.params.dtype)
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
            back = matmul(q[: self.params.capacity].T, matmul(self.left, rhs))
        return jsl.solve_triangular(r, back)
