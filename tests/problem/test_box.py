"""Boxes: who is held at a bound, who would leave, and landing on bounds to the last bit."""

import jax.numpy as jnp
import numpy as np
import pytest

from gramlm._problem.box import Box, Face, Unbounded
from support.points import EPS, F32, F64

INF = np.inf
DTYPES = pytest.mark.parametrize("dtype", [F32, F64])


def array(x, dtype=F64):
    return jnp.asarray(np.asarray(x, dtype))


def box(lower, upper, dtype=F64):
    return Box(array(lower, dtype), array(upper, dtype))


def nowhere(p):
    """The face on which all are free."""
    return Face(jnp.ones(p, bool), jnp.zeros(p))


def test_without_bounds_everything_is_as_it_is():
    params, step = array([1.0, 1e16]), array([0.5, 1.0])
    place = Unbounded().land(params, step)
    np.testing.assert_array_equal(Unbounded().project(params), params)
    np.testing.assert_array_equal(place, [1.5, 1e16])
    np.testing.assert_array_equal(Unbounded().taken(params, step, place), step)
    assert not Unbounded().bounded
    assert box([0.0], [1.0]).bounded


def test_the_nearest_point_within():
    at = box([0.0, -INF, 2.0], [1.0, 3.0, 2.0])
    points = array([[-5.0, -5.0, -5.0], [0.25, 4.0, 5.0]])
    np.testing.assert_array_equal(at.project(points), [[0, -5, 2], [0.25, 3, 2]])
    np.testing.assert_array_equal(at.contains(array([0.0, 3.0, 2.0])), [True, True, True])
    np.testing.assert_array_equal(at.contains(array([-1e-300, 3.1, 1.9])), [False, False, False])


# At the lower bound, between, at the upper bound; the cost falls where the gradient is negative
# upwards.
WHO_IS_HELD = {
    "uphill": ([1.0, 1.0, 1.0], [True, False, False]),
    "downhill": ([-1.0, -1.0, -1.0], [False, False, True]),
    "level": ([0.0, 0.0, 0.0], [True, False, True]),
}


@pytest.mark.parametrize("name", WHO_IS_HELD)
def test_who_is_held_at_a_bound(name):
    gradient, held = WHO_IS_HELD[name]
    face = box([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]).face(array([0.0, 0.5, 1.0]), array(gradient))
    np.testing.assert_array_equal(face.free, ~np.asarray(held))
    np.testing.assert_array_equal(face.shift, np.zeros(3))


def test_who_has_one_value_is_held_and_who_has_no_bound_never():
    at = box([2.0, -INF, -INF], [2.0, INF, 1.0])
    for sign in (-1.0, 0.0, 1.0):
        face = at.face(array([2.0, 0.0, 0.5]), array([sign, sign, sign]))
        np.testing.assert_array_equal(face.free, [False, True, True])


def test_who_would_leave_is_put_onto_the_bound():
    at, params = box([0.0] * 4, [1.0] * 4), array([0.5, 0.5, 0.25, 0.0])
    step = array([0.75, -0.75, 0.75, -1.0])
    held_before = Face(jnp.asarray([True, True, True, False]), jnp.zeros(4))
    np.testing.assert_array_equal(at.beyond(held_before, params, step), [True, True, False, False])
    after = at.held(held_before, params, step)
    np.testing.assert_array_equal(after.free, [False, False, True, False])
    np.testing.assert_array_equal(after.shift, [0.5, -0.5, 0, 0])


def test_who_is_held_stays_where_it_was_put():
    """A second step does not move those that the first one has put onto their bound."""
    at, params = box([0.0, 0.0], [1.0, 1.0]), array([0.5, 0.5])
    once = at.held(nowhere(2), params, array([9.0, 0.0]))
    twice = at.held(once, params, array([-9.0, 9.0]))
    np.testing.assert_array_equal(twice.free, [False, False])
    np.testing.assert_array_equal(twice.shift, [0.5, 0.5])


@DTYPES
@pytest.mark.parametrize("side", [-1, 1])
def test_a_step_onto_a_bound_ends_there_to_the_last_bit(dtype, side, rng):
    """`θ + (bound − θ)` is an ulp away for many a number, and with it who is held."""
    drawn = rng.normal(size=(2, 2000)) * 10 ** rng.uniform(-3, 1, size=(2, 2000))
    low, high = np.sort(drawn, axis=0).astype(dtype)
    params, bound = (high, low) if side < 0 else (low, high)
    infinite = np.full(2000, INF)
    at = box(bound, infinite, dtype) if side < 0 else box(-infinite, bound, dtype)
    face = at.held(
        Face(jnp.ones(2000, bool), jnp.zeros(2000, dtype)),
        jnp.asarray(params),
        2 * jnp.asarray(bound - params),
    )
    assert not np.any(face.free)
    assert np.any(params + np.asarray(face.shift) != bound)  # or nothing is tested
    place = at.land(jnp.asarray(params), face.shift)
    np.testing.assert_array_equal(place, bound)
    held = at.face(place, jnp.full(2000, -side, dtype))
    assert not np.any(held.free)


@DTYPES
@pytest.mark.parametrize("units", [1, 2, 4])
def test_four_units_in_the_last_place_are_no_distance(dtype, units):
    away = units * EPS[dtype]
    # By the larger of the bound and the parameter: from 1 to the bound 0, from 4 to 1, from 1 to 4.
    for start, lower in [(1.0, 0.0), (4.0, 1.0), (-1.0, -4.0)]:
        at = box([lower], [INF], dtype)
        place = lower + away * max(abs(start), abs(lower))
        landed = at.land(array([start], dtype), array([place], dtype) - array([start], dtype))
        assert landed[0] == lower
    at = box([-INF], [1.0], dtype)
    assert at.land(array([0.5], dtype), array([0.5 - away], dtype))[0] == 1


@DTYPES
def test_more_than_four_units_are(dtype):
    five = 5 * EPS[dtype]
    at = box([0.0], [INF], dtype)
    step = array([five - 1], dtype)
    assert at.land(array([1.0], dtype), step)[0] == five
    at = box([-INF], [1.0], dtype)
    assert at.land(array([0.5], dtype), array([0.5 - five], dtype))[0] == 1 - five


def test_steps_beyond_a_bound_end_on_it_and_are_what_was_taken():
    at, params = box([0.0, -INF], [1.0, INF]), array([0.25, 0.25])
    places = at.land(params, array([[2.0, 2.0], [-2.0, -2.0]]))
    np.testing.assert_array_equal(places, [[1, 2.25], [0, -1.75]])
    np.testing.assert_array_equal(at.taken(params, array([2.0, 2.0]), places[0]), [0.75, 2])
