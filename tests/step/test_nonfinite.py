"""Residuals that are not finite somewhere."""

import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.nasty import F32, F64

RESULTS = gramlm.RESULTS


def logarithm(t, args):
    """NaN for t ≤ 0, where the first long step lands."""
    return jnp.log(t) - args


def root(t, args):
    """NaN below 0 and infinite above 40: a part of the residuals at a time."""
    safe = jnp.where(t > 40, jnp.inf, jnp.sqrt(t))
    return jnp.concatenate([safe - args, jnp.where(t < 0.05, jnp.nan, 1 / t - 1 / args**2)])


def overflowing(t, args):
    """Infinite from t = 710 on in float64, from 89 on in float32."""
    return jnp.exp(t) - args


FINITE_AT = {
    "logarithm": (logarithm, [20.0, 1e-3, 3.0], [0.0, 0.5, -1.0], lambda a: np.exp(a)),
    "root": (root, [30.0, 0.06, 9.0], [1.0, 1.5, 0.7], lambda a: a**2),
    "overflowing": (overflowing, [-9.0, 2.0, -4.0], [1.0, 3.0, 0.5], lambda a: np.log(a)),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, F64) for name in FINITE_AT), ("overflowing", F32)]
)
def test_the_damping_recovers_from_trials_that_are_not_finite(name, dtype):
    residual, start, target, minimiser = FINITE_AT[name]
    start, target = jnp.asarray(start, dtype), jnp.asarray(target, dtype)
    solution = gramlm.solve(residual, start, target, max_steps=300)
    tolerance = 1e-6 if dtype == F64 else 1e-3
    np.testing.assert_allclose(
        solution.value, minimiser(np.asarray(target, float)), rtol=tolerance, atol=tolerance
    )
    # More trials than steps: some were rejected. (Two evaluations a trial at the most.)
    assert solution.stats["num_evaluations"] > solution.stats["num_accepted"]
    costs = np.asarray(solution.history.cost)
    assert np.all(np.isfinite(costs))
    assert np.all(np.diff(costs) <= 0)


def walled(t, args):
    """The minimum, at 2, lies behind a wall at 1 where a chunk of the residuals is `args`."""
    chunk = jnp.where(t[0] < 1, 1.0, args)
    return jnp.concatenate([t - 2, chunk * (t[:1] - 2) * jnp.ones(7), 0.1 * t])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_wall_before_the_minimum_ends_with_the_best_point_found(bad):
    solution = gramlm.solve(walled, jnp.zeros(2), jnp.asarray(bad), throw=False, max_steps=200)
    value = np.asarray(solution.value)
    assert np.all(np.isfinite(value))
    cost = 0.5 * np.sum(np.asarray(walled(solution.value, jnp.asarray(bad))) ** 2)
    np.testing.assert_allclose(solution.stats["cost"], cost, rtol=1e-12)
    assert cost < 0.5 * float(solution.stats["initial_cost"])
    assert value[0] < 1
    assert solution.result != RESULTS.successful
    assert np.all(np.isfinite(np.asarray(solution.history.cost)))


def island(t, args):
    """One residual is `bad` beside the start, or there as well."""
    bad, start, finite_at_start = args
    here = finite_at_start & jnp.all(t == start)
    return (t + 3) * jnp.where(here, jnp.ones(3), jnp.stack([jnp.ones(()), bad, jnp.ones(())]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_region_that_is_never_finite_ends_in_a_result(bad, everywhere):
    start = jnp.asarray([1.0, -2.0, 0.0])
    args = (jnp.asarray(bad), start, jnp.asarray(not everywhere))
    solution = gramlm.solve(island, start, args, throw=False)
    np.testing.assert_array_equal(solution.value, start)
    expected = RESULTS.nonfinite_start if everywhere else RESULTS.nonfinite_trials
    assert solution.result == expected
    assert np.isfinite(solution.stats["cost"]) != everywhere
