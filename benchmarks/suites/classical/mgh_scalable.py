"""Problems 20 to 35 of Moré, Garbow and Hillstrom: those of variable dimension.

Each builder takes the number of unknowns; `best` and `local` are asked for where they are known
only for some of them. The paper gives `‖r‖²`; the costs here are half of it. All minima listed
are at finite points, found from many random starts.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ._problem import Classical

Costs = tuple[float, ...]

_PAPER = "Moré, Garbow and Hillstrom, ACM TOMS 7 (1981), problem"


def _problem(
    number: int, title: str, residual: Any, start: Any, best: float, local: Costs = ()
) -> Classical:
    start = tuple(float(s) for s in start)
    name = f"mgh{number}-{len(start)}"
    return Classical(name, title, f"{_PAPER} {number}", residual, start, best, local)


def watson(n: int, best: float, local: Costs = ()) -> Classical:
    """A polynomial of `n ≤ 31` coefficients that solves an initial value problem."""
    t = np.arange(1, 30)[:, None] / 29
    powers = t ** np.arange(n)
    slopes = np.arange(1, n) * t ** np.arange(n - 1)

    def residual(x: Any) -> Any:
        value = jnp.asarray(powers, x.dtype) @ x
        slope = jnp.asarray(slopes, x.dtype) @ x[1:]
        ends = jnp.stack([x[0], x[1] - x[0] ** 2 - 1])
        return jnp.concatenate([slope - value**2 - 1, ends])

    return _problem(20, "Watson", residual, np.zeros(n), best, local)


def extended_rosenbrock(n: int) -> Classical:
    """`n/2` Rosenbrock problems side by side."""

    def residual(x: Any) -> Any:
        odd, even = x[0::2], x[1::2]
        return jnp.stack([10 * (even - odd**2), 1 - odd], axis=1).ravel()

    return _problem(21, "Extended Rosenbrock", residual, [-1.2, 1] * (n // 2), 0.0)


def extended_powell_singular(n: int) -> Classical:
    """`n/4` of Powell's singular problems side by side."""

    def residual(x: Any) -> Any:
        a, b, c, d = x.reshape(-1, 4).T
        rows = [a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2]
        return jnp.stack(rows, axis=1).ravel()

    return _problem(22, "Extended Powell singular", residual, [3, -1, 0, 1] * (n // 4), 0.0)


def penalty_1(n: int, best: float, local: Costs = ()) -> Classical:
    """Near 1 in each unknown, weakly; near a sphere of radius ½, strongly."""

    def residual(x: Any) -> Any:
        return jnp.append(1e-5**0.5 * (x - 1), x @ x - 0.25)

    return _problem(23, "Penalty I", residual, np.arange(1, n + 1), best, local)


def penalty_2(n: int, best: float, local: Costs = ()) -> Classical:
    """Weak exponential terms in neighbours against one strong weighted sphere."""
    e = np.exp(np.arange(n + 1) / 10)
    pairs = e[2:] + e[1:-1]
    weights = np.arange(n, 0, -1)

    def residual(x: Any) -> Any:
        growth = jnp.exp(x / 10)
        return jnp.concatenate(
            [
                x[:1] - 0.2,
                1e-5**0.5 * (growth[1:] + growth[:-1] - jnp.asarray(pairs, x.dtype)),
                1e-5**0.5 * (growth[1:] - float(np.exp(-0.1))),
                (jnp.asarray(weights, x.dtype) @ x**2 - 1)[None],
            ]
        )

    return _problem(24, "Penalty II", residual, np.full(n, 0.5), best, local)


def variably_dimensioned(n: int) -> Classical:
    """The distance to 1, with a weighted sum of it and that sum's square."""

    def residual(x: Any) -> Any:
        s = jnp.arange(1, n + 1, dtype=x.dtype) @ (x - 1)
        return jnp.append(x - 1, jnp.stack([s, s**2]))

    return _problem(25, "Variably dimensioned", residual, 1 - np.arange(1, n + 1) / n, 0.0)


def trigonometric(n: int, local: Costs = ()) -> Classical:
    """Sines and cosines, all coupled; of many minima."""

    def residual(x: Any) -> Any:
        i, cos = jnp.arange(1, n + 1, dtype=x.dtype), jnp.cos(x)
        return n - cos.sum() + i * (1 - cos) - jnp.sin(x)

    return _problem(26, "Trigonometric", residual, np.full(n, 1 / n), 0.0, local)


def brown_almost_linear(n: int, local: Costs = ()) -> Classical:
    """All linear but the last residual, a product of all unknowns."""

    def residual(x: Any) -> Any:
        return jnp.append(x[:-1] + x.sum() - (n + 1), jnp.prod(x) - 1)

    return _problem(27, "Brown almost-linear", residual, np.full(n, 0.5), 0.0, local)


def _grid(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / (n + 1)


def discrete_boundary_value(n: int, local: Costs = ()) -> Classical:
    """A two-point boundary value problem in finite differences."""
    h, t = 1 / (n + 1), _grid(n)

    def residual(x: Any) -> Any:
        wide = jnp.pad(x, 1)
        cubic = (x + jnp.asarray(t, x.dtype) + 1) ** 3
        return 2 * x - wide[:-2] - wide[2:] + h**2 * cubic / 2

    return _problem(28, "Discrete boundary value", residual, t * (t - 1), 0.0, local)


def discrete_integral_equation(n: int, local: Costs = ()) -> Classical:
    """The same problem as an integral equation with its Green's function."""
    t = _grid(n)
    low, high = np.minimum(t[:, None], t), np.maximum(t[:, None], t)
    green = low * (1 - high) / (2 * (n + 1))

    def residual(x: Any) -> Any:
        return x + jnp.asarray(green, x.dtype) @ (x + jnp.asarray(t, x.dtype) + 1) ** 3

    return _problem(29, "Discrete integral equation", residual, t * (t - 1), 0.0, local)


def broyden_tridiagonal(n: int, local: Costs = ()) -> Classical:
    """Quadratic, each unknown coupled to its neighbours."""

    def residual(x: Any) -> Any:
        wide = jnp.pad(x, 1)
        return (3 - 2 * x) * x - wide[:-2] - 2 * wide[2:] + 1

    return _problem(30, "Broyden tridiagonal", residual, -np.ones(n), 0.0, local)


def broyden_banded(n: int, local: Costs = ()) -> Classical:
    """Cubic, each unknown coupled to five before and one after it."""
    band = np.tri(n, k=1) - np.tri(n, k=-6) - np.eye(n)

    def residual(x: Any) -> Any:
        return x * (2 + 5 * x**2) + 1 - jnp.asarray(band, x.dtype) @ (x * (1 + x))

    return _problem(31, "Broyden banded", residual, -np.ones(n), 0.0, local)


def linear_full_rank(n: int, m: int) -> Classical:
    """Linear, of full rank, with `m - n` residuals that no unknown makes smaller."""

    def residual(x: Any) -> Any:
        return jnp.pad(x, (0, m - n)) - 2 / m * x.sum() - 1

    return _problem(32, "Linear, full rank", residual, np.ones(n), (m - n) / 2)


def linear_rank_one(n: int, m: int) -> Classical:
    """Linear, of rank 1."""

    def residual(x: Any) -> Any:
        s = jnp.arange(1, n + 1, dtype=x.dtype) @ x
        return jnp.arange(1, m + 1, dtype=x.dtype) * s - 1

    best = m * (m - 1) / (4 * (2 * m + 1))
    return _problem(33, "Linear, rank 1", residual, np.ones(n), best)


def linear_rank_one_zeros(n: int, m: int) -> Classical:
    """Linear, of rank 1, the first and last unknown and residual left out of it."""

    def residual(x: Any) -> Any:
        s = jnp.arange(2, n, dtype=x.dtype) @ x[1:-1]
        return jnp.pad(jnp.arange(1, m - 1, dtype=x.dtype) * s, 1) - 1

    best = (m**2 + 3 * m - 6) / (4 * (2 * m - 3))
    title = "Linear, rank 1, zero columns and rows"
    return _problem(34, title, residual, np.ones(n), best)


def chebyquad(n: int, m: int, best: float, local: Costs = ()) -> Classical:
    """Nodes of a quadrature of equal weights: averages of Chebyshev polynomials on [0, 1]."""
    i = np.arange(1, m + 1)
    integrals = np.where(i % 2, 0.0, -1 / np.where(i == 1, 1, i**2 - 1))

    def residual(x: Any) -> Any:
        y = 2 * x - 1
        rows = [jnp.ones_like(y), y]
        while len(rows) <= m:
            rows.append(2 * y * rows[-1] - rows[-2])
        return jnp.stack(rows[1:]).mean(axis=1) - jnp.asarray(integrals, x.dtype)

    return _problem(35, "Chebyquad", residual, _grid(n), best, local)


_TRIGONOMETRIC_10 = (2.236782906397e-07, 1.397528060939e-05, 2.109316943960e-05, 4.394112609110e-04)

# The paper's ½ is at (0, …, 0, n+1): the gradient is 0 there and the Hessian positive semidefinite,
# but terms of order n make it a degenerate saddle point on a plateau. It counts, as published.
_BROWN_10 = (0.5, 4.589500498929e-01, 9.206241830443e-01)
_BROWN_40 = (0.5, 6.044782164233e-01)

_TRIDIAGONAL_10 = (
    *(1.985396760089e-01, 1.986867344793e-01, 3.307847127625e-01, 3.317847116262e-01),
    *(3.562655189826e-01, 3.563030086563e-01, 4.394868106802e-01, 4.407212924595e-01),
    *(4.471906463625e-01, 4.874642804529e-01, 5.048655909911e-01, 5.107567723697e-01),
    *(5.143260178390e-01, 5.256130941918e-01, 5.470583975642e-01, 6.314300536547e-01),
    *(6.403070399701e-01, 6.581876533827e-01, 6.747680618706e-01, 6.801279523692e-01),
    *(7.262277120878e-01, 7.269446767258e-01, 7.609403128284e-01, 7.677673868545e-01),
    *(7.767859295430e-01, 8.026787553160e-01, 8.078300296086e-01, 8.213399086719e-01),
    *(8.475082435095e-01, 8.532400643778e-01, 9.732265194735e-01, 1.408336033995e00),
    1.641507388540e00,
)

_BANDED_10 = (1.340109960363e00, 1.528639216213e00, 6.296970903916e00, 6.428848303818e00)

# The first of these is the paper's value; a lower one is known.
_CHEBYQUAD_10 = (3.251977400441e-03, 4.750314425111e-03)


SCALABLE: tuple[Classical, ...] = (
    watson(6, 1.143835026776e-03),
    watson(9, 6.998800690416e-07),
    extended_rosenbrock(10),
    extended_powell_singular(12),
    penalty_1(4, 1.124988750450e-05),
    penalty_2(4, 4.688146503678e-06),
    variably_dimensioned(10),
    trigonometric(10, _TRIGONOMETRIC_10),
    brown_almost_linear(10, _BROWN_10),
    brown_almost_linear(40, _BROWN_40),
    discrete_boundary_value(10),
    discrete_integral_equation(10),
    broyden_tridiagonal(10, _TRIDIAGONAL_10),
    broyden_banded(10, _BANDED_10),
    linear_full_rank(5, 10),
    linear_full_rank(10, 30),
    linear_rank_one(5, 10),
    linear_rank_one_zeros(5, 10),
    chebyquad(8, 8, 1.758436862839e-03),
    chebyquad(10, 10, 2.386356848188e-03, _CHEBYQUAD_10),
)
