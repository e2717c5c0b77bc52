"""Interpolation by fixed Gaussians at scattered centres, the kernel never stored.

The residual is `sin(Φ θ) − y` with `Φ[i, j] = exp(−‖xᵢ − cⱼ‖²/(2w²))/√p`, points and centres drawn
uniformly in the unit square or cube, four centres a point. `y = sin(Φ θ*)` for normally
distributed θ*, scaled so that the largest `|Φ θ*|` is 1.2: the sine stays on its monotone branch,
the cost of the solution is zero, and every eigenvector of `K = ΦΦᵀ` has its share of y. So a level
of the cost asks for the eigenvalues down to about that level, and the decay of the spectrum is
what makes a problem hard: of 2048 eigenvalues 303 are above 1e-4 of the largest in the plane, 465
above 1e-6 and 626 above 1e-8; in space 333, 630 and 976. Twice the points at the same width add
three in a hundred.

Stored, Φ would be 67 MB at 2048 points in float32 and 4.3 GB at 16384. Evaluated by blocks of 64
points, a product with J or Jᵀ took 10, 110 and 470 ms at 2048, 8192 and 16384 points in float32 on
two cores; with the coordinates of the centres as the last axis it took six times as long.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..harness.instance import Instance, Problem

POINTS_AT_A_TIME = 64
CENTRES_A_POINT = 4
LARGEST = 1.2
SEED = 0
WIDTHS = {2: 0.05, 3: 0.12}


def squared_distances(x: Any, centres: Any) -> Any:
    """From one point (d,) to centres (d, m). Expanded, `|x|² − 2xc + |c|²` would cancel."""
    return sum((x[k] - centres[k]) ** 2 for k in range(centres.shape[0]))


def _field(params: Any, x: Any, centres: Any, width: float) -> Any:
    """`Φ θ` at one point."""
    kernel = jnp.exp(squared_distances(x, centres) * (-0.5 / width**2))
    return jnp.dot(kernel, params) / centres.shape[1] ** 0.5


def _row(params: Any, point: Any, *, centres: Any, width: float) -> Any:
    x, y = point
    return jnp.sin(_field(params, x, centres, width)) - y


def by_blocks(row: Any, params: Any, points: Any) -> Any:
    """`row(params, point)` at all points, some at a time, differentiated without storing them."""
    remembered = jax.checkpoint(row)
    return jax.lax.map(lambda point: remembered(params, point), points, batch_size=POINTS_AT_A_TIME)


def _residual(params: Any, args: Any, *, width: float) -> Any:
    points, centres = args
    return by_blocks(partial(_row, centres=centres, width=width), params, points)


def build(dtype: Any, *, dimension: int, count: int) -> Instance:
    """`count` points; the start is a wave of amplitude `4/√p` along a diagonal."""
    rng = np.random.default_rng(SEED)
    width, size = WIDTHS[dimension], CENTRES_A_POINT * count
    x = jnp.asarray(rng.uniform(size=(count, dimension)), dtype)
    where = rng.uniform(size=(dimension, size))
    centres = jnp.asarray(where, dtype)
    truth = jnp.asarray(rng.normal(size=size), dtype)

    @jax.jit
    def field(params: Any) -> Any:
        return by_blocks(lambda q, point: _field(q, point, centres, width), params, x)

    values = field(truth)
    points = (x, jnp.sin(values * (LARGEST / jnp.max(jnp.abs(values)))))
    start = jnp.asarray(4 / size**0.5 * np.sin(8 * where.sum(axis=0)), dtype)
    row = partial(_row, centres=centres, width=width)
    return Instance(partial(_residual, width=width), start, (points, centres), ((row,), points))


PROBLEMS = tuple(
    Problem(f"kernel-{dimension}d-{count}", partial(build, dimension=dimension, count=count))
    for dimension, count in ((2, 2048), (3, 2048), (2, 8192), (2, 16384))
)
