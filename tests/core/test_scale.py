"""Residuals are scaled by powers of two, and only where their squares leave the range."""

import jax.numpy as jnp
import numpy as np
import pytest

from gramlm._core.scale import largest_entry, next_scale, residual_scale

# The fourth root of the largest number: 2¹⁰²⁴ and 2¹²⁸.
LIMITS = [(jnp.float32, 32), (jnp.float64, 256)]


def size(x, dtype):
    return jnp.asarray(np.asarray(x, dtype))


@pytest.mark.parametrize(("dtype", "limit"), LIMITS)
def test_ordinary_sizes_are_left_alone(dtype, limit):
    for x in (2.0**-limit, 1.0, 3.0, 2.0**limit):
        assert residual_scale(size(x, dtype)) == 1
    assert residual_scale(size(1, dtype)).dtype == dtype


@pytest.mark.parametrize(("dtype", "limit"), LIMITS)
def test_others_go_by_the_power_of_two_next_below(dtype, limit):
    above = np.nextafter(dtype(2.0**limit), dtype(np.inf))
    below = np.nextafter(dtype(2.0**-limit), dtype(0))
    for x, exponent in [
        (above, limit),
        (3 * 2.0**limit, limit + 1),
        (4 * 2.0**limit, limit + 2),
        (below, -limit - 1),
        (2.0 ** (-limit - 1), -limit - 1),
        (1.5 * 2.0 ** (-limit - 9), -limit - 9),
    ]:
        assert residual_scale(size(x, dtype)) == 2.0**exponent, x


@pytest.mark.parametrize("x", [0.0, np.inf, np.nan])
def test_what_has_no_size_is_not_scaled(x):
    assert residual_scale(size(x, np.float64)) == 1
    assert next_scale(size(x, np.float64), size(8, np.float64)) == 8


@pytest.mark.parametrize(
    ("x", "scale", "expected"),
    [
        # Ordinary beside the scale: it stays.
        (1.0, 300, 300),
        (2.0**256, 300, 300),
        (2.0**-256, -300, -300),
        # Grown beyond the range: by what they are now, 1 if that is ordinary.
        (2.0**300, 0, 300),
        (2.0**300, 10, 310),
        (3 * 2.0**300, 10, 311),
        (2.0**300, -400, 0),
        (2.0**300, -600, -300),
        # Fallen: never scaled up beyond 1, or beyond what they were given as.
        (2.0**-300, 0, 0),
        (2.0**-300, -400, -400),
        # Fallen from a large scale: by what they are now.
        (2.0**-300, 400, 0),
        (2.0**-300, 600, 300),
        (2.0**-300, 200, 0),
    ],
)
def test_the_scale_after_a_step(x, scale, expected):
    found = next_scale(size(x, np.float64), size(2.0**scale, np.float64))
    assert np.log2(found) == expected


def test_the_largest_entry_counts_either_sign_and_shows_what_is_not_finite():
    assert largest_entry(jnp.asarray([1.0, -3.0, 2.0])) == 3
    assert largest_entry(jnp.asarray([1.0, -jnp.inf])) == jnp.inf
    assert jnp.isnan(largest_entry(jnp.asarray([jnp.nan, 9.0])))
