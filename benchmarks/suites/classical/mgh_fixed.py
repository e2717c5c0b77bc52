"""Problems 1 to 19 of Moré, Garbow and Hillstrom: those of fixed dimension.

The paper gives `‖r‖²`; `best` and `local` here are half of it. A local minimum is listed if its
gradient vanishes and its Hessian is positive (semi)definite. An infimum at infinity is listed if
the cost falls towards it; plateaus, where it falls on coming back from infinity, are not. The lists
are of what many random starts found, so a longer search may add to them.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ._problem import Classical

_PAPER = "Moré, Garbow and Hillstrom, ACM TOMS 7 (1981), problem"


def _freudenstein_roth(x: Any) -> Any:
    a, b = x
    return jnp.stack([a - 13 + ((5 - b) * b - 2) * b, a - 29 + ((b + 1) * b - 14) * b])


def _powell_badly_scaled(x: Any) -> Any:
    a, b = x
    return jnp.stack([1e4 * a * b - 1, jnp.exp(-a) + jnp.exp(-b) - 1.0001])


def _beale(x: Any) -> Any:
    goal = jnp.asarray([1.5, 2.25, 2.625], x.dtype)
    b = x[1]
    return goal - x[0] * jnp.stack([1 - b, 1 - b**2, 1 - b**3])


def _jennrich_sampson(x: Any) -> Any:
    i = jnp.arange(1, 11, dtype=x.dtype)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def _helical_valley(x: Any) -> Any:
    """The angle jumps at the negative second axis, where the paper's arctangent does."""
    a, b, c = x
    turn = 0.25 + jnp.arctan2(-a, b) / (2 * np.pi)
    return jnp.stack([10 * (c - 10 * turn), 10 * (jnp.sqrt(a**2 + b**2) - 1), c])


_BARD = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.1, 4.39]


def _bard(x: Any) -> Any:
    y = jnp.asarray(_BARD, x.dtype)
    u = jnp.arange(1, 16, dtype=x.dtype)
    v = 16 - u
    return y - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


_BELL = [0.0009, 0.0044, 0.0175, 0.054, 0.1295, 0.242, 0.3521]


def _gaussian(x: Any) -> Any:
    y = jnp.asarray([*_BELL, 0.3989, *_BELL[::-1]], x.dtype)
    t = jnp.asarray((8 - np.arange(1, 16)) / 2, x.dtype)
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


_MEYER = [
    *(34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744),
    *(8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872),
]


def _meyer(x: Any) -> Any:
    t = 45 + 5 * jnp.arange(1, 17, dtype=x.dtype)
    return x[0] * jnp.exp(x[1] / (t + x[2])) - jnp.asarray(_MEYER, x.dtype)


def _gulf(x: Any) -> Any:
    """With `m = 99`, as is usual: the last of 100 terms has no derivative at the solution."""
    t = np.arange(1, 100) / 100
    y = jnp.asarray(25 + (-50 * np.log(t)) ** (2 / 3), x.dtype)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - jnp.asarray(t, x.dtype)


def _box(x: Any) -> Any:
    t = np.arange(1, 11) / 10
    shape = jnp.asarray(np.exp(-t) - np.exp(-10 * t), x.dtype)
    t = jnp.asarray(t, x.dtype)
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * shape


def _powell_singular(x: Any) -> Any:
    a, b, c, d = x
    return jnp.stack([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


def _wood(x: Any) -> Any:
    a, b, c, d = x
    return jnp.stack(
        [
            10 * (b - a**2),
            1 - a,
            90**0.5 * (d - c**2),
            1 - c,
            10**0.5 * (b + d - 2),
            (b - d) / 10**0.5,
        ]
    )


_KOWALIK = [0.1957, 0.1947, 0.1735, 0.16, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
_KOWALIK_U = [4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]


def _kowalik_osborne(x: Any) -> Any:
    y, u = jnp.asarray(_KOWALIK, x.dtype), jnp.asarray(_KOWALIK_U, x.dtype)
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def _brown_dennis(x: Any) -> Any:
    t = np.arange(1, 21) / 5
    exp, sin, cos = (jnp.asarray(f(t), x.dtype) for f in (np.exp, np.sin, np.cos))
    t = jnp.asarray(t, x.dtype)
    return (x[0] + t * x[1] - exp) ** 2 + (x[2] + x[3] * sin - cos) ** 2


_OSBORNE_1 = [
    *(0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751),
    *(0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490),
    *(0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406),
]


def _osborne_1(x: Any) -> Any:
    t = 10 * jnp.arange(33, dtype=x.dtype)
    model = x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4])
    return jnp.asarray(_OSBORNE_1, x.dtype) - model


def _biggs_exp6(x: Any) -> Any:
    t = np.arange(1, 14) / 10
    y = jnp.asarray(np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t), x.dtype)
    t = jnp.asarray(t, x.dtype)
    first, second, third = x[2] * jnp.exp(-t * x[0]), x[3] * jnp.exp(-t * x[1]), jnp.exp(-t * x[4])
    return first - second + x[5] * third - y


_OSBORNE_2 = [
    *(1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608),
    *(0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661),
    *(0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428),
    *(0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559),
    *(0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054),
]


def _osborne_2(x: Any) -> Any:
    t = jnp.arange(65, dtype=x.dtype) / 10
    bells = jnp.exp(-((t[:, None] - x[8:]) ** 2) * x[5:8])
    return jnp.asarray(_OSBORNE_2, x.dtype) - x[0] * jnp.exp(-t * x[4]) - bells @ x[1:4]


def _brown_badly_scaled(x: Any) -> Any:
    a, b = x
    return jnp.stack([a - 1e6, b - 2e-6, a * b - 2])


def _rosenbrock(x: Any) -> Any:
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


# At infinity: x₁ = 10⁻⁴/x₂ as x₂ grows, which leaves e⁻ˣ¹ - 1.0001 = -10⁻⁴. Then a minimum.
_POWELL_LOCAL = (5e-9, 5.201470019808e-01)

# At infinity: x₁ falls without bound and x₂ tends to 1, so that residuals are y - c (1, 2, 3).
_BEALE_LOCAL = ((14.203125 - 13.875**2 / 14) / 2,)

_BARD_LOCAL = (
    # Between poles of the fraction.
    *(4.663876219492e-01, 5.019102934110e-01, 8.874633889076e-01, 9.431374067957e-01),
    *(1.144952909278e00, 1.181458148596e00),
    # At infinity: x₂ and x₃ grow with x₂ + x₃ kept finite, and i ≥ 8 alone sees a fraction.
    5.739922780797e-02,
    # At infinity: one of the first seven data is fitted exactly, the others by their mean.
    *(8.451346428571e00, 8.480517857143e00, 8.507975000000e00, 8.527442857143e00),
    *(8.551900000000e00, 8.569117857143e00, 8.585371428571e00),
    # At infinity: x₂ and x₃ fall without bound, and all data are fitted by their mean (paper).
    8.714346666667e00,
)

# Minima between the kinks at x₂ = yᵢ. The plateaus of exponentials 0 or 1 are none.
_GULF_LOCAL = (
    *(2.670546719774e00, 3.645520753595e00, 3.715522739780e00, 3.778587606928e00),
    *(3.834934946222e00, 3.836206222575e00, 3.892060752591e00, 3.993016865536e00),
    4.005466252065e00,
)

_KOWALIK_LOCAL = (
    # Between poles and zeros of the fraction.
    *(2.118373132349e-04, 7.971760130110e-04, 8.114777575322e-04, 8.136427105805e-04),
    *(8.180098533508e-04, 8.242621440437e-04, 8.696100256788e-04, 3.556472713859e-02),
    *(4.536283144741e-02, 4.766119189640e-02, 4.916792676563e-02, 5.157923877383e-02),
    *(5.209326099280e-02, 5.249177076251e-02, 5.258865054312e-02),
    # At infinity: x₁, x₃ and x₄ grow in proportion. The first is the paper's; the others have a
    # pole between data.
    *(5.136715243477e-04, 1.515125591009e-02, 1.710037260883e-02, 2.076670628109e-02),
    *(2.165249723412e-02, 2.229497416501e-02, 2.266895269216e-02, 2.270378054950e-02),
    # At infinity: x₁ rises to 0 as x₂ falls without bound, their product kept.
    4.723156479709e-04,
)

# At infinity: x₁ and x₂ grow with opposite signs as x₄ tends to 0, which leaves a straight line.
_OSBORNE_1_LOCAL = (1.7600841909514e-02, 2.9324828079864e-02)

_BIGGS_LOCAL = (
    # Two exponentials merged in one: x₁ = x₂ (paper).
    2.827824962750e-03,
    # At infinity: x₂ and x₅, x₄ and x₆ grow; two exponentials fit the first two data alone.
    2.234061858800e-03,
    # At infinity: the three rates meet and their factors grow, which leaves a quadratic times eᵃᵗ.
    9.03086620121e-02,
)

# The costs with bells far outside the data, as 0.894906793 with all three there, are plateaus.
_OSBORNE_2_LOCAL = (
    *(4.379736204671e-02, 4.414832660772e-02, 5.680367390452e-02, 5.953704893411e-02),
    *(6.204896893057e-02, 7.684276944908e-02, 7.914049525374e-02, 1.012825979518e-01),
    *(1.060027863688e-01, 1.283104093637e-01, 1.373427745686e-01, 1.506087961489e-01),
    *(1.522036433566e-01, 1.522531943546e-01, 1.546605712373e-01, 1.550193932221e-01),
    *(1.646409393243e-01, 2.225247584941e-01, 2.677851283582e-01, 2.686027457290e-01),
)


def _fixed(
    number: int,
    title: str,
    residual: Any,
    start: tuple[float, ...],
    best: float = 0.0,
    local: tuple[float, ...] = (),
) -> Classical:
    start = tuple(float(s) for s in start)
    return Classical(f"mgh{number:02}", title, f"{_PAPER} {number}", residual, start, best, local)


FIXED: tuple[Classical, ...] = (
    _fixed(1, "Rosenbrock", _rosenbrock, (-1.2, 1)),
    # The root is (5, 4); the other minimum is the paper's.
    _fixed(2, "Freudenstein and Roth", _freudenstein_roth, (0.5, -2), 0.0, (2.449212683962e01,)),
    _fixed(3, "Powell badly scaled", _powell_badly_scaled, (0, 1), 0.0, _POWELL_LOCAL),
    _fixed(4, "Brown badly scaled", _brown_badly_scaled, (1, 1)),
    _fixed(5, "Beale", _beale, (1, 1), 0.0, _BEALE_LOCAL),
    # 129.790095 as x₂ → -∞, and 1010 as both do, are plateaus: the cost falls on coming back.
    _fixed(6, "Jennrich and Sampson", _jennrich_sampson, (0.3, 0.4), 6.218109117781e01),
    _fixed(7, "Helical valley", _helical_valley, (-1, 0, 0)),
    _fixed(8, "Bard", _bard, (1, 1, 1), 4.107438653289e-03, _BARD_LOCAL),
    # A bell so narrow that it sees one datum or two, or none, is a plateau.
    _fixed(9, "Gaussian", _gaussian, (0.4, 1, 0), 5.639663848092e-09),
    _fixed(10, "Meyer", _meyer, (0.02, 4000, 250), 4.397292758516e01),
    _fixed(11, "Gulf research and development", _gulf, (5, 2.5, 0.15), 0.0, _GULF_LOCAL),
    # 0.0377943704 as x₁ or x₂ → ∞ is a plateau: the cost falls on coming back.
    _fixed(12, "Box three-dimensional", _box, (0, 10, 20)),
    _fixed(13, "Powell singular", _powell_singular, (3, -1, 0, 1)),
    _fixed(14, "Wood", _wood, (-3, -1, -3, -1)),
    _fixed(
        15,
        "Kowalik and Osborne",
        _kowalik_osborne,
        (0.25, 0.39, 0.415, 0.39),
        1.537528019246e-04,
        _KOWALIK_LOCAL,
    ),
    _fixed(16, "Brown and Dennis", _brown_dennis, (25, 5, -5, -1), 4.291110081318e04),
    _fixed(
        17,
        "Osborne 1",
        _osborne_1,
        (0.5, 1.5, -1, 0.01, 0.02),
        2.732447348741e-05,
        _OSBORNE_1_LOCAL,
    ),
    # 0.153183305 as x₂ → ∞ is a plateau: the cost falls on coming back with x₄ > 0.
    _fixed(18, "Biggs EXP6", _biggs_exp6, (1, 2, 1, 1, 1, 1), 0.0, _BIGGS_LOCAL),
    _fixed(
        19,
        "Osborne 2",
        _osborne_2,
        (1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5),
        2.006886814677e-02,
        _OSBORNE_2_LOCAL,
    ),
)
