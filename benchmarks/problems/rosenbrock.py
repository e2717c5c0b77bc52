"""The modified Rosenbrock function of GSL's manual: a narrow curved valley in two parameters."""

from typing import Any

import jax.numpy as jnp

from ..harness.instance import Instance, Problem


def _residual(params: Any, args: Any) -> Any:
    del args
    x, y = params
    return jnp.stack([100.0 * (y - x**2), 1.0 - x])


def build(dtype: Any) -> Instance:
    """Start (−0.5, 1.75), where the cost is 1.1e4; the minimum (1, 1) has none."""
    return Instance(_residual, jnp.asarray([-0.5, 1.75], dtype), None)


PROBLEM = Problem("rosenbrock", build)
