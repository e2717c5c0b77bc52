"""The small fit `a·exp(bx)` to 20 points: what a solver costs when the algebra costs nothing."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..harness.instance import Instance, Problem


def model(params: Any, x: Any) -> Any:
    return params[0] * jnp.exp(params[1] * x)


def _residual(params: Any, args: Any) -> Any:
    x, y = args
    return model(params, x) - y


def _row(params: Any, point: Any) -> Any:
    x, y = point
    return model(params, x) - y


def build(dtype: Any) -> Instance:
    """Exact data from a = 2.5, b = −1.3 on [0, 2]; start (1, 0)."""
    x = np.linspace(0.0, 2.0, 20)
    args = (jnp.asarray(x, dtype), jnp.asarray(2.5 * np.exp(-1.3 * x), dtype))
    return Instance(_residual, jnp.asarray([1.0, 0.0], dtype), args, ((_row,), args))


PROBLEM = Problem("exponential", build)
