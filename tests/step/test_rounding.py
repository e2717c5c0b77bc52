"""The model of rounding: 16ε of a cost, 8ν of the parameters, at most √ε, and 10ν of a gradient."""

import jax.numpy as jnp
import numpy as np
import pytest

from gramlm._step.rounding import Rounding
from support.points import EPS, F32, F64, either_side

DTYPES = [F32, F64]


def rounding(cost, moved, dtype, accuracy=0.0):
    return Rounding(jnp.asarray(cost, dtype), jnp.asarray(moved, dtype), accuracy)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_of_the_cost(dtype):
    at = rounding(3.0, 0.0, dtype)
    assert at.eps == EPS[dtype]
    assert at.of_cost == 48 * EPS[dtype]
    assert at.of_promise == 384 * EPS[dtype]  # 8 · 16ε
    assert at.of_cost.dtype == at.of_promise.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cost", [1.0, 0.25])
def test_a_decrease_hides_in_16_eps_where_no_parameter_matters(dtype, cost):
    at = rounding(cost, 0.0, dtype)
    largest, more = either_side(16 * EPS[dtype] * cost, dtype)
    assert at.hides(largest)
    assert at.hides(-largest)
    assert not at.hides(more)
    assert not at.hides(-more)
    assert at.hides(jnp.zeros((), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decrease_hides_in_8_nu_more(dtype):
    # ν = 8ε: 16ε + 64ε = 80ε of the cost 4.
    at = rounding(4.0, 8 * EPS[dtype], dtype)
    largest, more = either_side(320 * EPS[dtype], dtype)
    assert at.hides(largest)
    assert not at.hides(more)


@pytest.mark.parametrize("moved", [2.0**-8, 1.0, np.inf])
def test_no_more_than_the_root_of_eps_hides(moved):
    # √ε = 2⁻²⁶ in float64; 8ν is more.
    at = rounding(2.0, moved, F64)
    largest, more = either_side(2.0**-25, F64)
    assert at.hides(largest)
    assert not at.hides(more)
    # In float32 it is 2⁻¹¹·⁵ = 3.4527e-4.
    at = rounding(1.0, moved, F32)
    assert at.hides(jnp.asarray(3.452e-4, F32))
    assert not at.hides(jnp.asarray(3.453e-4, F32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ten_times_nu_is_rounding_of_a_gradient(dtype):
    at = rounding(1.0, 0.0625, dtype, accuracy=0.5)
    assert at.of_gradient == 0.625
    assert at.accuracy == 0.5
    assert not at.drowns
    assert rounding(1.0, 0.125, dtype).drowns
    assert rounding(1.0, 0.1, F64).drowns  # 10 · 0.1 is 1 to the last bit


def test_a_cost_that_is_not_finite_hides_nothing_finite_by_mistake():
    assert not rounding(jnp.nan, 0.0, F64).hides(jnp.asarray(0.0))
    assert not rounding(1.0, 0.0, F64).hides(jnp.asarray(jnp.nan))
    assert not rounding(1.0, 0.0, F64).hides(jnp.asarray(-jnp.inf))
