"""Losses: what a residual costs, so that a few that are far off do not decide the fit.

The cost of a residual r is `½ρ(r²)`, and of a block of residuals `½ρ(‖r‖²)`.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractLoss(eqx.Module):
    """A loss, by its ρ."""

    @abc.abstractmethod
    def rho(self, squares: Float[Array, " m"]) -> Float[Array, " m"]:
        """ρ(s) for each of m squared residuals, or squared norms of blocks; squared residual units.

        It must be zero at zero with slope 1, not fall, and have two derivatives where it is smooth.
        """


class AbstractKnownLoss(AbstractLoss):
    """A loss of which more is known than ρ."""

    @property
    @abc.abstractmethod
    def block(self) -> int:
        """How many residuals that follow one another count by their norm."""

    @abc.abstractmethod
    def fitted(self, array: Any) -> "AbstractKnownLoss":
        """With what belongs to single residuals, or blocks, spread over an array of them.

        `array`: its shape and dtype.
        """

    @abc.abstractmethod
    def divided(
        self, scale: Float[Array, ""]
    ) -> tuple["AbstractKnownLoss", Float[Array, ""] | None]:
        """The loss of residuals that have been divided by a number, where that is one of its kind,
        and None; elsewhere itself and the unit in which it is to be given them.
        """

    @abc.abstractmethod
    def with_arrays(self) -> AbstractLoss:
        """The same with arrays for Python numbers, so that other values are the same program."""


class UserLoss(AbstractKnownLoss):
    """A loss of which ρ alone is known."""

    loss: AbstractLoss

    @property
    def block(self) -> int:
        return 1

    def rho(self, squares: Float[Array, " m"]) -> Float[Array, " m"]:
        return self.loss.rho(squares)

    def fitted(self, array: Any) -> "UserLoss":
        return self

    def divided(self, scale: Float[Array, ""]) -> tuple["UserLoss", Float[Array, ""]]:
        return self, scale

    def with_arrays(self) -> AbstractLoss:
        # It may do with its numbers what only Python's can.
        return self.loss


def known(loss: AbstractLoss) -> AbstractKnownLoss:
    """A loss of the package as it is, and one of the user's as one of which ρ alone is known."""
    return loss if isinstance(loss, AbstractKnownLoss) else UserLoss(loss)


def slopes(loss: AbstractLoss, squares: Float[Array, " m"]):
    """ρ, ρ′ and ρ″."""
    ones = jnp.ones_like(squares)

    def first(s):
        return jax.jvp(loss.rho, (s,), (ones,))

    (value, slope), (_, curvature) = jax.jvp(first, (squares,), (ones,))
    return value, slope, curvature
