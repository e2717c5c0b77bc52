"""The least-squares problem that stands for a problem near a point."""

import equinox as eqx
from jaxtyping import Array, Float

from .._problem.box import Face
from .._problem.flat import FlatProblem
from .._problem.row_factor import AbstractRowFactor, product
from .factored import factored, held
from .linearisation import AbstractLinearisation


class Model(eqx.Module):
    """The least-squares problem that stands for a problem near a point.

    - `residual`, (n,): r there. `at`: r and J of the least-squares problem, which has the slope
      of the cost and about its curvature; without the columns of parameters that are held.
    - `left`: by which the J of `at` is that of the residual function multiplied.
    """

    residual: Float[Array, " n"]
    at: AbstractLinearisation
    left: AbstractRowFactor

    @classmethod
    def of(cls, problem: FlatProblem, at: AbstractLinearisation) -> "Model":
        """From the problem and the linearisation of its residual function."""
        residual = problem.weights.times(at.residual)
        corrected, factor = problem.loss.corrected(residual)
        left = product(factor, problem.weights)
        return cls(residual, factored(at, corrected, left), left)

    def curved(self, second: Float[Array, " n"]) -> Float[Array, " m"]:
        """A derivative of the residual function, as `at` sees it."""
        return self.left.times(second)

    @property
    def gradient(self) -> Float[Array, " p"]:
        """`Jᵀr`, one product."""
        return self.at.vjp(self.at.residual)

    def held(self, face: Face) -> AbstractLinearisation:
        """`at` with the columns of those that a face holds left out as well."""
        return held(self.at, face.free)
