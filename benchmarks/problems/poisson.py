"""A two-dimensional Poisson problem by a physics-informed 2-32-32-1 tanh network.

`Δu = −2π² sin πx sin πy` in the unit square, `u = 0` on its boundary, whose solution is
`sin πx sin πy`. The 900 interior points are drawn uniformly, the 120 boundary points are equally
spaced, 30 a side; each block of residuals is divided by the root of its size. The metric is the
relative L2 error on a 101 × 101 grid (half of it is the absolute one, as the solution has norm ½).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..harness.instance import Instance, Problem
from . import _network

INTERIOR = 900
BOUNDARY = 120
SEED = 0


def _solution(x: Any) -> Any:
    return jnp.prod(jnp.sin(np.pi * x), axis=-1)


def _u(params: Any, x: Any) -> Any:
    return _network.value(params, x)[0]


def _laplacian(params: Any, x: Any) -> Any:
    """Forward over forward, one pair of nested jvps a direction: no Hessian is formed."""

    def second(direction: Any) -> Any:
        def first(z: Any) -> Any:
            return jax.jvp(lambda s: _u(params, s), (z,), (direction,))[1]

        return jax.jvp(first, (x,), (direction,))[1]

    return jnp.sum(jax.vmap(second)(jnp.eye(2, dtype=x.dtype)))


def _interior(params: Any, x: Any) -> Any:
    return (_laplacian(params, x) + 2 * np.pi**2 * _solution(x)) / INTERIOR**0.5


def _boundary(params: Any, x: Any) -> Any:
    return _u(params, x) / BOUNDARY**0.5


def _residual(params: Any, args: Any) -> Any:
    interior, boundary = args
    return jnp.concatenate(
        [
            jax.vmap(_interior, in_axes=(None, 0))(params, interior),
            jax.vmap(_boundary, in_axes=(None, 0))(params, boundary),
        ]
    )


def _sides() -> np.ndarray:
    """Thirty points a side, shape (120, 2), corners counted once."""
    s = np.arange(BOUNDARY // 4) / (BOUNDARY // 4)
    zero, one = np.zeros_like(s), np.ones_like(s)
    sides = [(s, zero), (one, s), (1 - s, one), (zero, 1 - s)]
    return np.concatenate([np.stack(side, axis=1) for side in sides])


def build(dtype: Any) -> Instance:
    rng = np.random.default_rng(SEED)
    interior = jnp.asarray(rng.uniform(size=(INTERIOR, 2)), dtype)
    args = (interior, jnp.asarray(_sides(), dtype))
    axis = np.linspace(0.0, 1.0, 101)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2), dtype)

    @jax.jit
    def error(params: Any) -> Any:
        truth = _solution(grid)
        difference = _network.value(params, grid)[:, 0] - truth
        return jnp.linalg.norm(difference) / jnp.linalg.norm(truth)

    return Instance(
        _residual,
        _network.initial((2, 32, 32, 1), SEED, dtype),
        args,
        ((_interior, _boundary), args),
        metric=lambda params: float(error(params)),
    )


PROBLEM = Problem("poisson", build)
