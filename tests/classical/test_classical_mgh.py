"""The problems of Moré, Garbow and Hillstrom are those of the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks.suites.classical.mgh_fixed import FIXED
from benchmarks.suites.classical.mgh_scalable import (
    SCALABLE,
    brown_almost_linear,
    chebyquad,
    watson,
)

ALL = {p.name: p for p in (*FIXED, *SCALABLE)}

# (residuals, unknowns) and, where a table or hand gives it, ‖r‖² at the start.
PAPER = {
    "mgh01": (2, 2, 24.2),
    "mgh02": (2, 2, 400.5),
    "mgh03": (2, 2, 1 + (np.exp(-1) - 1e-4) ** 2),
    "mgh04": (3, 2, 999999**2 + 0.999998**2 + 1),
    "mgh05": (3, 2, 14.203125),
    "mgh06": (10, 2, 4171.306161),
    "mgh07": (3, 3, 2500),
    "mgh08": (15, 3, None),
    "mgh09": (15, 3, 3.88811e-6),
    "mgh10": (16, 3, 1.6936e9),
    "mgh11": (99, 3, 12.1107),
    "mgh12": (10, 3, 1031.15381060940),
    "mgh13": (4, 4, 215),
    "mgh14": (6, 4, 19192),
    "mgh15": (11, 4, 5.31317e-3),
    "mgh16": (20, 4, 7926693.33699697),
    "mgh17": (33, 5, 0.879026),
    "mgh18": (13, 6, 0.77907),
    "mgh19": (65, 11, 2.09342),
    "mgh20-6": (31, 6, 30),
    "mgh20-9": (31, 9, 30),
    "mgh21-10": (10, 10, 5 * 24.2),
    "mgh22-12": (12, 12, 3 * 215),
    "mgh23-4": (5, 4, 885.06264),
    "mgh24-4": (8, 4, 2.34000880546),
    "mgh25-10": (12, 10, 2198551.1625),
    "mgh26-10": (10, 10, 7.0758e-3),
    "mgh27-10": (10, 10, 273.248047829),
    "mgh27-40": (40, 40, None),
    "mgh28-10": (10, 10, None),
    "mgh29-10": (10, 10, None),
    "mgh30-10": (10, 10, 21),
    "mgh31-10": (10, 10, 360),
    "mgh32-5": (10, 5, 25),
    "mgh32-10": (30, 10, 60),
    "mgh33-5": (10, 5, sum((15 * i - 1) ** 2 for i in range(1, 11))),
    "mgh34-5": (10, 5, 2 + sum((9 * i - 1) ** 2 for i in range(1, 9))),
    "mgh35-8": (8, 8, 3.86177e-2),
    "mgh35-10": (10, 10, 3.37633e-2),
}

# ‖r‖² in the paper's list of minima, to the digits printed there.
PUBLISHED = {
    "mgh06": (124.362, ()),
    "mgh08": (8.21487e-3, (17.4286,)),
    "mgh09": (1.12793e-8, ()),
    "mgh10": (87.9458, ()),
    "mgh15": (3.07505e-4, (1.02734e-3,)),
    "mgh16": (85822.2, ()),
    "mgh17": (5.46489e-5, ()),
    "mgh19": (4.01377e-2, ()),
    "mgh20-6": (2.28767e-3, ()),
    "mgh20-9": (1.39976e-6, ()),
    "mgh23-4": (2.24997e-5, ()),
    "mgh24-4": (9.37629e-6, ()),
    "mgh32-5": (5, ()),
    "mgh32-10": (20, ()),
    "mgh33-5": (10 * 9 / (2 * 21), ()),
    "mgh34-5": ((100 + 30 - 6) / (2 * 17), ()),
    "mgh35-8": (3.51687e-3, ()),
    "mgh35-10": (4.77271e-3, (6.50395e-3,)),
    "mgh02": (0, (48.9842,)),
    "mgh18": (0, (5.65565e-3,)),
    "mgh26-10": (0, (2.79506e-5,)),
    "mgh27-10": (0, (1,)),
}

# Points where the cost is `best`, in closed form.
SOLUTIONS = {
    "mgh01": [1, 1],
    "mgh02": [5, 4],
    "mgh04": [1e6, 2e-6],
    "mgh05": [3, 0.5],
    "mgh07": [1, 0, 0],
    "mgh11": [50, 25, 1.5],
    "mgh12": [1, 10, 1],
    "mgh13": [0, 0, 0, 0],
    "mgh14": [1, 1, 1, 1],
    "mgh18": [1, 10, 1, 5, 4, 3],
    "mgh21-10": [1] * 10,
    "mgh22-12": [0] * 12,
    "mgh25-10": [1] * 10,
    "mgh26-10": [0] * 10,
    "mgh27-10": [1] * 10,
    "mgh27-40": [1] * 40,
    "mgh32-5": [-1] * 5,
    "mgh32-10": [-1] * 10,
    "mgh33-5": [3 / 21, 0, 0, 0, 0],
    "mgh34-5": [7, 3 / 34, 0, 0, 8],
}

# Points where the cost is `best` or one of `local`, to about six digits.
MINIMISERS = {
    "mgh03": [1.098159e-5, 9.106146738],
    "mgh06": [0.257825, 0.257825],
    "mgh08": [0.082411, 1.133036, 2.343695],
    "mgh15": [0.192807, 0.191282, 0.123057, 0.136062],
    "mgh16": [-11.594440, 13.203630, -0.403439, 0.236779],
    "mgh20-6": [-0.015725, 1.012435, -0.232992, 1.260430, -1.513729, 0.992996],
    "mgh35-8": [0.043153, 0.193091, 0.266329, 0.5, 0.5, 0.733671, 0.806909, 0.956847],
}


def _cost(problem, point):
    return 0.5 * float(jnp.sum(problem.residual(jnp.asarray(point, float)) ** 2))


def _to_printed_digits(cost, published):
    """The paper both rounds and cuts: one unit of its sixth digit either way."""
    return 2 * cost == pytest.approx(published, rel=1.05e-5, abs=1e-30)


def test_there_are_39_of_them():
    assert len(FIXED) == 19
    assert len(SCALABLE) == 20
    assert ALL.keys() == PAPER.keys()
    assert {p.name[3:5] for p in ALL.values()} == {f"{i:02}" for i in range(1, 36)}


@pytest.mark.parametrize("name", PAPER)
def test_start(name):
    problem, (n, p, squares) = ALL[name], PAPER[name]
    assert len(problem.start) == p
    for dtype in (np.float64, np.float32):
        value = problem.residual(jnp.asarray(problem.start, dtype))
        assert value.shape == (n,)
        assert value.dtype == dtype
        assert np.isfinite(value).all()
        if squares is not None and dtype == np.float64:
            assert float(value @ value) == pytest.approx(squares, rel=1e-5)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solution(name):
    assert _cost(ALL[name], SOLUTIONS[name]) == pytest.approx(ALL[name].best, rel=1e-12, abs=1e-20)


@pytest.mark.parametrize("name", MINIMISERS)
def test_minimiser(name):
    assert _cost(ALL[name], MINIMISERS[name]) == pytest.approx(ALL[name].best, rel=1e-4, abs=1e-11)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_minimum(name):
    best, local = PUBLISHED[name]
    assert _to_printed_digits(ALL[name].best, best)
    assert all(any(_to_printed_digits(c, f) for c in ALL[name].local) for f in local)


def test_local_costs_are_above_the_best():
    for problem in ALL.values():
        assert problem.best >= 0
        assert all(c > problem.best for c in problem.local)
        assert len(set(problem.local)) == len(problem.local)


def test_infima_at_infinity_are_approached():
    powell, beale, bard = ALL["mgh03"], ALL["mgh05"], ALL["mgh08"]
    assert _cost(powell, [1e-12, 1e8]) == pytest.approx(powell.local[0], rel=1e-6)
    c = 13.875 / 14
    assert _cost(beale, [-1e8, 1 + c / 1e8]) == pytest.approx(beale.local[0], rel=1e-6)
    assert _cost(bard, [0.84066667, -1e9, -1e9]) == pytest.approx(bard.local[-1], rel=1e-6)


def test_helical_angle_is_that_of_the_paper():
    for a, b, turn in [(1, -1, -0.125), (1, 1, 0.125), (-1, 1, 0.375), (-1, -1, 0.625)]:
        r = ALL["mgh07"].residual(jnp.asarray([a, b, 0.0]))
        assert float(r[0]) == pytest.approx(-100 * turn)


@pytest.mark.parametrize("name", ["mgh07", "mgh11", "mgh27-10", "mgh29-10", "mgh35-8"])
def test_second_derivatives_are_finite(name):
    problem = ALL[name]
    at = jnp.asarray(problem.start)

    def along(s):
        return problem.residual(at + s)

    def slope(s):
        return jax.jvp(along, (s,), (jnp.ones_like(s),))[1]

    zero = jnp.zeros_like(at)
    curvature = jax.jvp(slope, (zero,), (jnp.ones_like(at),))[1]
    assert np.isfinite(curvature).all()
    step = 1e-5 * jnp.ones_like(at)
    np.testing.assert_allclose((slope(step) - slope(-step)) / 2e-5, curvature, rtol=1e-4, atol=1e-4)


def test_builders_take_other_sizes():
    # The paper's cost of Watson's function with 12 unknowns is 4.72238e-10; 30 at the start.
    twelve = watson(12, 2.36119e-10)
    assert twelve.name == "mgh20-12"
    assert 2 * _cost(twelve, twelve.start) == pytest.approx(30)
    assert _cost(brown_almost_linear(7), np.ones(7)) == 0
    # Equal weights at two nodes integrate linear and quadratic polynomials exactly.
    nodes = 0.5 + np.array([-1, 1]) / np.sqrt(12)
    assert _cost(chebyquad(2, 2, 0.0), nodes) == pytest.approx(0, abs=1e-30)
