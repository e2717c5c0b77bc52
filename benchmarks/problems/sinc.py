"""`y = sinc(10x)` on [−1, 1] by a 1-20-1 tanh network: 2000 points, 61 parameters.

`sinc(t) = sin(πt)/(πt)`, as in NumPy: ten lobes a side. With `sin(10x)/(10x)`, which has three, the
problem is easy: most peers reach a relative cost of 1e-6 within 250 Jacobians.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..harness.instance import Instance, Problem
from . import _network

POINTS = 2000
SEED = 0


def _residual(params: Any, args: Any) -> Any:
    x, y = args
    return _network.value(params, x[:, None])[:, 0] - y


def _row(params: Any, point: Any) -> Any:
    x, y = point
    return _network.value(params, x[None])[0] - y


def build(dtype: Any) -> Instance:
    """Equally spaced points."""
    x = np.linspace(-1.0, 1.0, POINTS)
    args = (jnp.asarray(x, dtype), jnp.asarray(np.sinc(10 * x), dtype))
    return Instance(_residual, _network.initial((1, 20, 1), SEED, dtype), args, ((_row,), args))


PROBLEM = Problem("sinc", build)
