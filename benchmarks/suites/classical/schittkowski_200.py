"""Sums of squares of Schittkowski (1987), problems 201 to 249, without bounds or constraints.

Problems that are one of Moré, Garbow and Hillstrom's from the same start are left out: 208, 245.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ._problem import Classical


def _problem(number: int, title: str, residual: Any, start: Any, best: float, *local: float):
    source = f"Schittkowski 1987, problem {number}"
    start = tuple(float(s) for s in start)
    return Classical(f"tp{number}", title, source, residual, start, best, local)


def _quadratic(theta):
    x, y = theta
    return jnp.stack([2 * (x - 5), y - 6])


def _freudenstein_roth(theta):
    x, y = theta
    return jnp.stack([x - 13 + ((5 - y) * y - 2) * y, x - 29 + ((y + 1) * y - 14) * y])


def _beale(theta):
    x, y = theta
    powers = jnp.stack([y, y**2, y**3])
    return jnp.asarray([1.5, 2.25, 2.625], theta.dtype) - x * (1 - powers)


def _mckeown(theta, constant, slopes, form, curvature):
    """A line through the constants, and one quadratic form that bends each by its own amount."""
    constant, slopes, form, curvature = (
        jnp.asarray(array, theta.dtype) for array in (constant, slopes, form, curvature)
    )
    return constant + slopes @ theta + 0.5 * (theta @ form @ theta) * curvature


_MCKEOWN_2 = partial(
    _mckeown,
    constant=np.array([0.13294, -0.244378, 0.325895]),
    slopes=np.array([[-0.564255, 0.392417], [-0.404979, 0.927589], [-0.0735084, 0.535493]]),
    form=np.array([[5.66598, 2.77141], [2.77141, 2.12413]]),
    curvature=np.array([2.5074, -1.36401, 1.02282]),
)

_MCKEOWN_3 = partial(
    _mckeown,
    constant=np.array([0.14272, -0.184981, -0.521869, -0.685306]),
    slopes=np.array(
        [
            [-0.564255, 0.392417, -0.404979],
            [0.927589, -0.0735083, 0.535493],
            [0.658799, -0.636666, -0.681091],
            [-0.869487, 0.586387, 0.289826],
        ]
    ),
    form=np.array(
        [[2.95137, 4.87407, -2.0506], [4.87407, 9.39321, -3.93189], [-2.0506, -3.93189, 2.64745]]
    ),
    curvature=np.array([1.75168, -1.35195, -0.479048, -0.3648]),
)


def _valley(theta, across, along, power):
    """Rosenbrock's valley, of other depths and along another curve."""
    x, y = theta
    return jnp.stack([across * (y - x**power), along * (1 - x)])


def _circle_and_lines(theta):
    x, y = theta
    line = 4 * (x + y)
    return jnp.stack([line, line + (x - y) * ((x - 2) ** 2 + y**2 - 1)])


def _eighth_power(theta):
    x, y = theta
    return jnp.stack([(10 * (x - y) ** 2 + (x - 1) ** 2) ** 2])


def _differences(theta):
    return theta.sum() - 2 * jnp.flip(theta)


def _five_equations(theta):
    x, y, z = theta
    return jnp.stack(
        [
            x**2 + y**2 + z**2 - 1,
            x**2 + y**2 + (z - 2) ** 2 - 1,
            x + y + z - 1,
            x + y - z + 1,
            x**3 + 3 * y**2 + (5 * z - x + 1) ** 2 - 36,
        ]
    )


_TENTHS = np.arange(1, 11) / 10


def _box(theta):
    a, b, c = theta
    t = jnp.asarray(_TENTHS, theta.dtype)
    return jnp.exp(-a * t) - jnp.exp(-b * t) - c * (jnp.exp(-t) - jnp.exp(-10 * t))


def _biggs_3(theta):
    a, b, c = theta
    t = jnp.asarray(_TENTHS, theta.dtype)
    return jnp.exp(-a * t) - c * jnp.exp(-b * t) - jnp.exp(-t) + 5 * jnp.exp(-10 * t)


def _mean_valley(theta):
    x, y, z = theta
    return jnp.stack([10 * (z - ((x + y) / 2) ** 2), 1 - x, 1 - y])


_ROSENBROCK = (-1.2, 1)

TP200: tuple[Classical, ...] = (
    _problem(201, "quadratic", _quadratic, (8, 9), 0.0),
    # 202, 203 and 205 are known functions from starts of their own.
    _problem(202, "Freudenstein and Roth", _freudenstein_roth, (15, -2), 0.0, 24.49212683962),
    # The other cost is an infimum: y → 1, with (1 - y)·x held.
    _problem(203, "Beale, from nearby", _beale, (2, 0.2), 0.0, 0.226004464285714),
    _problem(204, "McKeown, two unknowns", _MCKEOWN_2, (0.1, 0.1), 0.0918006007544968),
    _problem(205, "Beale, from 0", _beale, (0, 0), 0.0, 0.226004464285714),
    _problem(
        206, "a shallow valley", partial(_valley, across=1, along=10, power=2), _ROSENBROCK, 0.0
    ),
    _problem(207, "an even valley", partial(_valley, across=1, along=1, power=2), _ROSENBROCK, 0.0),
    _problem(
        209, "a steep valley", partial(_valley, across=100, along=1, power=2), _ROSENBROCK, 0.0
    ),
    _problem(
        210, "a steeper valley", partial(_valley, across=1000, along=1, power=2), _ROSENBROCK, 0.0
    ),
    _problem(
        211, "a cubic valley", partial(_valley, across=10, along=1, power=3), _ROSENBROCK, 0.0
    ),
    _problem(212, "a circle and two lines", _circle_and_lines, (2, 0), 0.0),
    _problem(213, "an eighth power", _eighth_power, (3, 1), 0.0),
    _problem(240, "three differences", _differences, (100, -1, 2.5), 0.0),
    _problem(
        241, "five equations in three unknowns", _five_equations, (1, 2, 0), 0.0, 56.1365845628453
    ),
    _problem(242, "Box, from another start", _box, (2.5, 10, 10), 0.0),
    _problem(243, "McKeown, three unknowns", _MCKEOWN_3, (0.1, 0.1, 0.1), 0.398289266900225),
    # The last is an infimum as the first rate goes to ∞.
    _problem(
        244, "Biggs, three unknowns", _biggs_3, (1, 2, 1), 0.0, 0.683234239967217, 0.791487527302688
    ),
    _problem(246, "a valley over a mean", _mean_valley, (-1.2, 2, 0), 0.0),
)
