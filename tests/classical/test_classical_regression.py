"""The certified nonlinear regressions: data, models and answers agree with one another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks.suites.classical.regression import (
    CERTIFIED,
    Certified,
    correct_digits,
    standard_errors,
)

# Observations and parameters, by NIST's count.
SIZES = {
    "Misra1a": (14, 2),
    "Chwirut2": (54, 3),
    "Chwirut1": (214, 3),
    "Lanczos3": (24, 6),
    "Gauss1": (250, 8),
    "Gauss2": (250, 8),
    "DanWood": (6, 2),
    "Misra1b": (14, 2),
    "Kirby2": (151, 5),
    "Hahn1": (236, 7),
    "Nelson": (128, 3),
    "MGH17": (33, 5),
    "Lanczos1": (24, 6),
    "Lanczos2": (24, 6),
    "Gauss3": (250, 8),
    "Misra1c": (14, 2),
    "Misra1d": (14, 2),
    "Roszman1": (25, 4),
    "ENSO": (168, 9),
    "MGH09": (11, 4),
    "Thurber": (37, 7),
    "BoxBOD": (6, 2),
    "Rat42": (9, 3),
    "MGH10": (16, 3),
    "Eckerle4": (35, 3),
    "Rat43": (15, 4),
    "Bennett5": (154, 3),
}
BY_NAME = {case.name: case for case in CERTIFIED}
EACH = pytest.mark.parametrize("case", CERTIFIED, ids=lambda case: case.name)
RESOLVED = pytest.mark.parametrize(
    "case", [case for case in CERTIFIED if case.float64_resolves], ids=lambda case: case.name
)


@functools.cache
def _derivatives(case: Certified):
    """θ → r, J, and the second derivative of r along θ, compiled once a case."""

    def along(function, theta):
        return jax.jvp(function, (theta,), (theta,))[1]

    def evaluate(theta):
        second = along(functools.partial(along, case.residual), theta)
        return case.residual(theta), jax.jacfwd(case.residual)(theta), second

    return jax.jit(evaluate)


def test_all_are_there():
    assert [case.name for case in CERTIFIED] == list(SIZES)
    levels = [case.difficulty for case in CERTIFIED]
    assert levels == ["lower"] * 8 + ["average"] * 11 + ["higher"] * 8
    assert [case.name for case in CERTIFIED if not case.float64_resolves] == ["Lanczos1"]
    assert [case.name for case in CERTIFIED if case.log_response] == ["Nelson"]


@EACH
def test_shapes(case):
    n, p = SIZES[case.name]
    assert case.y.shape == (n,)
    assert case.x.shape == ((n, 2) if case.name == "Nelson" else (n,))
    assert len(case.starts) == 2
    for values in (*case.starts, case.certified, case.standard_deviations):
        assert len(values) == p
    assert np.isfinite(case.x).all()
    assert np.isfinite(case.y).all()


@EACH
def test_dtype_follows_theta(case):
    n, p = SIZES[case.name]
    for dtype in (jnp.float32, jnp.float64):
        out = jax.eval_shape(case.residual, jax.ShapeDtypeStruct((p,), dtype))
        assert (out.shape, out.dtype) == ((n,), dtype)


@pytest.mark.parametrize("name", ["Nelson", "Hahn1", "ENSO", "Bennett5"])
def test_float32_is_close(name):
    case = BY_NAME[name]
    near = jnp.asarray(case.starts[1])
    single = jax.jit(case.residual)(near.astype(jnp.float32))
    double = _derivatives(case)(near)[0]
    assert single.dtype == jnp.float32
    scale = np.abs(np.asarray(double)).max() + np.abs(case.response).max()
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-4 * scale)


@EACH
def test_finite_at_starts(case):
    for start in case.starts:
        for derivative in _derivatives(case)(jnp.asarray(start)):
            assert np.isfinite(derivative).all()


@RESOLVED
def test_certified_answer(case):
    theta = jnp.asarray(case.certified)
    r, J, _ = map(np.asarray, _derivatives(case)(theta))
    np.testing.assert_allclose(r @ r, case.residual_sum_of_squares, rtol=1e-9)
    gradient = np.abs(r @ J) / (np.linalg.norm(J, axis=0) * np.linalg.norm(r))
    # What is left is the rounding of θ to 11 digits, beside a residual of 1e-6 in Lanczos2.
    assert gradient.max() < 3e-5
    errors = standard_errors(case.residual, theta)
    assert correct_digits(errors, case.standard_deviations) > 9


def test_lanczos1_is_lost_in_rounding():
    case = BY_NAME["Lanczos1"]
    r = np.asarray(_derivatives(case)(jnp.asarray(case.certified))[0])
    assert case.residual_sum_of_squares < 1e-24 < r @ r < 1e-19


def test_nelson_fits_the_logarithm():
    case = BY_NAME["Nelson"]
    theta = jnp.asarray([2.0, 0.0, 0.0])
    np.testing.assert_allclose(case.residual(theta), 2 - np.log(case.y), rtol=1e-15)


def test_eager_and_compiled_agree():
    case = BY_NAME["Thurber"]
    theta = jnp.asarray(case.starts[1])
    compiled = _derivatives(case)(theta)[0]
    np.testing.assert_allclose(case.residual(theta), compiled, rtol=1e-9)


def test_published_decimals_are_kept():
    assert BY_NAME["Lanczos1"].certified[0] == 9.5100000027e-02
    assert BY_NAME["Lanczos1"].y[1] == 2.044333373291
    assert BY_NAME["Nelson"].certified[1] == 5.6177717026e-09
    assert BY_NAME["Hahn1"].starts[0] == (10, -1, 0.05, -0.00001, -0.05, 0.001, -0.000001)


def test_correct_digits():
    assert correct_digits([1.0, -2.0], [1.0, -2.0]) == 11
    assert correct_digits([1.0 + 1e-14], [1.0]) == 11
    assert correct_digits([1.001, -2.0], [1.0, -2.0]) == pytest.approx(3)
    assert correct_digits([1.0, -2.02], [1.0, -2.0]) == pytest.approx(2)
    assert correct_digits(jnp.asarray([5e-9]), (4e-9,)) == pytest.approx(-np.log10(0.25))
    assert correct_digits([300.0], [1.0]) == 0
    assert correct_digits([1.0, np.nan], [1.0, 2.0]) == 0
    assert correct_digits([np.inf, 2.0], [1.0, 2.0]) == 0
    with pytest.raises(ValueError, match="certified"):
        correct_digits([1.0], [1.0, 2.0])


def test_standard_errors_of_a_line():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    y = np.array([0.1, 0.9, 2.2, 2.8])
    slope, intercept = np.polyfit(x, y, 1)

    def residual(theta):
        # The slope in units of 1e-12: badly scaled columns do no harm.
        return theta[0] + 1e-12 * theta[1] * x - y

    errors = standard_errors(residual, [intercept, 1e12 * slope])
    s2 = np.sum((intercept + slope * x - y) ** 2) / 2
    spread = np.sum((x - x.mean()) ** 2)
    expected = np.sqrt([s2 * (1 / 4 + x.mean() ** 2 / spread), s2 / spread * 1e24])
    np.testing.assert_allclose(errors, expected, rtol=1e-10)


def test_standard_errors_without_an_answer():
    assert np.isnan(standard_errors(lambda theta: jnp.log(theta) * jnp.ones(3), [-1.0])).all()
    deficient = standard_errors(lambda theta: theta[0] * jnp.ones(4), [2.0, 1.0])
    assert not np.isfinite(deficient).all()
