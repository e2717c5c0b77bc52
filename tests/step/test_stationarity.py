"""Cosines between r and the columns of J, what no longer counts, and what rounding does."""

import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._model.factored import FactoredLinearisation
from gramlm._problem.row_factor import Unweighted
from gramlm._step.stationarity import ColumnStationarity, MeanStationarity, stationarity_at
from support.points import EPS, F32, F64, either_side, stored

# ‖r‖ = 3, columns of the lengths 5 and 2, Jᵀr = (11, 4): the cosines are 11/15 and 4/6.
RESIDUAL = np.array([1.0, 2.0, 2.0])
JACOBIAN = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]])
GRADIENT = np.array([11.0, 4.0])
DTYPES = pytest.mark.parametrize("dtype", [F32, F64])


def by_columns(
    params=(1.0, 1.0),
    residual=RESIDUAL,
    jacobian=JACOBIAN,
    gradient=GRADIENT,
    history=(0.0, 0.0),
    dtype=F64,
):
    vectors = [jnp.asarray(x, dtype) for x in (params, gradient, history)]
    at = stored(residual, jacobian, dtype)
    return ColumnStationarity.of(at.residual, at.stored, *vectors)


@DTYPES
def test_the_largest_cosine(dtype):
    at = by_columns(dtype=dtype)
    np.testing.assert_allclose(at.relative_gradient, 11 / 15, rtol=4 * EPS[dtype])
    assert at.significant_gradient == at.relative_gradient
    flipped = by_columns(jacobian=JACOBIAN[:, ::-1], gradient=-GRADIENT[::-1], dtype=dtype)
    assert flipped.relative_gradient == at.relative_gradient


@pytest.mark.parametrize("factors", [(2.0**300, 2.0**-300), (2.0**-300, 1.0)])
def test_units_of_parameters_do_not_matter(factors):
    factors = np.asarray(factors)
    at = by_columns(jacobian=JACOBIAN * factors, gradient=GRADIENT * factors)
    np.testing.assert_allclose(at.relative_gradient, 11 / 15, rtol=1e-15)


def test_no_cosine_exceeds_one():
    assert by_columns(gradient=(15.1, 0.0)).relative_gradient == 1


def test_a_column_of_zeros_is_orthogonal():
    jacobian = JACOBIAN * np.array([0.0, 1.0])
    at = by_columns(jacobian=jacobian, gradient=(0.0, 4.0))
    np.testing.assert_allclose(at.relative_gradient, 2 / 3, rtol=1e-15)


def test_a_residual_of_zero_is_orthogonal_to_all():
    at = by_columns(residual=np.zeros(3), gradient=(0.0, 0.0))
    assert at.relative_gradient == 0
    assert at.significant_gradient == 0


def test_where_squares_underflow_a_gradient_that_is_not_zero_says_nothing():
    tiny = by_columns(residual=1e-200 * RESIDUAL, gradient=1e-200 * GRADIENT)
    assert tiny.relative_gradient == 1
    # The second parameter alone has a gradient of zero.
    assert by_columns(residual=1e-200 * RESIDUAL, gradient=(0.0, 0.0)).relative_gradient == 0


def test_the_longest_columns_are_remembered():
    np.testing.assert_array_equal(by_columns(history=(4.0, 7.0)).longest, [5, 7])
    for x in (np.inf, np.nan):
        broken = np.where([True, False], x, JACOBIAN)
        np.testing.assert_array_equal(
            by_columns(jacobian=broken, history=(4.0, 1.0)).longest, [4, 2]
        )


@pytest.mark.parametrize(
    ("length_before", "param", "counts"),
    [
        # √ε = 2⁻²⁶: the column 5 has died if it was 5·2²⁶. Moving θ₁ by itself moves r by
        # 5|θ₁|, and that is lost if it is at most ε‖r‖ = 3ε.
        (5 * 2.0**26, 0.59 * EPS[F64], False),
        (5 * 2.0**26, -0.59 * EPS[F64], False),
        (5 * 2.0**26, 0.0, False),
        (5 * 2.0**26, 0.61 * EPS[F64], True),
        (4.99 * 2.0**26, 0.59 * EPS[F64], True),
        (0.0, 0.0, True),
    ],
)
def test_a_column_that_has_died_does_not_count(length_before, param, counts):
    at = by_columns(params=(param, 1.0), history=(length_before, 0.0))
    np.testing.assert_allclose(at.significant_gradient, 11 / 15 if counts else 2 / 3, rtol=1e-15)
    np.testing.assert_allclose(at.relative_gradient, 11 / 15, rtol=1e-15)


@DTYPES
def test_what_rounding_the_parameters_moves(dtype):
    # ε·‖(5·1, 2·6)‖/3.
    at = by_columns(params=(1.0, -6.0), dtype=dtype).rounding(jnp.asarray(4.5, dtype))
    np.testing.assert_allclose(at.moved, 13 / 3 * EPS[dtype], rtol=4 * EPS[dtype])
    np.testing.assert_allclose(at.accuracy, 10 * EPS[dtype] ** 0.5, rtol=1e-12)
    assert at.cost == 4.5


def test_nothing_is_moved_where_the_residual_is_zero():
    at = by_columns(residual=np.zeros(3), gradient=(0.0, 0.0))
    assert at.rounding(jnp.asarray(0.0)).moved == 0


@DTYPES
def test_a_negligible_step_by_what_it_is_to_r(dtype):
    # max |ℓ θ| = max(5·1, 2·5) = 10, so that 10ε is the limit of |ℓ δ|.
    at = by_columns(params=(1.0, -5.0), dtype=dtype)
    for j, limit in [(0, 2 * EPS[dtype]), (1, 5 * EPS[dtype])]:
        enough, more = (x * jnp.eye(2, dtype=dtype)[j] for x in either_side(limit, dtype))
        assert at.negligible(enough)
        assert at.negligible(-enough)
        assert not at.negligible(more)


def not_stored(residual=RESIDUAL, jacobian=JACOBIAN):
    return FactoredLinearisation(stored(residual, jacobian), jnp.asarray(residual), Unweighted())


def by_means(gradient_norm, largest, params=(1.0, 1.0), residual=RESIDUAL, jacobian=JACOBIAN):
    return MeanStationarity(
        at=not_stored(residual, jacobian),
        params=jnp.asarray(params),
        gradient_norm=jnp.asarray(gradient_norm),
        largest=jnp.asarray(largest),
        longest=jnp.zeros(2),
    )


def test_a_mean_of_cosines_where_no_column_is_known():
    # 3/(√16 · 3).
    at = by_means(3.0, 16.0)
    assert at.relative_gradient == 0.25
    assert at.significant_gradient == 0.25


@pytest.mark.parametrize(
    ("gradient_norm", "largest", "residual", "expected"),
    [
        (0.0, 16.0, 0.0 * RESIDUAL, 0),
        (0.0, 0.0, RESIDUAL, 0),
        (0.0, 16.0, 1e-200 * RESIDUAL, 1),
        (1e-200, 0.0, RESIDUAL, 1),
    ],
)
def test_a_mean_is_zero_only_if_r_or_j_is(gradient_norm, largest, residual, expected):
    assert by_means(gradient_norm, largest, residual=residual).relative_gradient == expected


def test_a_mean_promises_no_accuracy():
    # The columns are orthogonal: the signs do not matter.
    at = by_means(3.0, 16.0, params=(1.0, -6.0)).rounding(jnp.asarray(4.5))
    np.testing.assert_allclose(at.moved, 13 / 3 * EPS[F64], rtol=1e-15)
    assert at.accuracy == 0
    assert at.cost == 4.5


def test_a_negligible_step_by_its_length():
    at = by_means(3.0, 16.0, params=(3.0, 4.0))
    enough, more = (x * jnp.asarray([0.0, 1.0]) for x in either_side(5 * EPS[F64]))
    assert at.negligible(enough)
    assert not at.negligible(more)


def test_columns_where_j_is_stored_and_means_where_not():
    vectors = [jnp.asarray(x) for x in ((1.0, 1.0), GRADIENT)]
    numbers = [jnp.asarray(x) for x in (3.0, 16.0)]
    history = jnp.asarray([9.0, 1.0])
    columns = stationarity_at(stored(RESIDUAL, JACOBIAN), *vectors, *numbers, history)
    means = stationarity_at(not_stored(), *vectors, *numbers, history)
    np.testing.assert_allclose(columns.relative_gradient, 11 / 15, rtol=1e-15)
    np.testing.assert_array_equal(columns.longest, [9, 2])
    assert means.relative_gradient == 0.25
    np.testing.assert_array_equal(means.longest, history)
    kept = gramlm.linearise(lambda t: jnp.asarray(JACOBIAN) @ t, jnp.ones(2), memory=gramlm.Keep())
    assert isinstance(stationarity_at(kept, *vectors, *numbers, history), MeanStationarity)
