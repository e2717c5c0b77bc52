"""Networks and kernels on which the choices of gramlm are compared with one another.

Those of the other benchmarks, with rows declared, from their own start and from two that are
shaken: every leaf of the parameters plus normal numbers of a twentieth of its own size. Solved is a
cost of 1e-6 of that at the start, where a solve is also ended, so that Jacobians and evaluations
are those that it takes to get there.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ...problems import PROBLEMS

NAMES = ("rbf-network", "rbf-network-wide", "sinc", "poisson", "interpolation")
STARTS = ("given", "shaken", "shaken again")
FALL = 1e-6


@dataclass(frozen=True)
class Network:
    """A residual of flat parameters, and what gramlm is given instead: rows, data, a pytree."""

    plain: Any
    rows: Any
    data: Any
    unravel: Any
    target: float

    def __call__(self, theta: Any) -> Any:
        return self.plain(self.unravel(theta))

    def solved(self, cost: float, relative: float, absolute: float) -> bool:
        """Whether this cost will do; the tolerances are those of other problems."""
        del relative, absolute
        return cost <= self.target


def _shaken(leaf: Any, rng: np.random.Generator) -> Any:
    size = jnp.sqrt(jnp.mean(leaf**2))
    return leaf + 0.05 * size * jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)


def network(name: str) -> tuple[Network, dict[str, np.ndarray]]:
    """The residual, and its flat starts by label."""
    import gramlm

    instance = PROBLEMS[name].build(jnp.float64)
    if instance.rows is None:
        raise ValueError(f"{name} has no rows")
    functions, data = instance.rows
    flat, unravel = ravel_pytree(instance.params)
    starts = {STARTS[0]: np.asarray(flat)}
    for seed, label in enumerate(STARTS[1:]):
        shake = partial(_shaken, rng=np.random.default_rng(seed))
        starts[label] = np.asarray(ravel_pytree(jax.tree.map(shake, instance.params))[0])
    plain = partial(instance.residual_fn, args=instance.args)
    r = np.asarray(plain(instance.params))
    return Network(plain, gramlm.Rows(*functions), data, unravel, FALL * 0.5 * float(r @ r)), starts
