"""Sums of squares of Hock and Schittkowski (1981), with bounds and constraints left out."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ._problem import Classical

_BOOK = "Hock and Schittkowski 1981"


def _problem(number: int, title: str, residual: Any, start: Any, best: float, *local: float):
    source = f"{_BOOK}, problem {number}"
    start = tuple(float(s) for s in start)
    return Classical(f"hs{number:02d}", title, source, residual, start, best, local)


def _rosenbrock(theta):
    x, y = theta
    return jnp.stack([10 * (y - x**2), 1 - x])


# hs25: u_i solves exp(-(u - 25)^{3/2} / 50) = i/100.
_LEVELS = np.arange(1, 100) / 100
_ABSCISSAE = 25 + (-50 * np.log(_LEVELS)) ** (2 / 3)


def _weibull(theta):
    scale, shift, power = theta
    u, y = jnp.asarray(_ABSCISSAE, theta.dtype), jnp.asarray(_LEVELS, theta.dtype)
    return jnp.exp(-((u - shift) ** power) / scale) - y


def _flat_quartic(theta):
    x, y, z = theta
    return jnp.stack([x - y, (y - z) ** 2])


def _two_sums(theta):
    return theta[:-1] + theta[1:]


def _up_to_the_sixth(theta):
    a, b, c, d, e = theta
    return jnp.stack([a - b, c - 1, (d - 1) ** 2, (e - 1) ** 3])


def _chained_quartic(theta):
    a, b, c, d, e = theta
    return jnp.stack([a - b, b - c, (c - d) ** 2, d - e])


# hs57: the chlorine left in a product after so many weeks; the ages are runs of even numbers.
_AGE = np.repeat(
    np.arange(8.0, 43.0, 2.0),
    [2, 4, 4, 3, 3, 2, 3, 3, 3, 3, 2, 3, 2, 1, 2, 2, 1, 1],
)
# fmt: off
_CHLORINE = np.array(
    [
        0.49, 0.49, 0.48, 0.47, 0.48, 0.47, 0.46, 0.46, 0.45, 0.43, 0.45, 0.43, 0.43, 0.44,
        0.43, 0.43, 0.46, 0.45, 0.42, 0.42, 0.43, 0.41, 0.41, 0.4, 0.42, 0.4, 0.4, 0.41,
        0.4, 0.41, 0.41, 0.4, 0.4, 0.4, 0.38, 0.41, 0.4, 0.4, 0.41, 0.38, 0.4, 0.4, 0.39,
        0.39,
    ]
)
# fmt: on


def _chlorine(theta):
    floor, rate = theta
    age, left = jnp.asarray(_AGE, theta.dtype), jnp.asarray(_CHLORINE, theta.dtype)
    return left - floor - (0.49 - floor) * jnp.exp(-rate * (age - 8))


def _distances(theta):
    x, y, z = theta
    return jnp.stack([x - 1, x - y, (y - z) ** 2])


# hs70: a flood's hydrograph, hour by hour, as a mixture of two gamma densities.
_HOURS = np.concatenate([[0.1], np.arange(1.0, 19.0)])
# fmt: off
_FLOW = np.array(
    [
        0.00189, 0.1038, 0.268, 0.506, 0.577, 0.604, 0.725, 0.898, 0.947, 0.845, 0.702,
        0.528, 0.385, 0.257, 0.159, 0.0869, 0.0453, 0.01509, 0.00189,
    ]
)
# fmt: on


def _gamma_density(order, rate, time):
    # Γ by Stirling's formula with its first correction, and π as the book has it.
    height = rate**order * jnp.sqrt(order / 6.2832) / (1 + 1 / (12 * order))
    return height * time ** (order - 1) * jnp.exp(order * (1 - rate * time))


def _hydrograph(theta):
    slow, fast, share, ratio = theta
    time = jnp.asarray(_HOURS / 7.658, theta.dtype)
    rate = share + (1 - share) * ratio
    flow = share * _gamma_density(fast, rate, time)
    flow = flow + (1 - share) * _gamma_density(slow, rate / ratio, time)
    return flow - jnp.asarray(_FLOW, theta.dtype)


def _sixth_powers(theta):
    a, b, c, d, e = theta
    return jnp.stack([a - 1, a - b, c - 1, (d - 1) ** 2, (e - 1) ** 3])


def _chained_distances(theta):
    a, b, c, d, e = theta
    return jnp.stack([a - 1, a - b, b - c, (c - d) ** 2, (d - e) ** 2])


HS: tuple[Classical, ...] = (
    # hs02 is the same once its bound has gone.
    _problem(1, "Rosenbrock", _rosenbrock, (-2, 1), 0.0),
    # Beyond the least abscissa, as at ten times the start, the derivative in the power is NaN.
    _problem(25, "Weibull distribution", _weibull, (100, 12.5, 3), 0.0),
    _problem(26, "linear and quartic valley", _flat_quartic, (-2.6, 2, 2), 0.0),
    _problem(28, "two sums of three", _two_sums, (-4, 1, 1), 0.0),
    _problem(46, "up to the sixth", _up_to_the_sixth, (0.5**0.5, 1.75, 0.5, 2, 2), 0.0),
    _problem(49, "up to the sixth, from afar", _up_to_the_sixth, (10, 7, 2, -3, 0.8), 0.0),
    _problem(50, "chained differences", _chained_quartic, (35, -31, 11, 5, -5), 0.0),
    # The second is an infimum: as the rate goes to 0 from below, the fit becomes a line.
    _problem(57, "chlorine left", _chlorine, (0.42, 5), 0.00250083980222207, 0.00964285934608266),
    _problem(60, "distances, one squared", _distances, (2, 2, 2), 0.0),
    # The book misprints the correction to Stirling's formula, which divides.
    # The second and fifth are infima as the two densities become one and the share goes to -∞.
    _problem(
        70,
        "flood hydrograph",
        _hydrograph,
        (2, 4, 0.04, 2),
        0.00374923178721379,
        0.00527337436821913,
        0.0343267955861579,
        0.0467184693443403,
        0.0629035325913658,
        0.0764322334167649,
        0.0899039530223026,
        0.0931600199707935,
    ),
    _problem(77, "up to the sixth, square", _sixth_powers, (2,) * 5, 0.0),
    _problem(79, "chained distances", _chained_distances, (2,) * 5, 0.0),
)
