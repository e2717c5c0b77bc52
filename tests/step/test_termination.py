"""Each test of `Termination` holds up to its bound, fails above it, and is None without one."""

import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.points import EPS, F32, F64, either_side

Termination = gramlm.Termination
# 2⁻⁵² and 2⁻²³ to the powers of the defaults, to six digits.
FIVE_SIXTHS = {F64: 9.02333e-14, F32: 1.69925e-6}
FOUR_THIRDS = {F64: 1.34458e-21, F32: 5.86696e-10}
TWO_THIRDS = {F64: 3.66685e-11, F32: 2.42218e-5}
DTYPES = pytest.mark.parametrize("dtype", [F32, F64])


def number(x, dtype=F64):
    return jnp.asarray(x, dtype)


def around(bound, dtype):
    """Just below and above a bound that is known to six digits."""
    return number(bound * (1 - 1e-5), dtype), number(bound * (1 + 1e-5), dtype)


@DTYPES
def test_gradient(dtype):
    below, above = around(FIVE_SIXTHS[dtype], dtype)
    assert Termination().small_gradient(below)
    assert not Termination().small_gradient(above)
    at, above = either_side(0.25, dtype)
    assert Termination(gradient=0.25).small_gradient(at)
    assert not Termination(gradient=0.25).small_gradient(above)
    assert Termination(gradient=0).small_gradient(number(0, dtype))
    assert not Termination(gradient=0.25).small_gradient(number(jnp.nan, dtype))
    assert Termination(gradient=None).small_gradient(at) is None


@DTYPES
def test_absolute_cost(dtype):
    at, above = either_side(0.25, dtype)
    assert Termination(absolute_cost=0.25).small_cost(at)
    assert not Termination(absolute_cost=0.25).small_cost(above)
    assert Termination().small_cost(at) is None


@DTYPES
def test_a_cost_of_zero_may_be_an_underflow(dtype):
    zero, least = number(0, dtype), number(float(jnp.finfo(dtype).tiny), dtype)
    termination = Termination(absolute_cost=1.0)
    assert termination.small_cost(least)
    assert not termination.small_cost(zero)
    assert termination.vanishing(least, number(1, dtype), number(1, dtype))
    assert not termination.vanishing(zero, number(1, dtype), number(1, dtype))


@DTYPES
def test_step(dtype):
    below, above = around(FIVE_SIXTHS[dtype], dtype)
    assert Termination().short(below)
    assert not Termination().short(above)
    at, above = either_side(0.25, dtype)
    assert Termination(step=0.25).short(at)
    assert not Termination(step=0.25).short(above)
    assert not Termination().short(number(jnp.inf, dtype))
    assert Termination(step=None).short(at) is None


@DTYPES
def test_vanished_by_the_cost_itself(dtype):
    cost, above = either_side(EPS[dtype] ** 3, dtype)
    creeping_from = number(1, dtype)
    for initial_cost in (1.0, 100.0):
        started = number(initial_cost, dtype)
        assert Termination().vanishing(cost, started, creeping_from)
        assert not Termination().vanishing(above, started, creeping_from)
    # Of a start below 1, by that part.
    assert not Termination().vanishing(cost, number(0.25, dtype), creeping_from)
    assert Termination().vanishing(cost / 4, number(0.25, dtype), creeping_from)
    assert not Termination().vanishing(above / 4, number(0.25, dtype), creeping_from)


@DTYPES
def test_vanished_by_the_way_there(dtype):
    """The last factor ε² has to be won by creeping."""
    eps, one = EPS[dtype], number(1, dtype)
    at, above = either_side(eps**3, dtype)
    loose = Termination(vanished=0.5)
    assert loose.vanishing(at, one, number(eps, dtype))
    assert not loose.vanishing(above, one, number(eps, dtype))
    # Before the first step nothing is known of it.
    assert not loose.vanishing(at, one, number(jnp.inf, dtype))
    assert Termination(vanished=None).vanishing(at, one, one) is None


@DTYPES
def test_cost_takes_both_the_decrease_and_its_promise(dtype):
    none, half = number(0, dtype), Termination(cost=0.125)
    before, at = number(2, dtype), number(0.25, dtype)  # 0.125 · 2
    more = either_side(0.25, dtype)[1]
    less = number(np.nextafter(np.asarray(1.75, dtype), np.asarray(0, dtype)), dtype)
    assert half.little(before, before - at, at, none)
    assert not half.little(before, less, at, none)
    assert not half.little(before, before - at, more, none)
    # Of what is found, that much may be rounding; of what is promised not.
    rounding = number(0.5, dtype)
    assert half.little(before, number(1.5, dtype), at, rounding)
    assert not half.little(before, number(1.49, dtype), at, rounding)
    assert not half.little(before, before - at, more, rounding)
    # What rises by rounding is no decrease.
    assert half.little(before, before + at, at, none)
    assert Termination(cost=None).little(before, before, none, none) is None


@DTYPES
def test_cost_by_default(dtype):
    below, above = around(3 * FOUR_THIRDS[dtype], dtype)
    cost, none = number(3, dtype), number(0, dtype)
    assert Termination().little(cost, cost, below, none)
    assert not Termination().little(cost, cost, above, none)


@DTYPES
def test_stationary(dtype):
    """30·√cost, or 30·ε^⅓ where that is more."""
    below, above = around(30 * TWO_THIRDS[dtype] ** 0.5, dtype)
    for cost in (Termination().cost, None, 0.0, 1e-12):
        assert Termination(cost=cost).stationary(below)
        assert not Termination(cost=cost).stationary(above)
    below, above = around(0.3, dtype)  # 30·√1e-4
    assert Termination(cost=1e-4).stationary(below)
    assert not Termination(cost=1e-4).stationary(above)


@DTYPES
def test_negligible(dtype):
    """The `cost` tolerance, or rounding where that is more."""
    cost = number(4, dtype)
    loose = Termination(cost=0.125)
    assert loose.negligible(cost, number(0.25, dtype)) == 0.5
    assert loose.negligible(cost, number(0.75, dtype)) == 0.75
    assert Termination(cost=None).negligible(cost, number(0.25, dtype)) == 0.25
    by_default = Termination().negligible(cost, number(0, dtype))
    np.testing.assert_allclose(by_default, 4 * FOUR_THIRDS[dtype], rtol=1e-5)


@pytest.mark.parametrize("name", ["cost", "gradient", "step", "absolute_cost", "vanished"])
def test_what_no_tolerance_can_be_is_refused(name):
    for value in (-1e-3, float("nan")):
        with pytest.raises(ValueError, match=rf"`Termination\({name}=…\)` must not be negative"):
            Termination(**{name: value})
