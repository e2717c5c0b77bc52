"""Products with `K = J M⁻¹ Jᵀ`, or with its sibling on parameter space, from products with J."""

from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import lineax as lx
from jaxtyping import Array, Float

from .linearisation import AbstractLinearisation
from .metric import checked
from .whitening import AbstractSplit, Inverse, Whitening, whitening

Split = TypeVar("Split", bound=AbstractSplit)


class Gram(eqx.Module, Generic[Split]):
    """`K = (A S)(T Aᵀ)`, (m, m), with `M⁻¹ = S T`, or in the normal form `K = (T Aᵀ)(A S)`.

    `params` splits M, and `residuals` the D of `A = D⁻¹ J` likewise, `D⁻¹ = S T`, into `T J` and
    `Jᵀ S`. With factors `M = L Lᵀ` K is `B Bᵀ`, with `B = J L⁻ᵀ` in the dual form and its
    transpose in the normal one. m is n in the dual form and p in the normal one, and q the other;
    blocks of k vectors have them as rows. A product with K takes two with J.
    """

    at: AbstractLinearisation
    params: Split
    residuals: AbstractSplit
    dual: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        at: AbstractLinearisation,
        metric: lx.AbstractLinearOperator | None = None,
        dual: bool = True,
        damper: lx.AbstractLinearOperator | None = None,
    ) -> "Gram[Inverse]":
        """For metrics as they are, M of parameters and D of residuals: neither is factorised."""
        return Gram(at, Inverse(metric), Inverse(damper), dual)

    @classmethod
    def whitened(
        cls,
        at: AbstractLinearisation,
        metric: lx.AbstractLinearOperator | None = None,
        dual: bool | None = None,
    ) -> "Gram[Whitening]":
        """With the factor of a metric; in the dual form where n ≤ p unless given."""
        factor = Whitening(None)
        if metric is not None:
            factor = whitening(checked(metric, "metric", at.num_params))
        factor = jax.tree.map(lambda x: x.astype(at.residual.dtype), factor)
        dual = at.num_residuals <= at.num_params if dual is None else dual
        return Gram(at, factor, Whitening(None), dual)

    @property
    def dtype(self) -> Any:
        """The dtype of K."""
        return self.at.residual.dtype

    @property
    def size(self) -> int:
        """m, the order of K."""
        return self.at.num_residuals if self.dual else self.at.num_params

    @property
    def other_size(self) -> int:
        """q, the dimension of the other space."""
        return self.at.num_params if self.dual else self.at.num_residuals

    def times(self, y: Float[Array, "k p"]) -> Float[Array, "k n"]:
        """`T J S y` for each row."""
        return self.residuals.rows(self.at.jvp_block(self.params.steps(y)))

    def transposed(self, u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        """`T Jᵀ S u` for each row."""
        return self.params.rows(self.at.vjp_block(self.residuals.steps(u)))

    def leave(self, x: Float[Array, "k m"]) -> Float[Array, "k q"]:
        """From the space on which K acts to the other one."""
        return self.transposed(x) if self.dual else self.times(x)

    def enter(self, x: Float[Array, "k q"]) -> Float[Array, "k m"]:
        """From the other space to that on which K acts."""
        return self.times(x) if self.dual else self.transposed(x)

    def multiply_block(self, x: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """`K x` for each row, in two passes over the data."""
        return self.enter(self.leave(x))

    # One vector by itself is not a block of one, for which rows of J may be assembled.

    def pull(self, x: Float[Array, " m"]) -> Float[Array, " q"]:
        """One vector, from the space on which K acts to the other one: `Bᵀ x`."""
        return self._transposed(x) if self.dual else self._times(x)

    def push(self, y: Float[Array, " q"]) -> Float[Array, " m"]:
        """One vector, from the other space to that on which K acts: `B y`."""
        return self._times(y) if self.dual else self._transposed(y)

    def multiply(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`K x`."""
        return self.push(self.pull(x))

    def _times(self, y: Float[Array, " p"]) -> Float[Array, " n"]:
        return self.residuals.row(self.at.jvp(self.params.step(y)))

    def _transposed(self, u: Float[Array, " n"]) -> Float[Array, " p"]:
        return self.params.row(self.at.vjp(self.residuals.step(u)))
