"""The problems of Hock and Schittkowski, and of Schittkowski: sizes, costs and precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks.suites.classical.schittkowski_200 import TP200
from benchmarks.suites.classical.schittkowski_250 import TP250
from benchmarks.suites.classical.schittkowski_300 import TP300
from benchmarks.suites.classical.schittkowski_hs import HS

PROBLEMS = {problem.name: problem for problem in (*HS, *TP200, *TP250, *TP300)}

# Name: residuals, unknowns, and ‖r‖² at the start, the book's or worked out by hand.
SIZES = {
    "hs01": (2, 2, 909.0),
    "hs25": (99, 3, 32.835),
    "hs26": (2, 3, 21.16),
    "hs28": (2, 3, 13.0),
    "hs46": (4, 5, 3.33762627),
    "hs49": (4, 5, 266.000064),
    "hs50": (4, 5, 7516.0),
    "hs57": (44, 2, 0.0307986017),
    "hs60": (3, 3, 1.0),
    "hs70": (19, 4, None),
    "hs77": (5, 5, 4.0),
    "hs79": (5, 5, 1.0),
    "tp201": (2, 2, 45.0),
    "tp202": (2, 2, 1256.0),
    "tp203": (3, 2, 0.529781),
    "tp204": (3, 2, None),
    "tp205": (3, 2, 14.203125),
    "tp206": (2, 2, 484.1936),
    "tp207": (2, 2, 5.0336),
    "tp209": (2, 2, 1940.84),
    "tp210": (2, 2, 193604.84),
    "tp211": (2, 2, 749.0384),
    "tp212": (2, 2, 100.0),
    "tp213": (1, 2, 44.0**4),
    "tp240": (3, 3, 29726.75),
    "tp241": (5, 3, 629.0),
    "tp242": (10, 3, None),
    "tp243": (4, 3, None),
    "tp244": (10, 3, 1.59884454),
    "tp246": (3, 3, 8.4),
    "tp261": (5, 4, 2.0),
    "tp266": (10, 5, None),
    "tp267": (11, 5, None),
    "tp268": (6, 5, None),
    "tp269": (4, 5, 6.0),
    "tp271": (6, 6, 750.0),
    "tp272": (13, 6, 0.779070076),
    "tp273": (7, 6, 57000.0),
    "tp274": (2, 2, 76 / 3),
    "tp275": (4, 4, None),
    "tp276": (6, 6, None),
    "tp282": (11, 10, 192.464),
    "tp283": (10, 10, 3025.0**3),
    "tp287": (35, 20, 5 * 19192.0),
    "tp290": (1, 2, 9.0),
    "tp291": (1, 10, 3025.0),
    "tp292": (1, 30, 216225.0),
    "tp294": (10, 6, None),
    "tp295": (18, 10, None),
    "tp296": (30, 16, None),
    "tp297": (58, 30, None),
    "tp299": (198, 100, None),
    "tp303": (22, 20, 0.2 + 10.5**2 + 10.5**4),
    "tp304": (52, 50, 0.5 + 63.75**2 + 63.75**4),
    "tp305": (102, 100, 1.0 + 252.5**2 + 252.5**4),
    "tp308": (3, 2, None),
    "tp310": (1, 2, None),
    "tp311": (2, 2, 106.0),
    "tp312": (2, 2, 3330769.0),
    "tp333": (8, 3, None),
    "tp351": (7, 4, None),
    "tp352": (40, 4, None),
    "tp355": (2, 4, 122.21),
    "tp373": (6, 3, None),
    "tp394": (40, 20, 4200.0),
    "tp395": (100, 50, 25500.0),
}

# Name: a solution, the book's or nearly so where nothing binds, and its ‖r‖².
SOLUTIONS = {
    "hs25": ((50, 25, 1.5), 0.0),
    "hs57": ((0.39014000, 0.10163270), 0.0050016796),
    "hs70": ((4.631788, 12.27695, 0.6871375, 0.4927824), 0.007498464),
    "tp202": ((5, 4), 0.0),
    "tp203": ((3, 0.5), 0.0),
    "tp204": ((0, 0), 0.183601),
    "tp241": ((0, 0, 1), 0.0),
    "tp242": ((1, 10, 1), 0.0),
    "tp243": ((0, 0, 0), 0.79657853),
    "tp244": ((1, 10, 5), 0.0),
    "tp261": ((0, 1, 1, 1), 0.0),
    "tp266": ((0,) * 5, 1.0000002),
    "tp267": ((1, 10, 1, 5, 4), 0.0),
    "tp268": ((1, 2, -1, 3, -4), 0.0),
    "tp272": ((1, 10, 4, 1, 5, 3), 0.0),
    "tp308": ((-0.1554371525, 0.6945637815), 0.77319906),
    "tp311": ((3, 2), 0.0),
    "tp312": ((-21.02665217, -36.76000882), 0.0),
    "tp333": ((89.9019934, 0.0669920438, 0.47808520), 0.0432703540),
    "tp351": ((2.7143661, 140.435806, 1707.5156166, 31.5128693), 318.57175),
    "tp352": ((-10.2235736, 11.9084287, -0.4580412, 0.5803197), 903.23433),
    "tp373": ((523.30554, -156.94784, -0.19966457), 13390.0931),
}


def test_names_are_unique_and_all_here():
    assert len(PROBLEMS) == len(HS) + len(TP200) + len(TP250) + len(TP300)
    assert set(PROBLEMS) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_size_and_cost_at_the_start(name):
    problem = PROBLEMS[name]
    n, p, total = SIZES[name]
    assert len(problem.start) == p
    residual = np.asarray(problem.residual(jnp.asarray(problem.start)))
    assert residual.shape == (n,)
    assert np.all(np.isfinite(residual))
    assert not problem.solved(0.5 * residual @ residual)
    if total is not None:
        np.testing.assert_allclose(residual @ residual, total, rtol=1e-6)


@pytest.mark.parametrize("name", SIZES)
def test_single_precision_stays(name):
    problem = PROBLEMS[name]
    theta = jnp.asarray(problem.start, jnp.float32)
    residual = problem.residual(theta)
    assert residual.dtype == jnp.float32
    exact = np.asarray(problem.residual(jnp.asarray(problem.start)))
    scale = np.max(np.abs(exact))
    np.testing.assert_allclose(residual, exact, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_cost_at_a_solution(name):
    problem = PROBLEMS[name]
    theta, total = SOLUTIONS[name]
    residual = np.asarray(problem.residual(jnp.asarray(theta, float)))
    np.testing.assert_allclose(residual @ residual, total, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(2 * problem.best, total, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", SIZES)
def test_costs_are_in_order(name):
    problem = PROBLEMS[name]
    assert problem.best >= 0
    assert list(problem.local) == sorted(set(problem.local))
    assert all(cost > problem.best for cost in problem.local)


@pytest.mark.parametrize("name", ["hs70", "tp261", "tp272", "tp333"])
def test_second_forward_derivative_is_finite(name):
    problem = PROBLEMS[name]
    start = jnp.asarray(problem.start)
    along = jnp.ones_like(start)

    def slope(theta):
        return jax.jvp(problem.residual, (theta,), (along,))[1]

    assert np.all(np.isfinite(jax.jvp(slope, (start,), (along,))[1]))
