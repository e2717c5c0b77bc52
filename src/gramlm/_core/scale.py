"""Residuals whose squares would overflow or underflow are divided by a power of two."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .reductions import magnitude


def largest_entry(residual: Float[Array, " n"]) -> Float[Array, ""]:
    """`max |r|`, NaN or infinite if an entry is."""
    return magnitude(residual)


def residual_scale(size: Float[Array, ""]) -> Float[Array, ""]:
    """1 for residuals of ordinary size, and otherwise the power of two next below the size."""
    exponent = jnp.frexp(jnp.where(_leaves_range(size), size, 1))[1] - 1
    return jnp.where(_leaves_range(size), jnp.ldexp(jnp.ones_like(size), exponent), 1)


def next_scale(size: Float[Array, ""], scale: Float[Array, ""]) -> Float[Array, ""]:
    """The scale after residuals of the size `size·scale`; mostly the same.

    Those that have become small are not scaled up beyond what they were given as: J need not have
    become small with them.
    """
    wanted = residual_scale(size * scale)
    falling = jnp.where(size < 1, jnp.maximum(wanted, jnp.minimum(scale, 1)), wanted)
    return jnp.where(_leaves_range(size), falling, scale)


def _leaves_range(size: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether squares of residuals of this size leave half of the range of exponents."""
    limit = _limit(size)
    return jnp.isfinite(size) & (size > 0) & ((size > limit) | (size < 1 / limit))


def _limit(size: Float[Array, ""]) -> float:
    # The fourth root of the largest number: 2²⁵⁶ in float64, 2³² in float32.
    return 2.0 ** (jnp.finfo(size.dtype).maxexp // 4)
