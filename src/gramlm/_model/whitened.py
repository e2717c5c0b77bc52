"""The whitened Jacobian `A = J L⁻ᵀ` for a metric `M = L Lᵀ`, on blocks of vectors."""

from typing import Any

import equinox as eqx
import jax
import lineax as lx
from jaxtyping import Array, Float

from .linearisation import AbstractLinearisation
from .operators import GramOperator
from .whitening import Whitening, whitening


class WhitenedJacobian(eqx.Module):
    """`A` as an operator on blocks of vectors, which are rows.

    `wide`: whether K is `A Aᵀ`, on residual space; where n ≤ p unless given.
    """

    at: AbstractLinearisation
    whitening: Whitening
    wide: bool = eqx.field(static=True)

    def __init__(
        self,
        at: AbstractLinearisation,
        metric: lx.AbstractLinearOperator | None,
        wide: bool | None = None,
    ):
        GramOperator(at, metric=metric)  # checks the metric
        factor = Whitening(None) if metric is None else whitening(metric)
        self.at = at
        self.whitening = jax.tree.map(lambda x: x.astype(at.residual.dtype), factor)
        self.wide = at.num_residuals <= at.num_params if wide is None else wide

    @property
    def dtype(self) -> Any:
        return self.at.residual.dtype

    @property
    def size(self) -> int:
        """m, the dimension of the space on which K acts."""
        return self.at.num_residuals if self.wide else self.at.num_params

    def times(self, y: Float[Array, "k p"]) -> Float[Array, "k n"]:
        """`A y` for each row."""
        return self.at.jvp_block(jax.vmap(self.whitening.step)(y))

    def transposed(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        """`Aᵀ u` for each row."""
        return self.whitening.rows(self.at.vjp_block(u))

    def leave(self, x: Float[Array, "k m"]) -> Float[Array, "k q"]:
        """From the space on which K acts to the other one."""
        return self.transposed(x) if self.wide else self.times(x)

    def enter(self, x: Float[Array, "k q"]) -> Float[Array, "k m"]:
        """From the other space to that on which K acts."""
        return self.times(x) if self.wide else self.transposed(x)

    def gram(self, x: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """`K x` for each row."""
        return self.enter(self.leave(x))
