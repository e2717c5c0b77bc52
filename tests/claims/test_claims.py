"""Ends that look like success and are not, each from an input that once was claimed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm

LM = gramlm.LevenbergMarquardt
X = jnp.linspace(1.0, 2.0, 10)


@pytest.mark.parametrize(("dtype", "unit"), [(jnp.float32, 1.6e-19), (jnp.float64, 6.6e-34)])
def test_data_in_tiny_units_are_fitted_before_the_residual_counts_as_vanished(dtype, unit):
    x = X.astype(dtype)
    y = jnp.asarray(unit * np.asarray(X) * (1 + 0.01 * np.sin(7 * np.asarray(X))), dtype)
    solution = gramlm.solve(lambda a: a * x - y, jnp.ones(1, dtype), throw=False)
    exact = np.dot(np.asarray(x, float), np.asarray(y, float)) / np.sum(np.asarray(x, float) ** 2)
    np.testing.assert_allclose(solution.value, exact, rtol=1e-3)


def test_a_model_of_two_parameters_in_tiny_units_is_no_false_success():
    y = 6.6e-34 * jnp.exp(-3.0 * X)

    def residual(t):
        return t[0] * jnp.exp(-t[1] * X) - y

    solution = gramlm.solve(residual, jnp.asarray([1.0, 1.0]), throw=False)
    close = abs(float(solution.value[1]) - 3) < 1e-3
    assert close or solution.result != gramlm.RESULTS.successful


@pytest.mark.parametrize("scale", [1.0, 1e160, 1e-170])
def test_bold_returns_its_best_point_whatever_the_size_of_the_residual(scale):
    y = 2.0 * jnp.exp(-0.7 * X)
    solver = LM(acceptance=gramlm.Nonmonotone())
    start = jnp.asarray([1.0, 0.1])
    solution = gramlm.solve(lambda t: scale * (t[0] * jnp.exp(-t[1] * X) - y), start, solver=solver)
    np.testing.assert_allclose(solution.value, [2.0, 0.7], rtol=1e-6)


def test_rounding_of_one_large_parameter_is_no_excuse_for_another():
    def residual(t):
        return jnp.stack([t[0] - 1e12, 1.0 + 0 * t[0], 1e-3 * jnp.arctan(t[1] * 1e6)])

    solution = gramlm.solve(
        residual, jnp.asarray([1e12, 1e-5]), solver=LM(correction=None), throw=False
    )
    arrived = abs(float(solution.value[1])) < 1e-8
    assert arrived or solution.result != gramlm.RESULTS.successful


def test_a_large_parameter_does_not_make_the_step_of_another_small():
    def residual(t):
        return jnp.stack([t[0] - 1e10, 1.0 + 0 * t[0], 1e-4 * (1e4 * t[1]) ** 3])

    solution = gramlm.solve(residual, jnp.asarray([1e10, 1e-4]), throw=False)
    assert abs(float(solution.value[1])) < 1e-6


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_steps_on_the_word_of_the_model_do_not_go_in_circles(start):
    # Gauss-Newton steps of this go from 0 to 1 and back, below the rounding of the cost.
    def residual(t):
        (x,) = t
        f = 0.5 - 0.5 * x + 4 * x**3 - 4.5 * x**4 + 1.5 * x**5
        return jnp.stack([jnp.ones_like(x), 1e-8 * f])

    solution = gramlm.solve(residual, jnp.asarray([start]), throw=False)
    assert solution.stats["num_steps"] < 50


def test_the_cost_returned_is_the_lowest_up_to_rounding():
    rng = np.random.default_rng(1)
    x = jnp.asarray(np.linspace(10, 12, 40), jnp.float32)
    for _ in range(5):
        y = jnp.asarray(rng.normal(size=40), jnp.float32)
        solution = gramlm.solve(
            lambda t, y: t[0] + t[1] * x + t[2] * x**2 - y,
            jnp.zeros(3, jnp.float32),
            y,
            throw=False,
        )
        lowest = jnp.min(solution.history.cost)
        assert solution.stats["cost"] <= lowest * (1 + 4e-4)


@pytest.mark.parametrize("off", [{"gradient": None, "vanished": None}])
def test_an_exact_root_is_a_success_whatever_is_switched_off(off):
    solver = LM(termination=gramlm.Termination(**off))
    for start in (0.0, 3.0):
        solution = gramlm.solve(lambda t: t - 1.0, jnp.asarray([start]), solver=solver)
        np.testing.assert_array_equal(solution.value, [1.0])


@pytest.mark.parametrize(("n", "p"), [(3, 7), (5, 80), (12, 4)])
def test_forward_derivatives_of_a_solve_survive_a_tiny_damping(n, p, rng):
    first, second = (jnp.asarray(rng.normal(size=(n, p))) for _ in range(2))
    b = jnp.asarray(rng.normal(size=n))

    def solved(c):
        return gramlm.solve(
            lambda t, c: (first + c * second) @ t - b,
            jnp.zeros(p),
            c,
            solver=LM(metric=gramlm.IdentityMetric()),
            throw=False,
        ).value

    def exact(c):
        return np.linalg.pinv(np.asarray(first + c * second)) @ np.asarray(b)

    h = 1e-6
    expected = (exact(h) - exact(-h)) / (2 * h)
    found = jax.jvp(solved, (jnp.asarray(0.0),), (jnp.asarray(1.0),))[1]
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.linalg.norm(expected))
