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

    Dense is chosen when J and K together have at most `max_entries` numbers (default 2²⁸, 1 GiB
    in float32 and 2 GiB in float64; a whitened copy of J is held beside it) and m = min(n, p) is
    at most `dense_order`, where the m³/3 operations of each factorisation begin to dominate. The
    rule uses shapes alone, so it is settled when the solve is compiled.
    """

    max_entries: int = eqx.field(static=True, default=2**28)
    dense_order: int = eqx.field(static=True, default=8192)
    dense: AbstractGramSolver = DenseSolver()
    iterative: AbstractGramSolver = LineaxSolver(ConjugateGradient())

    def choose(self, num_residuals: int, num_params: int) -> AbstractGramSolver:
        """The solver for n residuals and p parameters."""
        order = min(num_residuals, num_params)
        entries = num_residuals * num_params + order * order
        fits = entries <= self.max_entries and order <= self.dense_order
        return self.dense if fits else self.iterative

    def linearise(
        self, memory: AbstractMemoryPolicy, function: AbstractResidual, params: Float[Array, " p"]
    ):
        chosen = self.choose(function.size, function.num_params)
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
