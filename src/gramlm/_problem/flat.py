"""The problem over a flat vector."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from .._core.flatten import FlatSpec
from .._core.reductions import dot, sum_squares
from .box import AbstractBox, Unbounded
from .flat_loss import FlatLoss
from .residual.base import AbstractResidual
from .row_factor import AbstractRowFactor


class FlatProblem(eqx.Module):
    """What is minimised over a flat vector: `½‖W f(θ)‖²`, or its loss, within a box."""

    function: AbstractResidual
    weights: AbstractRowFactor | None = None
    loss: FlatLoss | None = None
    box: AbstractBox = Unbounded()

    @property
    def params_spec(self) -> FlatSpec:
        return self.function.params_spec

    def residual(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        """`r = W f(θ)`."""
        return self.weighted(self.function(params))

    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        """That of r: `½‖r‖²`, or the loss."""
        return 0.5 * sum_squares(residual) if self.loss is None else self.loss.cost(residual)

    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        """`cost(before) − cost(after)`, without the cancellation of nearly equal sums."""
        if self.loss is None:
            return 0.5 * dot(before - after, before + after)
        return self.loss.decrease(before, after)

    def divided(self, scale: Float[Array, ""]) -> "FlatProblem":
        """The problem with its residual divided by a number, and its cost by the square."""
        loss = None if self.loss is None else self.loss.divided(scale)
        return dataclasses.replace(self, function=self.function.divided(scale), loss=loss)

    def prepared(self, prepare: Callable[[AbstractResidual], AbstractResidual]) -> "FlatProblem":
        """With the residual as `prepare`, that of a memory policy, wants it evaluated."""
        return dataclasses.replace(self, function=prepare(self.function))

    def weighted(self, residual: Float[Array, " n"]) -> Float[Array, " m"]:
        """`W f` for the value f of the residual function."""
        return residual if self.weights is None else self.weights.vector(residual)
