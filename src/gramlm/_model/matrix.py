"""J, or the triangle R of `J = QR`, as a matrix, from whatever a linearisation offers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core.arrays import map_blocks, unit_rows
from .._problem.residual.base import AbstractResidual
from .._problem.residual.rows import RowResidual, batched
from .linearisation import AbstractLinearisation, MaterialisedLinearisation

# Unit vectors multiplied at a time.
_AT_A_TIME = 128

# Data points whose rows are factorised at a time, at least.
_POINTS_AT_A_TIME = 256


def residual_function(at: AbstractLinearisation) -> AbstractResidual | None:
    """The residual behind a linearisation of the package; one of the user's may have none."""
    function = getattr(at, "function", None)
    return function if isinstance(function, AbstractResidual) else None


def jacobian_of(at: AbstractLinearisation) -> Float[Array, "n p"]:
    """J: stored, assembled, or from min(n, p) products."""
    if isinstance(at, MaterialisedLinearisation):
        return at.jacobian
    function = residual_function(at)
    if function is not None:
        return function.value_and_jacobian(_point(at))[1]
    n, p, dtype = at.num_residuals, at.num_params, at.residual.dtype
    count = min(_AT_A_TIME, n, p)
    if n <= p:
        return map_blocks(lambda start: at.vjp_block(unit_rows(start, count, n, dtype)), n, count)
    return map_blocks(lambda start: at.jvp_block(unit_rows(start, count, p, dtype)), p, count).T


def triangle_of(at: AbstractLinearisation) -> Float[Array, "m p"]:
    """The R of `J = QR`, m = min(n, p), or p rows, some of them zero.

    For `Rows` under a memory policy that does not store J it comes from one block of rows after
    another, and J never exists.
    """
    function = residual_function(at)
    if isinstance(function, RowResidual):
        return _triangle_of_rows(function, _point(at))
    return jnp.linalg.qr(jacobian_of(at), mode="r")


def row_batches(function: RowResidual, least: int = 1):
    """For each function of `Rows`, `points -> residual of these alone`, its data, and a number of
    points to take at a time, with at least `least` rows."""
    for f, data, m in zip(function.functions, function.datasets, function.sizes, strict=True):

        def of_points(points: PyTree, f=f, m=m) -> RowResidual:
            size = m * jax.tree.leaves(points)[0].shape[0]
            return dataclasses.replace(
                function, functions=(f,), datasets=(points,), sizes=(m,), size=size
            )

        count = max(function.block_size or _POINTS_AT_A_TIME, -(-least // m))
        yield of_points, data, count


def _triangle_of_rows(function: RowResidual, params: Float[Array, " p"]) -> Float[Array, "p p"]:
    p = params.size
    triangle = jnp.zeros((p, p), params.dtype)
    # A block has no fewer rows than the triangle that it joins.
    for of_points, data, count in row_batches(function, least=p):

        def join(triangle, points, of_points=of_points):
            rows = of_points(points).value_and_jacobian(params)[1]
            return jnp.linalg.qr(jnp.concatenate([triangle, rows]), mode="r"), None

        full, rest = batched(data, count)
        if full is not None:
            triangle = jax.lax.scan(join, triangle, full)[0]
        if rest is not None:
            triangle = join(triangle, rest)[0]
    return triangle


def _point(at: Any) -> Float[Array, " p"]:
    return at.params
