"""How nearly the residual is orthogonal to the columns of J, and what rounding makes of that."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core.arrays import safe_divide, scattered_signs
from .._core.reductions import column_sum_squares, is_zero, magnitude, norm
from .._core.reductions import largest as largest_of
from .._model.linearisation import AbstractLinearisation
from .rounding import Rounding


class AbstractStationarity(eqx.Module):
    """What is known of the gradient at an iterate, between 0 and 1 and in no units.

    - `longest`, (p,): the largest lengths so far of the columns of J, 0 where it is not stored.
    """

    longest: eqx.AbstractVar[Float[Array, " p"]]

    @property
    @abc.abstractmethod
    def relative_gradient(self) -> Float[Array, ""]:
        """The largest cosine of r and a column of J; where J is not stored, of means of them."""

    @property
    @abc.abstractmethod
    def significant_gradient(self) -> Float[Array, ""]:
        """The same without the parameters that no longer count."""

    @abc.abstractmethod
    def rounding(self, cost: Float[Array, ""]) -> Rounding:
        """What rounding does at this iterate, whose cost is given."""

    @abc.abstractmethod
    def negligible(self, step: Float[Array, " p"]) -> Bool[Array, ""]:
        """Whether a step is no more than rounding of the parameters."""


class ColumnStationarity(AbstractStationarity):
    """From the columns of a stored J, each for itself."""

    params: Float[Array, " p"]
    residual: Float[Array, " n"]
    gradient: Float[Array, " p"]
    lengths: Float[Array, " p"]
    longest: Float[Array, " p"]

    @classmethod
    def of(
        cls,
        residual: Float[Array, " n"],
        jacobian: Float[Array, "n p"],
        params: Float[Array, " p"],
        gradient: Float[Array, " p"],
        history: Float[Array, " p"],
    ) -> "ColumnStationarity":
        lengths = jnp.sqrt(column_sum_squares(jacobian))
        longest = jnp.maximum(history, lengths)
        longest = jnp.where(jnp.isfinite(longest), longest, history)
        return cls(
            params=params,
            residual=residual,
            gradient=gradient,
            lengths=lengths,
            longest=longest,
        )

    @property
    def relative_gradient(self) -> Float[Array, ""]:
        return largest_of(self._cosines())

    @property
    def significant_gradient(self) -> Float[Array, ""]:
        """One does not count if its column has become far shorter than it was, and moving it by
        its own size moves r by less than its rounding: a term of a sum that has died, where the
        slope of what is left of it says nothing.
        """
        eps = jnp.finfo(self.params.dtype).eps
        moved = jnp.abs(self.params) * self.lengths
        died = self.lengths <= eps**0.5 * self.longest
        lost = died & (moved <= eps * norm(self.residual))
        return largest_of(jnp.where(lost, 0, self._cosines()))

    def rounding(self, cost: Float[Array, ""]) -> Rounding:
        eps = float(jnp.finfo(self.params.dtype).eps)
        moved = norm(eps * self.lengths * self.params)
        return Rounding(cost, safe_divide(moved, norm(self.residual)), accuracy=10 * eps**0.5)

    def negligible(self, step: Float[Array, " p"]) -> Bool[Array, ""]:
        """By what it is to r, so that no parameter's unit matters."""
        eps = jnp.finfo(step.dtype).eps
        return magnitude(self.lengths * step) <= eps * magnitude(self.lengths * self.params)

    def _cosines(self) -> Float[Array, " p"]:
        """Between r and each column of J."""
        size, slopes = self.lengths * norm(self.residual), jnp.abs(self.gradient)
        # Where squares underflow, nothing is known of a gradient that is not zero.
        cosines = jnp.where(size > 0, safe_divide(slopes, size), jnp.where(slopes > 0, 1, 0))
        return jnp.minimum(cosines, 1)


class MeanStationarity(AbstractStationarity):
    """From norms alone, where J is not stored: `‖Jᵀr‖_{M⁻¹}/(√λmax(K)·‖r‖)`."""

    at: AbstractLinearisation
    params: Float[Array, " p"]
    gradient_norm: Float[Array, ""]
    largest: Float[Array, ""]
    longest: Float[Array, " p"]

    @property
    def relative_gradient(self) -> Float[Array, ""]:
        r = self.at.residual
        size = jnp.sqrt(self.largest) * norm(r)
        # Where the squares underflow, the gradient is known to vanish only if r or J does.
        zero = is_zero(r) | ((self.largest == 0) & (self.gradient_norm == 0))
        return jnp.where(size > 0, safe_divide(self.gradient_norm, size), jnp.where(zero, 0, 1))

    @property
    def significant_gradient(self) -> Float[Array, ""]:
        return self.relative_gradient

    def rounding(self, cost: Float[Array, ""]) -> Rounding:
        """By scattered signs, one product with J."""
        signs = scattered_signs(self.params.size, self.params.dtype)
        eps = jnp.finfo(self.params.dtype).eps
        moved = norm(self.at.jvp(eps * signs * self.params))
        return Rounding(cost, safe_divide(moved, norm(self.at.residual)), accuracy=0.0)

    def negligible(self, step: Float[Array, " p"]) -> Bool[Array, ""]:
        return norm(step) <= jnp.finfo(step.dtype).eps * norm(self.params)


def stationarity_at(
    at: AbstractLinearisation,
    params: Float[Array, " p"],
    gradient: Float[Array, " p"],
    gradient_norm: Float[Array, ""],
    largest: Float[Array, ""],
    history: Float[Array, " p"],
) -> AbstractStationarity:
    """By columns where J is stored. `history`: `longest` of the iterate before, or zeros."""
    if at.stored is not None:
        return ColumnStationarity.of(at.residual, at.stored, params, gradient, history)
    return MeanStationarity(
        at=at, params=params, gradient_norm=gradient_norm, largest=largest, longest=history
    )
