"""Degenerate and badly scaled residuals: no NaN, no false success, and solved where possible."""

import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.nasty import (
    CASES,
    EXTREME,
    F32,
    F64,
    STRUCTURES,
    check_sound,
    false_success,
    model,
    problem,
    starts,
)

RESULTS = gramlm.RESULTS


@pytest.mark.parametrize(("n", "p", "dtype"), CASES)
def test_degenerate_problems_are_solved(n, p, dtype):
    for seed, kind in enumerate(STRUCTURES):
        for curve in (0.0, 0.5):
            args, rng = problem(kind, "none", n, p, 0, dtype, seed, curve)
            for start in starts(args[2], rng):
                solution = gramlm.solve(model, start, args, throw=False)
                check_sound(solution, start)
                assert solution.result == RESULTS.successful, kind
                assert not false_success(solution, args), kind
                if curve == 0.0:
                    check_minimum(solution, args)


def check_minimum(solution, args):
    """The cost of a linear problem is that of NumPy's least squares."""
    features, rows, _, target, _ = (np.asarray(x, float) for x in args)
    eps = float(jnp.finfo(args[0].dtype).eps)
    best = np.linalg.lstsq(features, target, rcond=eps * 10)[0]
    least = 0.5 * np.sum((features @ best - target) ** 2)
    scale = np.max(np.abs(rows))
    found = float(solution.stats["cost"]) / scale / scale
    slack = 30 * eps ** (2 / 3)
    assert least * (1 - 100 * eps) - 1e3 * eps**2 <= found <= least * (1 + slack) + 1e3 * eps**2


@pytest.mark.parametrize(("n", "p", "dtype"), CASES)
@pytest.mark.parametrize("scaling", ["rows", "row", "both"])
def test_scales_of_residuals_of_any_size_are_no_hindrance(n, p, dtype, scaling):
    for seed, kind in enumerate(STRUCTURES):
        for exponent in (-EXTREME[dtype], EXTREME[dtype]):
            if scaling == "both":
                exponent = np.sign(exponent) * (EXTREME[dtype] // 2 - 1)
            args, rng = problem(kind, scaling, n, p, exponent, dtype, seed)
            for start in starts(args[2], rng):
                solution = gramlm.solve(model, start, args, throw=False)
                check_sound(solution, start)
                assert not false_success(solution, args), (kind, exponent)
                if scaling == "rows":
                    assert solution.result == RESULTS.successful
                    if exponent > 0 or dtype == F32:
                        check_minimum(solution, args)


@pytest.mark.parametrize(("n", "p", "dtype"), CASES)
def test_scales_of_parameters_of_any_size_are_no_hindrance(n, p, dtype):
    for seed, kind in enumerate(STRUCTURES):
        for exponent in (-EXTREME[dtype], EXTREME[dtype]):
            args, rng = problem(kind, "columns", n, p, exponent, dtype, seed)
            for start in starts(args[2], rng):
                solution = gramlm.solve(model, start, args, throw=False)
                check_sound(solution, start)
                assert not false_success(solution, args), (kind, exponent)
                assert solution.result == RESULTS.successful
                check_minimum(solution, args)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize(("n", "p"), [(3, 7), (12, 4)])
def test_a_column_of_another_scale_does_not_matter_up_to_the_precision(n, p, dtype):
    largest = 14 if dtype == F64 else 6
    for seed in range(4):
        for exponent in (-largest, -largest // 2, largest // 2, largest):
            args, rng = problem("full", "column", n, p, exponent, dtype, seed)
            for start in starts(args[2], rng):
                solution = gramlm.solve(model, start, args, throw=False)
                check_sound(solution, start)
                assert not false_success(solution, args)
                assert solution.result == RESULTS.successful


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize(("n", "p"), [(3, 7), (12, 4)])
def test_a_column_of_any_scale_gives_a_sound_result(n, p, dtype):
    for seed in range(4):
        for exponent in (-EXTREME[dtype], EXTREME[dtype]):
            args, rng = problem("full", "column", n, p, exponent, dtype, seed)
            for start in starts(args[2], rng):
                check_sound(gramlm.solve(model, start, args, throw=False), start)


@pytest.mark.parametrize(("n", "p"), [(3, 7), (12, 4)])
def test_a_column_that_hides_the_others_is_no_false_success(n, p):
    for seed in range(4):
        for exponent in (-EXTREME[F64], EXTREME[F64]):
            args, rng = problem("full", "column", n, p, exponent, F64, seed)
            for start in starts(args[2], rng):
                solution = gramlm.solve(model, start, args, throw=False)
                assert not false_success(solution, args)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_a_start_many_orders_too_large_is_no_false_success(dtype):
    for seed in range(8):
        for curve in (0.0, 0.5):
            args, rng = problem("zero column", "columns", 12, 4, EXTREME[dtype], dtype, seed, curve)
            start = jnp.asarray(rng.normal(size=4), dtype)
            solution = gramlm.solve(model, start, args, throw=False)
            check_sound(solution, start)
            assert not false_success(solution, args)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_thousands_of_identical_residuals_are_one_residual(dtype):
    def residual(t, args):
        return jnp.full(5000, args) * (t[0] * t[0] - 2) + 0 * t[1]

    for scale in (1.0, 10.0 ** (EXTREME[dtype] - 5), 10.0 ** -(EXTREME[dtype] - 5)):
        start = jnp.asarray([1.0, 3.0], dtype)
        solution = gramlm.solve(residual, start, jnp.asarray(scale, dtype))
        check_sound(solution, start)
        tolerance = 1e-7 if dtype == F64 else 1e-3
        np.testing.assert_allclose(solution.value, [np.sqrt(2), 3], rtol=tolerance)


# --- Starts at zero, and roots at zero.


@pytest.mark.parametrize("dtype", [F64, F32])
def test_small_parameters_from_zero_are_no_false_success(dtype):
    exponent = 30 if dtype == F64 else 15
    for seed in range(3):
        args, _ = problem("full", "columns", 3, 7, exponent, dtype, seed, 0.5)
        solution = gramlm.solve(model, jnp.zeros(7, dtype), args, throw=False)
        assert not false_success(solution, args)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_a_column_of_another_scale_from_zero_is_no_false_success(dtype):
    exponent = 24 if dtype == F64 else 10
    for seed in range(6):
        for sign in (-1, 1):
            args, _ = problem("full", "column", 12, 4, sign * exponent, dtype, seed)
            solution = gramlm.solve(model, jnp.zeros(4, dtype), args, throw=False)
            assert not false_success(solution, args)


def test_a_root_at_zero_is_reached_in_float32():
    def residual(t):
        return t * (1 + t)

    for start in (0.1, 0.3, 1.0, -0.3, 2.0):
        solution = gramlm.solve(residual, jnp.asarray([start], F32), throw=False)
        assert solution.result == RESULTS.successful
