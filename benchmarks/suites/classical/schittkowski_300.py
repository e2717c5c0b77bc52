"""Sums of squares of Schittkowski (1987), problems 300 to 395, without bounds or constraints.

Problems that are one of Moré, Garbow and Hillstrom's are left out: 307, 334, 350, 354, 358, 370,
371 and 379.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ._problem import Classical


def _problem(number: int, title: str, residual: Any, start: Any, best: float, *local: float):
    source = f"Schittkowski 1987, problem {number}"
    start = tuple(float(s) for s in start)
    return Classical(f"tp{number}", title, source, residual, start, best, local)


def _zakharov(theta):
    total = jnp.asarray(np.arange(1, theta.size + 1) / 2, theta.dtype) @ theta
    return jnp.concatenate([theta, jnp.stack([total, total**2])])


def _waves(theta):
    x, y = theta
    return jnp.stack([x**2 + x * y + y**2, jnp.sin(x), jnp.cos(y)])


def _product(theta):
    x, y = theta
    return jnp.stack([x * y * (1 - x) * (1 - x - y * (1 - x) ** 5)])


def _himmelblau(theta):
    x, y = theta
    return jnp.stack([x**2 + y - 11, x + y**2 - 7])


def _two_conics(theta):
    x, y = theta
    return jnp.stack([x**2 + 12 * y - 1, 49 * (x**2 + y**2) + 84 * x + 2324 * y - 681])


_DECAY_TIME = np.array([4, 5.75, 7.5, 24, 32, 48, 72, 96])
_DECAY = np.array([72.1, 65.6, 55.9, 17.1, 9.8, 4.5, 1.3, 0.6])


def _decay(theta):
    height, rate, floor = theta
    t, y = jnp.asarray(_DECAY_TIME, theta.dtype), jnp.asarray(_DECAY, theta.dtype)
    return (y - height * jnp.exp(-rate * t) - floor) / y


_DOSE = np.array([0, 0.000428, 0.001, 0.00161, 0.00209, 0.00348, 0.00525])
_RESPONSE = np.array([7.391, 11.18, 16.44, 16.2, 22.2, 24.02, 31.32])


def _rational(theta):
    a, b, c, d = theta**2
    x, y = jnp.asarray(_DOSE, theta.dtype), jnp.asarray(_RESPONSE, theta.dtype)
    return 100 * ((a + b * x + c * x**2) / (1 + d * x) / y - 1)


def _two_lines(theta):
    a, b, c, d = theta
    t = jnp.asarray(np.arange(1, 21) / 5, theta.dtype)
    return jnp.concatenate([a + b * t - jnp.exp(t), c + d * jnp.sin(t) - jnp.cos(t)])


def _two_equations(theta):
    a, b, c, d = theta
    return jnp.stack([11 + d * (c - a - b), a + 10 * b - c + d + b * d * (c - a)])


_YIELD = np.array([127, 151, 379, 421, 460, 426])


def _growth(theta):
    level, height, rate = theta
    t, y = jnp.asarray(np.arange(-5, 6, 2), theta.dtype), jnp.asarray(_YIELD, theta.dtype)
    return level + height * jnp.exp(rate * t) - y


def _quartic_form(theta):
    root = jnp.asarray(np.sqrt(np.arange(1, theta.size + 1)), theta.dtype)
    return jnp.concatenate([root * theta, root * theta**2])


TP300: tuple[Classical, ...] = (
    _problem(303, "Zakharov, 20 unknowns", _zakharov, (0.1,) * 20, 0.0),
    _problem(304, "Zakharov, 50 unknowns", _zakharov, (0.1,) * 50, 0.0),
    _problem(305, "Zakharov, 100 unknowns", _zakharov, (0.1,) * 100, 0.0),
    _problem(308, "a form and two waves", _waves, (3, 0.1), 0.386599528246462),
    _problem(310, "a product", _product, (-1.2, 1), 0.0),
    _problem(311, "Himmelblau", _himmelblau, (1, 1), 0.0),
    _problem(312, "a parabola and a circle", _two_conics, (1, 1), 0.0, 2.96128138062201),
    # The other cost is an infimum: as the rate goes to 0 from below, the fit becomes a line.
    _problem(
        333, "decay, relative errors", _decay, (30, 0.04, 3), 0.0216351770185155, 1.7982771239827
    ),
    _problem(351, "rational, relative errors", _rational, (2.7, 90, 1500, 10), 159.285874395562),
    _problem(352, "two lines", _two_lines, (25, 5, -5, -1), 451.617165898209),
    # From the bounds that the book sets: 0, its own value for all, is stationary without them.
    _problem(355, "two equations in four unknowns", _two_equations, (0.1, 0.1, 0, 0), 20.0),
    # The six slacks, each fixed by an equation of its own, are eliminated.
    # The other cost is an infimum, the fit of a line, as the rate goes to 0 from above.
    _problem(373, "growth", _growth, (300, -100, -0.1997), 6695.04655973978, 11636.2666666667),
    _problem(394, "a quartic form, 20 unknowns", _quartic_form, (2,) * 20, 0.0),
    _problem(395, "a quartic form, 50 unknowns", _quartic_form, (2,) * 50, 0.0),
)
