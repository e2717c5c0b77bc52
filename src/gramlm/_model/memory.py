"""What is stored between two products with J.

A *memory policy* decides what is stored between two products with J:

- `Materialise` stores J.
- `Keep` stores the linearised residual (`jax.linearize`): the cheapest products. For a kernel
  evaluated inside the residual, what is stored is as large as J itself.
- `Recompute` stores nothing: each product evaluates the residual again (`jvp`, `vjp`).
- `RowBlocks` recomputes by blocks of residual rows: memory is bounded by the block.
"""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from .._problem.residual.base import AbstractResidual
from .differentiated import RowLinearisation, kept_at, recomputed_at
from .linearisation import AbstractLinearisation, MaterialisedLinearisation

# Data points evaluated at a time where J is stored. Arbitrary.
_POINTS = 256


class AbstractMemoryPolicy(eqx.Module):
    """Decides what is stored between two products with J."""

    @abc.abstractmethod
    def prepare(self, function: AbstractResidual) -> AbstractResidual:
        """The residual as it is to be evaluated and differentiated under this policy."""

    @abc.abstractmethod
    def linearise(
        self, function: AbstractResidual, params: Float[Array, " p"]
    ) -> tuple[AbstractLinearisation, int]:
        """The linearisation of a prepared residual at a point, and the products with J it cost."""


class Keep(AbstractMemoryPolicy):
    """Stores the linearised residual: fastest, memory of the size of its intermediates."""

    def prepare(self, function: AbstractResidual) -> AbstractResidual:
        return function

    def linearise(self, function: AbstractResidual, params: Float[Array, " p"]):
        return kept_at(function, params), 0


class Materialise(AbstractMemoryPolicy):
    """Assembles J: n·p numbers, and products at the speed of a matrix product.

    Cheap for a residual declared with `Rows`, whose rows all come from one pass over the data; a
    plain residual pays one product with J for each of min(n, p) rows.
    """

    def prepare(self, function: AbstractResidual) -> AbstractResidual:
        # The residual, too, may hold as much as J for each evaluation of all points at once.
        return function.by_points(_POINTS)

    def linearise(self, function: AbstractResidual, params: Float[Array, " p"]):
        residual, jacobian = function.value_and_jacobian(params)
        return MaterialisedLinearisation(residual, jacobian), function.assembly_products()


class Recompute(AbstractMemoryPolicy):
    """Stores nothing: every product with J costs an evaluation of the residual as well."""

    def prepare(self, function: AbstractResidual) -> AbstractResidual:
        return function

    def linearise(self, function: AbstractResidual, params: Float[Array, " p"]):
        return recomputed_at(function, params), 0


class RowBlocks(AbstractMemoryPolicy):
    """Recomputes by blocks of `block_size` data points: memory bounded by the block.

    For a residual declared with `Rows` each block is evaluated and differentiated on its own. Any
    other residual is one block to us: it is checkpointed (`jax.checkpoint`), and the rows of a
    dense Jacobian are assembled `block_size` at a time. With `assemble` the rows of J that belong
    to a block are formed and multiplied with all vectors of a product at once; without it each
    vector is multiplied by differentiation, the cheaper way where a residual depends on few of
    the parameters.
    """

    block_size: int = eqx.field(static=True, default=256)
    assemble: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.block_size < 1:
            raise ValueError(f"`RowBlocks(block_size=…)` must be at least 1; got {self.block_size}")

    def prepare(self, function: AbstractResidual) -> AbstractResidual:
        return function.in_blocks(self.block_size, self.assemble)

    def linearise(self, function: AbstractResidual, params: Float[Array, " p"]):
        if function.cheap_rows and self.assemble:
            at = RowLinearisation(function=function, params=params, residual=function(params))
            return at, 0
        return recomputed_at(function, params), 0
