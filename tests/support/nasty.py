"""Problems that are degenerate or badly scaled, and what every result of one has to be."""

import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import gramlm
from support.problems import F32, F64

SHAPES = [(3, 7), (5, 5), (12, 4), (1, 1), (1, 6), (9, 1)]
CASES = [(n, p, F64) for n, p in SHAPES] + [(n, p, F32) for n, p in ((3, 7), (12, 4))]
EXTREME = {F64: 150, F32: 15}
SEEDS = st.integers(0, 2**20)


def examples(count):
    suppressed = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=count, deadline=None, derandomize=True, suppress_health_check=suppressed
    )


def model(t, args):
    """`R(z + c sin z − y)` with `z = F C t`: rows scaled by R, columns by C; linear for c = 0."""
    features, rows, columns, target, curve = args
    z = features @ (columns * t)
    return rows * (z + curve * jnp.sin(z) - target)


STRUCTURES = ["full", "zero", "rank one", "zero row", "zero column", "duplicated"]


def structure(kind, n, p, rng):
    features = rng.normal(size=(n, p))
    if kind == "zero":
        features[:] = 0
    if kind == "rank one":
        features = np.outer(features[:, 0], features[0])
    if kind == "zero row":
        features[rng.integers(n)] = 0
    if kind == "zero column":
        features[:, rng.integers(p)] = 0
    return features


def problem(kind, scaling, n, p, exponent, dtype, seed, curve=0.0):
    """The arguments of `model`; every number is that of the dtype."""
    rng = np.random.default_rng(seed)
    features, target = structure(kind, n, p, rng), rng.normal(size=n)
    if kind == "duplicated":
        index = rng.integers(n, size=n)
        features, target = features[index], target[index]
    rows, columns, scale = np.ones(n), np.ones(p), 10.0**exponent
    if scaling in ("rows", "both"):
        rows *= scale
    if scaling == "columns":
        columns *= scale
    if scaling == "both":
        columns /= scale
    if scaling == "row":
        rows[rng.integers(n)] = scale
    if scaling == "column":
        columns[rng.integers(p)] = scale
    arrays = (features, rows, columns, target, np.asarray(curve))
    return tuple(jnp.asarray(x, dtype) for x in arrays), rng


def exactly(t, args):
    """r, J and the size of what is summed in r, in extended range and precision."""
    features, rows, columns, target, curve = (np.asarray(x, np.longdouble) for x in args)
    z = features @ (columns * np.asarray(t, np.longdouble))
    summed = np.abs(features) @ np.abs(columns * np.asarray(t, np.longdouble)) + np.abs(target) + 1
    slopes = rows * (1 + curve * np.cos(z))
    return rows * (z + curve * np.sin(z) - target), slopes[:, None] * features * columns, summed


def relative_gradient(r, jacobian):
    """The largest cosine of r and a column of J."""
    r = r / max(np.max(np.abs(r)), np.finfo(np.longdouble).tiny)
    lengths = np.max(np.abs(jacobian), axis=0)
    unit = jacobian[:, lengths > 0] / lengths[lengths > 0]
    sizes = np.sqrt(np.sum(unit**2, axis=0) * np.sum(r**2))
    return float(np.max(np.abs(unit.T @ r) / sizes, initial=0)) if np.any(r != 0) else 0.0


def false_success(solution, args):
    """Whether success is claimed above the rounding of r, where the gradient is not small."""
    if solution.result != gramlm.RESULTS.successful:
        return False
    r, jacobian, summed = exactly(solution.value, args)
    eps = float(jnp.finfo(args[0].dtype).eps)
    rounding = np.sum((eps * np.asarray(args[1], np.longdouble) * summed) ** 2)
    gradient = relative_gradient(r, jacobian)
    # Of a cost that may still fall by a part τ the gradient is about √τ; the tolerance is ε^⅔.
    return gradient > 30 * eps ** (1 / 3) and np.sum(r**2) > 100 * rounding


def check_sound(solution, start):
    """No NaN in what is given back, and a cost that has not risen."""
    assert np.all(np.isfinite(np.asarray(solution.value)))
    for name in ("cost", "initial_cost", "relative_gradient", "linear_residual"):
        assert not np.isnan(solution.stats[name]), name
    for name in ("cost", "damping", "gradient_norm"):
        assert not np.any(np.isnan(np.asarray(getattr(solution.history, name)))), name
    assert solution.stats["cost"] <= solution.stats["initial_cost"]
    if solution.stats["num_accepted"] == 0:
        np.testing.assert_array_equal(solution.value, start)
    assert 0 <= solution.stats["relative_gradient"] <= 1


def starts(columns, rng):
    """From zero, and from a point whose parameters are of their own size."""
    natural = jnp.asarray(rng.normal(size=columns.size), columns.dtype) / columns
    return jnp.zeros_like(columns), natural
