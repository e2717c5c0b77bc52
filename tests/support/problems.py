"""Small problems that several files of tests share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

import gramlm


class Linearised(NamedTuple):
    """A residual with its point, and its dense Jacobian by other means than the package's."""

    residual_fn: object
    params: jax.Array
    args: object
    jacobian: jax.Array


F32, F64 = jnp.float32, jnp.float64
SHAPES = {"wide": (5, 9), "square": (6, 6), "tall": (9, 5)}


POLICIES = {
    "keep": gramlm.Keep(),
    "recompute": gramlm.Recompute(),
    "blocks of 3": gramlm.RowBlocks(3),
}
START = jnp.asarray([-1.2, 1.0])


def rosenbrock(t, args=None):
    """Rosenbrock's valley, from `START` to (1, 1)."""
    return jnp.stack([10 * (t[1] - t[0] ** 2), 1 - t[0]])


def linear(params, args):
    """`J θ − y`, of one program for all J of a shape."""
    matrix, target = args
    return matrix @ params - target


def sine(params, args):
    """`sin(F θ) − y`: a smooth residual with a generic Jacobian."""
    features, target = args
    return jnp.sin(features @ params) - target


def sine_problem(n: int, p: int, dtype=jnp.float64, seed: int = 0) -> Linearised:
    """A generic nonlinear residual with n rows and p parameters."""
    rng = np.random.default_rng(seed)
    features = jnp.asarray(rng.normal(size=(n, p)) / np.sqrt(p), dtype)
    target = jnp.asarray(rng.normal(size=n), dtype)
    params = jnp.asarray(rng.normal(size=p), dtype)
    args = (features, target)
    return Linearised(sine, params, args, jax.jacfwd(sine)(params, args))


def definite(size: int, dtype=jnp.float64, seed: int = 1):
    """A well-conditioned dense positive definite operator that is not diagonal."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(size, size))
    matrix = jnp.asarray(np.eye(size) + a @ a.T / size, dtype)
    return lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)


def diagonal(size: int, dtype=jnp.float64):
    """A diagonal operator with entries between 0.5 and 2."""
    return lx.DiagonalLinearOperator(jnp.linspace(0.5, 2.0, size, dtype=dtype))


METRICS = {
    "identity": lambda size, dtype=jnp.float64: None,
    "diagonal": diagonal,
    "dense": definite,
}


def dense(operator, size: int):
    """The matrix of an operator, or of the identity for None."""
    return jnp.eye(size) if operator is None else operator.as_matrix()


def made_trial(**known):
    """A trial at λ = 1 of a unit step that halves a cost of 1, as predicted; all but what is known.

    Numbers take the dtype of `damping`.
    """
    dtype = jnp.asarray(known.get("damping", 1.0)).dtype
    fields = {
        "damping": 1.0,
        "length": 1.0,
        "gain_ratio": 1.0,
        "decrease": 0.5,
        "slope": -1.0,
        "params": [0.0, 0.0],
        "cost": 1.0,
        "params_after": [1.0, 0.0],
        "step": [1.0, 0.0],
        "cost_after": 0.5,
    }
    return gramlm.extend.Trial(
        **{name: jnp.asarray(x, dtype) for name, x in (fields | known).items()}
    )
