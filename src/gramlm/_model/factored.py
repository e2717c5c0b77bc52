"""Linearisations with rows combined, or with columns left out."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._problem.row_factor import AbstractRowFactor
from .linearisation import AbstractLinearisation, MaterialisedLinearisation, SquaredRows


class FactoredLinearisation(AbstractLinearisation):
    """`L J`, with `residual` in the place of r."""

    inner: AbstractLinearisation
    residual: Float[Array, " m"]
    left: AbstractRowFactor

    @property
    def num_params(self) -> int:
        return self.inner.num_params

    @property
    def stored(self) -> None:
        return None

    @property
    def source(self) -> None:
        return None

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " m"]:
        return self.left.times(self.inner.jvp(v))

    def vjp(self, u: Float[Array, " m"]) -> Float[Array, " p"]:
        return self.inner.vjp(self.left.transposed(u))

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k m"]:
        return self.left.times(self.inner.jvp_block(v).T).T

    def vjp_block(self, u: Float[Array, "k m"]) -> Float[Array, "k p"]:
        return self.inner.vjp_block(self.left.transposed(u.T).T)

    def sum_squared_rows(self, weights: Float[Array, " m"] | None = None) -> SquaredRows | None:
        if not self.left.diagonal:
            return None
        return self.inner.sum_squared_rows(self.left.squares(weights))

    def kept(self) -> "FactoredLinearisation":
        return eqx.tree_at(lambda at: at.inner, self, self.inner.kept())


class HeldLinearisation(AbstractLinearisation):
    """J without the columns of parameters that are held, which are zero."""

    inner: AbstractLinearisation
    residual: Float[Array, " n"]
    free: Bool[Array, " p"]

    @property
    def num_params(self) -> int:
        return self.inner.num_params

    @property
    def stored(self) -> None:
        return None

    @property
    def source(self) -> None:
        return None

    def jvp(self, v: Float[Array, " p"]) -> Float[Array, " n"]:
        return self.inner.jvp(self._freed(v))

    def vjp(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        return self._freed(self.inner.vjp(u))

    def jvp_block(self, v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        return self.inner.jvp_block(self._freed(v))

    def vjp_block(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        return self._freed(self.inner.vjp_block(u))

    def sum_squared_rows(self, weights: Float[Array, " n"] | None = None) -> SquaredRows | None:
        known = self.inner.sum_squared_rows(weights)
        return None if known is None else (self._freed(known[0]), known[1])

    def kept(self) -> "HeldLinearisation":
        return eqx.tree_at(lambda at: at.inner, self, self.inner.kept())

    def _freed(self, v: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        return jnp.where(self.free, v, 0)


def factored(
    at: AbstractLinearisation, residual: Float[Array, " m"], left: AbstractRowFactor
) -> AbstractLinearisation:
    """`L J` for a linearisation, with `residual` in the place of r; itself for the identity.

    A stored J stays one.
    """
    if left.identity:
        return at
    if at.stored is not None:
        return MaterialisedLinearisation(residual, left.times(at.stored))
    return FactoredLinearisation(inner=at, residual=residual, left=left)


def held(at: AbstractLinearisation, free: Bool[Array, " p"]) -> AbstractLinearisation:
    """A linearisation with the columns of what is not free left out. A stored J stays one."""
    if at.stored is not None:
        # What is held may have a derivative that is not finite.
        return MaterialisedLinearisation(at.residual, jnp.where(free, at.stored, 0))
    return HeldLinearisation(inner=at, residual=at.residual, free=free)
