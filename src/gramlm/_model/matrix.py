"""J, or the triangle R of `J = QR`, as a matrix, from whatever a linearisation offers."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.arrays import VECTORS_AT_A_TIME, map_blocks, unit_rows
from .linearisation import AbstractLinearisation


def jacobian_of(at: AbstractLinearisation) -> Float[Array, "n p"]:
    """J: stored, assembled, or from min(n, p) products."""
    if at.stored is not None:
        return at.stored
    if at.source is not None:
        return at.source.function.value_and_jacobian(at.source.params)[1]
    n, p, dtype = at.num_residuals, at.num_params, at.residual.dtype
    count = min(VECTORS_AT_A_TIME, n, p)
    if n <= p:
        return map_blocks(lambda start: at.vjp_block(unit_rows(start, count, n, dtype)), n, count)
    return map_blocks(lambda start: at.jvp_block(unit_rows(start, count, p, dtype)), p, count).T


def triangle_of(at: AbstractLinearisation) -> Float[Array, "m p"]:
    """The R of `J = QR`, m = min(n, p), or p rows, some of them zero.

    For `Rows` under a memory policy that does not store J it comes from one block of rows after
    another, and J never exists.
    """
    if at.source is not None:
        return at.source.function.triangle(at.source.params)
    return jnp.linalg.qr(jacobian_of(at), mode="r")
