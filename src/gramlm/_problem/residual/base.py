"""The seam: a residual as a function of a flat vector, with its Jacobian."""

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..._core.flatten import FlatSpec
from .outputs import Part

# What is computed of rows of J: arrays with one number for each.
Reduced = tuple[Float[Array, " k"], ...]
Reduce = Callable[[Float[Array, "k p"]], Reduced]


class AbstractResidual(eqx.Module):
    """A residual as a function of a flat parameter vector, at fixed arguments.

    What kind it is no other room asks: what depends on it is a method.
    """

    params_spec: eqx.AbstractVar[FlatSpec]
    size: eqx.AbstractVar[int]

    @property
    def num_params(self) -> int:
        """p, the number of parameters."""
        return self.params_spec.size

    @property
    @abc.abstractmethod
    def cheap_rows(self) -> bool:
        """Whether all rows of J come from one pass over the data."""

    @abc.abstractmethod
    def __call__(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        """The residual vector, residual units."""

    # The flat residual and what the user's function returns.

    @abc.abstractmethod
    def structure(self, params: Float[Array, " p"]) -> PyTree:
        """What the residual function returns, as shapes and dtypes; of `Rows` an array a
        function.
        """

    @abc.abstractmethod
    def flatten_output(self, output: PyTree) -> Float[Array, " n"]:
        """A pytree like that of `structure`, in the order of the flat residual."""

    @abc.abstractmethod
    def unflatten_output(self, vector: Float[Array, " n"], params: Float[Array, " p"]) -> PyTree:
        """One number for each of the flat residuals, as `structure`."""

    @abc.abstractmethod
    def parts(self, params: Float[Array, " p"]) -> tuple[PyTree[Part], str]:
        """The parts that may each have a loss, in the order of the flat residual, and in words
        what declares them.
        """

    # J, or what is made of it.

    @abc.abstractmethod
    def value_and_jacobian(
        self, params: Float[Array, " p"]
    ) -> tuple[Float[Array, " n"], Float[Array, "n p"]]:
        """The residual and its dense Jacobian, row by row in memory."""

    @abc.abstractmethod
    def assembly_products(self) -> int:
        """How many products with J or Jᵀ `value_and_jacobian` is worth."""

    @abc.abstractmethod
    def triangle(self, params: Float[Array, " p"]) -> Float[Array, "m p"]:
        """The R of `J = QR`, m = min(n, p), or p rows, some of them zero; without storing J where
        its rows are cheap.
        """

    @abc.abstractmethod
    def map_rows(self, params: Float[Array, " p"], reduce: Reduce) -> Reduced:
        """What `reduce` makes of the rows of J, some of them at a time, (n,) each."""

    @abc.abstractmethod
    def sum_squared_rows(
        self, params: Float[Array, " p"], weights: Float[Array, " n"] | None = None
    ) -> Float[Array, " p"] | None:
        """`diag(JᵀWJ)`, W diagonal, without storing J; None where rows of J are not cheap."""

    @abc.abstractmethod
    def rows_times(self, params: Float[Array, " p"], v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        """`V Jᵀ`; where rows are cheap, by rows that are formed some at a time for all of V."""

    @abc.abstractmethod
    def times_rows(self, params: Float[Array, " p"], u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        """`U J`, likewise."""

    # The same residual, otherwise evaluated.

    @abc.abstractmethod
    def divided(self, scale: Float[Array, ""]) -> "AbstractResidual":
        """The residual divided by a number."""

    @abc.abstractmethod
    def in_blocks(self, block_size: int, assemble: bool = True) -> "AbstractResidual":
        """The same residual, evaluated and differentiated by blocks of rows.

        `assemble`: whether whole rows of J may be formed on the way, which is a waste where they
        are sparse.
        """

    @abc.abstractmethod
    def by_points(self, count: int) -> "AbstractResidual":
        """The same residual, evaluated at this many data points at a time where it has some."""

    @abc.abstractmethod
    def sample(self, count: int) -> "AbstractResidual":
        """The residual of the first `count` points of each data set; itself where it has none."""
