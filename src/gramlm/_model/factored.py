"""Linearisations with rows combined and columns left out."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._problem.row_factor import AbstractRowFactor
from .linearisation import AbstractLinearisation, MaterialisedLinearisation


class FactoredLinearisation(AbstractLinearisation):
    """`L J P`: rows of J combined by L, and the columns of parameters that are held left out."""

    inner: AbstractLinearisation
    residual: Float[Array, " m"]
    left: AbstractRowFactor | None
    free: Bool[Array, " p"] | None

    @property
    def num_params(self) -> int:
        return self.inner.num_params

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " m"]:
        image = self.inner.jvp(self._freed(v))
        return image if self.left is None else self.left.vector(image)

    def vjp(self, u: Float[Array, " m"]) -> Float[Array, " p"]:
        pulled = u if self.left is None else self.left.transposed(u[:, None])[:, 0]
        return self._freed(self.inner.vjp(pulled))

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k m"]:
        images = self.inner.jvp_block(self._freed(v))
        return images if self.left is None else self.left.times(images.T).T

    def vjp_block(self, u: Float[Array, "k m"]) -> Float[Array, "k p"]:
        pulled = u if self.left is None else self.left.transposed(u.T).T
        return self._freed(self.inner.vjp_block(pulled))

    def sum_squared_rows(
        self, weights: Float[Array, " m"] | None = None
    ) -> tuple[Float[Array, " p"], int] | None:
        squares = None if self.left is None else self.left.squares
        if self.left is not None and squares is None:
            return None
        if weights is not None:
            squares = weights if squares is None else weights * squares
        known = self.inner.sum_squared_rows(squares)
        return None if known is None else (self._freed(known[0]), known[1])

    def kept(self) -> "FactoredLinearisation":
        return eqx.tree_at(lambda at: at.inner, self, self.inner.kept())

    def _freed(self, v: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        return v if self.free is None else jnp.where(self.free, v, 0)


def factored(
    at: AbstractLinearisation,
    residual: Float[Array, " m"],
    left: AbstractRowFactor | None,
    free: Bool[Array, " p"] | None = None,
) -> AbstractLinearisation:
    """`L J P` for a linearisation, with `residual` in the place of r; itself where both are None.

    A stored J stays one.
    """
    if left is None and free is None:
        return at
    if isinstance(at, MaterialisedLinearisation):
        jacobian = at.jacobian if left is None else left.times(at.jacobian)
        # What is held may have a derivative that is not finite.
        held = jacobian if free is None else jnp.where(free, jacobian, 0)
        return MaterialisedLinearisation(residual, held)
    return FactoredLinearisation(inner=at, residual=residual, left=left, free=free)
