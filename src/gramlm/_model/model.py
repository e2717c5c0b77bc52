"""The least-squares problem that stands for a problem near a point."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._problem.box import Box, Face
from .._problem.flat import FlatProblem
from .._problem.row_factor import AbstractRowFactor, product
from .factored import factored
from .linearisation import AbstractLinearisation


class Model(eqx.Module):
    """The least-squares problem that stands for a problem near a point.

    - `residual`, (n,): r there. `at`: r and J of the least-squares problem, which has the slope
      of the cost and about its curvature; without the columns of parameters that are held.
    - `left`: by which the J of `at` is that of the residual function multiplied.
    - `face`: which parameters are held; None without bounds.
    """

    residual: Float[Array, " n"]
    at: AbstractLinearisation
    left: AbstractRowFactor | None
    face: Face | None = None

    @classmethod
    def of(cls, problem: FlatProblem, at: AbstractLinearisation) -> "Model":
        """From the problem and the linearisation of its residual function."""
        residual = problem.weighted(at.residual)
        if problem.loss is None:
            return cls(residual, factored(at, residual, problem.weights), problem.weights)
        corrected, factor = problem.loss.corrected(residual)
        left = product(factor, problem.weights)
        return cls(residual, factored(at, corrected, left), left)

    def curved(self, second: Float[Array, " n"]) -> Float[Array, " m"]:
        """A derivative of the residual function, as `at` sees it."""
        return second if self.left is None else self.left.vector(second)

    def within(
        self, box: Box | None, params: Float[Array, " p"]
    ) -> tuple["Model", Float[Array, " p"]]:
        """The model where bounds hold some of the parameters, and the gradient of the others."""
        gradient = self.at.vjp(self.at.residual)
        if box is None:
            return self, gradient
        face = box.face(params, gradient)
        held = dataclasses.replace(self, at=self.held(face), face=face)
        return held, jnp.where(face.free, gradient, 0)

    def held(self, face: Face) -> AbstractLinearisation:
        """`at` with the columns of those that a face holds left out as well."""
        return factored(self.at, self.at.residual, None, face.free)
