"""Interpolation through a sine of a Gaussian expansion: 1024 samples, 8192 parameters.

The residual is `sin(F θ) − y` with `y = sin(F θ*)` and `F[i, j] = exp(−(xᵢ−cⱼ)²/(2w²))/√p`. With
`θ* = cos(linspace(0, 12, p))` the argument of the sine leaves its monotone branch and nobody
converges, so that variant measures the time of a step only. With `0.15 cos(…)` it stays there.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..harness.instance import Instance, Problem

SAMPLES = 1024
CENTRES = 8192
WIDTH = 0.08


def features(x: Any, dtype: Any) -> Any:
    """The row of F that belongs to the sample x, shape (p,); a matrix for x of shape (n, 1)."""
    centres = jnp.asarray(np.linspace(-1.2, 1.2, CENTRES), dtype)
    return jnp.exp(-0.5 * ((x - centres) / WIDTH) ** 2) / CENTRES**0.5


def _residual(params: Any, args: Any) -> Any:
    matrix, y = args
    return jnp.sin(matrix @ params) - y


def _row(params: Any, point: Any) -> Any:
    """One residual from its stored row of F."""
    row, y = point
    return jnp.sin(jnp.dot(row, params)) - y


def _row_from_x(params: Any, point: Any, *, dtype: Any) -> Any:
    """One residual from its sample: the row of F is made on the way."""
    x, y = point
    return jnp.sin(jnp.dot(features(x, dtype), params)) - y


def build(dtype: Any, *, amplitude: float, stored: bool = True) -> Instance:
    """The instance for `θ* = amplitude · cos(linspace(0, 12, p))`.

    `stored` decides what a data point is in the row form: a row of F, or the sample x.
    """
    x = jnp.asarray(np.linspace(-1.0, 1.0, SAMPLES), dtype)
    matrix = jax.jit(features, static_argnums=1)(x[:, None], dtype)
    truth = jnp.asarray(amplitude * np.cos(np.linspace(0.0, 12.0, CENTRES)), dtype)
    y = jnp.sin(matrix @ truth)
    start = jnp.asarray(0.05 * np.sin(np.linspace(0.0, 8.0, CENTRES)), dtype)
    row = _row if stored else partial(_row_from_x, dtype=dtype)
    data = (matrix, y) if stored else (x, y)
    return Instance(_residual, start, (matrix, y), ((row,), data))


PROBLEMS = (
    Problem("interpolation-folded", partial(build, amplitude=1.0)),
    Problem("interpolation", partial(build, amplitude=0.15)),
    Problem("interpolation-from-x", partial(build, amplitude=0.15, stored=False)),
)
