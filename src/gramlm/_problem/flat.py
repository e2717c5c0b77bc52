"""The problem over a flat vector."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from .._core.flatten import FlatSpec
from .box import AbstractBox, Unbounded
from .flat_loss import AbstractFlatLoss, Squares
from .residual.base import AbstractResidual
from .row_factor import AbstractRowFactor, Unweighted


class FlatProblem(eqx.Module):
    """What is minimised over a flat vector: `½‖W f(θ)‖²`, or its loss, within a box."""

    function: AbstractResidual
    weights: AbstractRowFactor = Unweighted()
    loss: AbstractFlatLoss = Squares()
    box: AbstractBox = Unbounded()

    @property
    def params_spec(self) -> FlatSpec:
        return self.function.params_spec

    def residual(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        """`r = W f(θ)`."""
        return self.weights.times(self.function(params))

    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        """That of r: `½‖r‖²`, or the loss."""
        return self.loss.cost(residual)

    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        """`cost(before) − cost(after)`, without the cancellation of nearly equal sums."""
        return self.loss.decrease(before, after)

    def divided(self, scale: Float[Array, ""]) -> "FlatProblem":
        """The problem with its residual divided by a number, and its cost by the square."""
        return dataclasses.replace(
            self, function=self.function.divided(scale), loss=self.loss.divided(scale)
        )

    def prepared(self, prepare: Callable[[AbstractResidual], AbstractResidual]) -> "FlatProblem":
        """With the residual as `prepare`, that of a memory policy, wants it evaluated."""
        return dataclasses.replace(self, function=prepare(self.function))
