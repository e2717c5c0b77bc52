"""The seam: a residual as a function of a flat vector, with its Jacobian."""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from ..._core.flatten import FlatSpec


class AbstractResidual(eqx.Module):
    """A residual as a function of a flat parameter vector, at fixed arguments."""

    params_spec: eqx.AbstractVar[FlatSpec]
    size: eqx.AbstractVar[int]

    @property
    def num_params(self) -> int:
        """p, the number of parameters."""
        return self.params_spec.size

    @abc.abstractmethod
    def __call__(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        """The residual vector, residual units."""

    @abc.abstractmethod
    def value_and_jacobian(
        self, params: Float[Array, " p"]
    ) -> tuple[Float[Array, " n"], Float[Array, "n p"]]:
        """The residual and its dense Jacobian, row by row in memory."""

    @abc.abstractmethod
    def assembly_products(self) -> int:
        """How many products with J or Jᵀ `value_and_jacobian` is worth."""

    @abc.abstractmethod
    def sum_squared_rows(
        self, params: Float[Array, " p"], weights: Float[Array, " n"] | None = None
    ) -> Float[Array, " p"] | None:
        """`diag(JᵀWJ)`, W diagonal, without storing J; None where rows of J are not cheap."""

    @abc.abstractmethod
    def divided(self, scale: Float[Array, ""]) -> "AbstractResidual":
        """The residual divided by a number."""

    @abc.abstractmethod
    def in_blocks(self, block_size: int, assemble: bool = True) -> "AbstractResidual":
        """The same residual, evaluated and differentiated by blocks of rows.

        `assemble`: whether whole rows of J may be formed on the way, which is a waste where they
        are sparse.
        """
