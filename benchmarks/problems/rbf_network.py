"""A trainable Gaussian RBF network in two dimensions: 512 points, 512 centres, 2048 parameters.

Everything moves: centres (512, 2), the logarithm of a width per centre (so that a width stays
positive without bounds) and a weight per centre. The data are noiseless values, at points drawn
uniformly in the unit square, of Franke's function plus an oscillation of about two periods along
a diagonal and one across: smooth, and with structure finer than the first widths. The network
starts with centres drawn uniformly, small random weights, and all widths a third of the mean
distance of the centres, so that its bumps hardly overlap, miss most of the points, and have to
move and to grow. This start was chosen among several widths as one that tells solvers apart. The
easy one stands beside it: at width 0.1 the bumps overlap from the start, and the problem is close
to a linear one.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._instance import Instance, Problem

POINTS = 512
CENTRES = 512
WIDTH = 1 / (3 * CENTRES**0.5)
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


def build(dtype: Any, *, width: float = WIDTH) -> Instance:
    rng = np.random.default_rng(SEED)
    points = rng.uniform(size=(POINTS, 2))
    params = {
        "centres": rng.uniform(size=(CENTRES, 2)),
        "widths": np.full(CENTRES, np.log(width)),
        "weights": 0.1 * rng.normal(size=CENTRES),
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    args = (jnp.asarray(points, dtype), jnp.asarray(target(points), dtype))
    return Instance(_residual, params, args, ((_row,), args))


PROBLEMS = (
    Problem("rbf-network", build),
    Problem("rbf-network-wide", partial(build, width=0.1)),
)
