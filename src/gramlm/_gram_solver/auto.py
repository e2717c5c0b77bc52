"""The default linear solver: dense where it fits, conjugate gradients where it does not."""

import equinox as eqx
import lineax as lx
from jaxtyping import Array, Float

from .._linearisation import (
    AbstractLinearisation,
    AbstractMemoryPolicy,
    MaterialisedLinearisation,
)
from .._residual import AbstractResidual
from .base import AbstractFactorisation, AbstractGramSolver, Form
from .conjugate_gradient import ConjugateGradient
from .dense import DenseSolver
from .lineax_adapter import LineaxSolver


class AutoSolver(AbstractGramSolver):
    """`DenseSolver` where J and its Gram matrix fit, `LineaxSolver(ConjugateGradient())` beyond.

    Dense is chosen when J and K together take at most `dense_limit` bytes (default 2 GiB: a
    whitened copy of J is held beside it) and m = min(n, p) is at most `dense_order`, where the
    m³/3 operations of each factorisation begin to dominate. The rule uses shapes alone, so it is
    settled when the solve is compiled.
    """

    dense_limit: int = eqx.field(static=True, default=2 * 1024**3)
    dense_order: int = eqx.field(static=True, default=8192)
    dense: AbstractGramSolver = DenseSolver()
    iterative: AbstractGramSolver = LineaxSolver(ConjugateGradient())

    def choose(self, num_residuals: int, num_params: int, itemsize: int) -> AbstractGramSolver:
        """The solver for n residuals, p parameters, and numbers of `itemsize` bytes."""
        order = min(num_residuals, num_params)
        memory = itemsize * (num_residuals * num_params + order * order)
        fits = memory <= self.dense_limit and order <= self.dense_order
        return self.dense if fits else self.iterative

    def linearise(
        self, memory: AbstractMemoryPolicy, function: AbstractResidual, params: Float[Array, " p"]
    ):
        chosen = self.choose(function.size, function.num_params, params.dtype.itemsize)
        return chosen.linearise(memory, function, params)

    def factorise(
        self,
        linearisation: AbstractLinearisation,
        metric: lx.AbstractLinearOperator,
        largest_eigenvalue: Float[Array, ""],
        form: Form,
    ) -> AbstractFactorisation:
        dense = isinstance(linearisation, MaterialisedLinearisation)
        chosen = self.dense if dense else self.iterative
        return chosen.factorise(linearisation, metric, largest_eigenvalue, form)
