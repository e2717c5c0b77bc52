"""A five-dimensional Poisson problem by a physics-informed tanh network.

`−Δu = π² Σ cos πxᵢ` in the unit cube, with the values of its solution `Σ cos πxᵢ` on the boundary.
Interior points are drawn uniformly, boundary points uniformly on faces drawn at random; each block
of residuals is divided by the root of its size. The metric is the relative L2 error at 4096 points
drawn uniformly. `poisson-5d` has a 5-64-64-48-48-1 network of 10 065 parameters, 3000 interior and
500 boundary points; `poisson-5d-small` is for two cores.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..harness.instance import Instance, Problem
from . import _network

DIMENSION = 5
TESTS = 4096
SEED = 0


def _solution(x: Any) -> Any:
    return jnp.sum(jnp.cos(np.pi * x), axis=-1)


def _interior(params: Any, x: Any, *, count: int) -> Any:
    return (_network.laplacian(params, x)[0] + np.pi**2 * _solution(x)) / count**0.5


def _boundary(params: Any, x: Any, *, count: int) -> Any:
    return (_network.value(params, x)[0] - _solution(x)) / count**0.5


def _residual(params: Any, args: Any) -> Any:
    blocks = [
        jax.vmap(partial(row, count=points.shape[0]), in_axes=(None, 0))(params, points)
        for row, points in zip((_interior, _boundary), args, strict=True)
    ]
    return jnp.concatenate(blocks)


def _faces(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points with one coordinate, drawn at random, set to 0 or 1."""
    points = rng.uniform(size=(count, DIMENSION))
    axis = rng.integers(DIMENSION, size=count)
    points[np.arange(count), axis] = rng.integers(2, size=count)
    return points


def build(dtype: Any, *, hidden: tuple[int, ...], interior: int, boundary: int) -> Instance:
    rng = np.random.default_rng(SEED)
    inside = jnp.asarray(rng.uniform(size=(interior, DIMENSION)), dtype)
    args = (inside, jnp.asarray(_faces(rng, boundary), dtype))
    tests = jnp.asarray(rng.uniform(size=(TESTS, DIMENSION)), dtype)

    @jax.jit
    def error(params: Any) -> Any:
        truth = _solution(tests)
        difference = _network.value(params, tests)[:, 0] - truth
        return jnp.linalg.norm(difference) / jnp.linalg.norm(truth)

    rows = (partial(_interior, count=interior), partial(_boundary, count=boundary))
    return Instance(
        _residual,
        _network.initial((DIMENSION, *hidden, 1), SEED, dtype),
        args,
        (rows, args),
        metric=lambda params: float(error(params)),
    )


PROBLEMS = (
    Problem("poisson-5d", partial(build, hidden=(64, 64, 48, 48), interior=3000, boundary=500)),
    Problem("poisson-5d-small", partial(build, hidden=(32, 32, 32), interior=600, boundary=150)),
)
