"""Estimates of the spectrum of the Gram operator."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int

from .._core.arrays import safe_divide
from .._core.reductions import all_finite, dot, is_zero, norm, sum_squares
from .gram import Gram
from .linearisation import AbstractLinearisation
from .metric import dual_norm, metric_inverse, metric_norm

# Power iterations for λmax(K): from scratch, and from the vector of the last Jacobian. A factor of
# 2 is near enough; the numbers are arbitrary.
_FIRST_POWER_ITERATIONS = 5
_POWER_ITERATIONS = 2


def largest_eigenvalue(
    at: AbstractLinearisation,
    metric: lx.AbstractLinearOperator,
    gradient: Float[Array, " p"],
    probe: Float[Array, " p"],
    first: Bool[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, " p"], Int[Array, ""]]:
    """λmax(JM⁻¹Jᵀ), its direction, and the products it took: power iteration on `M⁻¹JᵀJ`.

    `probe` is the direction of the last Jacobian, or at the `first` any vector.
    `‖Jᵀr‖²_{M⁻¹}/‖r‖²` is a lower bound on it, so that the relative gradient is at most 1, and
    zero only where the gradient is.
    """
    tiny = jnp.finfo(probe.dtype).tiny
    iterations = jnp.where(first, _FIRST_POWER_ITERATIONS, _POWER_ITERATIONS)

    gram = Gram.of(at, metric, dual=False)  # not symmetric: M⁻¹ as a whole on one side

    def normalised(x):
        return safe_divide(x, metric_norm(metric, x))

    def iterate(_, carry):
        x, largest = carry
        image = gram.pull(x)
        # A square may underflow where its number does not: zero is kept for J = 0.
        square = jnp.where(is_zero(image), 0, jnp.maximum(sum_squares(image), tiny))
        # Each square is a lower bound, and they grow unless the vector has underflowed.
        return normalised(gram.push(image)), jnp.maximum(largest, square)

    # No vector alone is safe: J may annihilate the one, and a small gradient be all rounding.
    downhill = normalised(metric_inverse(metric, gradient))
    aligned = jnp.where(dot(probe, gradient) < 0, -1, 1)  # lest the two cancel
    mixed = normalised(probe) + aligned * downhill
    start = (normalised(mixed), jnp.zeros((), probe.dtype))
    direction, largest = jax.lax.fori_loop(0, iterations, iterate, start)
    bound = safe_divide(dual_norm(metric, gradient), norm(at.residual)) ** 2
    largest = jnp.maximum(largest, bound)
    # J = 0 leaves no direction to continue from, and what is not finite none either.
    usable = (largest > 0) & all_finite(direction)
    return largest, jnp.where(usable, direction, probe), 2 * iterations
