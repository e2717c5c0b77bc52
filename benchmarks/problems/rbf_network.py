"""A trainable Gaussian RBF network in two dimensions: 512 points, 512 centres, 2048 parameters.

Everything moves: centres (512, 2), the logarithm of a width per centre (so that a width stays
positive without bounds) and a weight per centre. The data are noiseless values, at points drawn
uniformly in the unit square, of Franke's function plus an oscillation of about two periods along
a diagonal and one across: smooth, and with structure finer than the first widths. The network
starts with centres drawn uniformly, small random weights, and all widths a third of the mean
distance of the centres, so that its bumps hardly overlap, miss most of the points, and have to
move and to grow. This start was chosen among several widths as one that tells solvers apart. The
easy one stands beside it: at width 0.1 the bumps overlap from the start, and the problem is close
to a linear one. The large ones, of 4096 and 8192 points and as many centres, start as easily; their
plain residual goes by blocks of points and stores no kernel.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..harness.instance import Instance, Problem
from .kernel import by_blocks, squared_distances

COUNT = 512  # of points, and of centres
WIDTH = 1 / (3 * COUNT**0.5)
SEED = 0


def target(points: np.ndarray) -> np.ndarray:
    """Franke's function and an oscillation, values about −0.3 to 1.5."""
    x, y = points[:, 0], points[:, 1]
    franke = (
        0.75 * np.exp(-((9 * x - 2) ** 2 + (9 * y - 2) ** 2) / 4)
        + 0.75 * np.exp(-((9 * x + 1) ** 2) / 49 - (9 * y + 1) / 10)
        + 0.5 * np.exp(-((9 * x - 7) ** 2 + (9 * y - 3) ** 2) / 4)
        - 0.2 * np.exp(-((9 * x - 4) ** 2) - (9 * y - 7) ** 2)
    )
    return franke + 0.3 * np.sin(9.0 * (x + y)) * np.cos(6.0 * (x - y))


def _row(params: Any, point: Any) -> Any:
    """The error at one point."""
    x, y = point
    squares = jnp.sum((x - params["centres"]) ** 2, axis=-1)
    return jnp.dot(params["weights"], jnp.exp(-0.5 * squares * jnp.exp(-2 * params["widths"]))) - y


def _residual(params: Any, args: Any) -> Any:
    return jax.vmap(_row, in_axes=(None, 0))(params, args)


def _large_row(params: Any, point: Any) -> Any:
    """The same, coordinate by coordinate: by blocks of points it is faster."""
    x, y = point
    squares = squared_distances(x, params["centres"].T)
    return jnp.dot(params["weights"], jnp.exp(-0.5 * squares * jnp.exp(-2 * params["widths"]))) - y


def _large_residual(params: Any, args: Any) -> Any:
    return by_blocks(_large_row, params, args)


def build(dtype: Any, *, count: int = COUNT, width: float = WIDTH, large: bool = False) -> Instance:
    rng = np.random.default_rng(SEED)
    points = rng.uniform(size=(count, 2))
    params = {
        "centres": rng.uniform(size=(count, 2)),
        "widths": np.full(count, np.log(width)),
        "weights": 0.1 * rng.normal(size=count),
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    args = (jnp.asarray(points, dtype), jnp.asarray(target(points), dtype))
    residual, row = (_large_residual, _large_row) if large else (_residual, _row)
    return Instance(residual, params, args, ((row,), args))


PROBLEMS = (
    Problem("rbf-network", build),
    Problem("rbf-network-wide", partial(build, width=0.1)),
    Problem("rbf-network-4096", partial(build, count=4096, width=0.05, large=True)),
    Problem("rbf-network-8192", partial(build, count=8192, width=0.05, large=True)),
)
