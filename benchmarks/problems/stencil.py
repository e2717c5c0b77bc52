"""Interpolation by compactly supported functions on a grid: nothing dense fits.

10⁵ points drawn uniformly in the unit square, and 448 × 448 parameters, the weights of functions
`φ(s/4)` at the nodes of a grid that covers the square and four nodes around it, with s the
distance in units of the spacing and `φ(r) = (1 − r)⁴ (4r + 1)` for r < 1 (Wendland 1995). So a
point sees 8 × 8 nodes. J would be 80 GB in float32 and its Gram matrix 40 GB, while a product took
10 to 30 ms on two cores. As in the kernel problems the residual is `sin(Φ θ) − y`, `y = sin(Φ θ*)`
for normally distributed θ*, and the largest `|Φ θ*|` is 1.2.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..harness.instance import Instance, Problem

POINTS = 100_000
GRID = 448
REACH = 4
SPACING = 1.0 / (GRID - 2 * REACH)
POINTS_AT_A_TIME = 4096
LARGEST = 1.2
SEED = 0


def _field(params: Any, x: Any) -> Any:
    """The expansion at one point; the node `(i + REACH − 1)` is the last one before `i·SPACING`."""
    cell = jnp.clip(jnp.floor(x / SPACING), 0, GRID - 2 * REACH)
    nodes = jnp.arange(1 - REACH, REACH + 1, dtype=x.dtype)
    offset = (x / SPACING - cell)[:, None] - nodes
    r = jnp.sqrt(offset[0][:, None] ** 2 + offset[1][None, :] ** 2) / REACH
    weights = jnp.where(r < 1, (1 - r) ** 4 * (4 * r + 1), 0)
    corner = cell.astype(jnp.int32)
    seen = jax.lax.dynamic_slice(params, (corner[0], corner[1]), (2 * REACH, 2 * REACH))
    return jnp.sum(weights * seen)


def _row(params: Any, point: Any) -> Any:
    x, y = point
    return jnp.sin(_field(params, x)) - y


def _residual(params: Any, args: Any) -> Any:
    row = jax.checkpoint(_row)
    return jax.lax.map(lambda point: row(params, point), args, batch_size=POINTS_AT_A_TIME)


def build(dtype: Any) -> Instance:
    """The start is a smooth wave of amplitude 0.01."""
    rng = np.random.default_rng(SEED)
    x = jnp.asarray(rng.uniform(size=(POINTS, 2)), dtype)
    truth = jnp.asarray(rng.normal(size=(GRID, GRID)), dtype)
    values = jax.jit(jax.vmap(_field, in_axes=(None, 0)))(truth, x)
    y = jnp.sin(values * (LARGEST / jnp.max(jnp.abs(values))))
    axis = np.linspace(0.0, 1.0, GRID)
    start = jnp.asarray(0.01 * np.sin(8 * (axis[:, None] + axis[None, :])), dtype)
    return Instance(_residual, start, (x, y), ((_row,), (x, y)))


PROBLEM = Problem("kernel-huge", build)
