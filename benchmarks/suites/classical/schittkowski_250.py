"""Sums of squares of Schittkowski (1987), problems 250 to 299, without bounds or constraints.

Problems that are one of Moré, Garbow and Hillstrom's from the same start are left out: 256, 260,
and 286 and 288 in another order.  272 is one of theirs too, but kept for being hard.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ._problem import Classical


def _problem(number: int, title: str, residual: Any, start: Any, best: float, *local: float):
    source = f"Schittkowski 1987, problem {number}"
    start = tuple(float(s) for s in start)
    return Classical(f"tp{number}", title, source, residual, start, best, local)


def _cragg_levy(theta):
    a, b, c, d = theta
    return jnp.stack([(jnp.exp(a) - b) ** 2, 10 * (b - c) ** 3, jnp.tan(c - d) ** 2, a**4, d - 1])


# fmt: off
_CONSTANT = np.array(
    [
        0.0426149, 0.0352053, 0.0878058, 0.0330812, 0.0580924, 0.649704, 0.344144,
        -0.627443, 0.001828, -0.224783,
    ]
)
_CURVATURE = np.array(
    [
        2.34659, 2.84048, 1.12888, 3.02286, 1.72139, 0.153917, 0.290577, -0.159378, 54.691,
        -0.444873,
    ]
)
# fmt: on
_SLOPES = np.array(
    [
        [-0.564255, 0.392417, -0.404979, 0.927589, -0.0735084],
        [0.535493, 0.658799, -0.636666, -0.681091, -0.869487],
        [0.586387, 0.289826, 0.854402, 0.789312, 0.949721],
        [0.608734, 0.984915, 0.375699, 0.239547, 0.463136],
        [0.774227, 0.325421, -0.151719, 0.448051, 0.149926],
        [-0.435033, -0.688583, 0.222278, -0.524653, 0.413248],
        [0.759468, -0.627795, 0.0403142, 0.724666, -0.0182537],
        [-0.152448, -0.546437, 0.484134, 0.353951, 0.887866],
        [-0.821772, -0.53412, -0.798498, -0.658572, 0.662362],
        [0.819831, -0.910632, -0.480344, -0.871758, -0.978666],
    ]
)
_FORM = np.array(
    [
        [0.354033, -0.0230349, -0.211938, -0.0554288, 0.220429],
        [-0.0230349, 0.29135, -0.00180333, -0.111141, 0.0485461],
        [-0.211938, -0.00180333, 0.815808, -0.133538, -0.38067],
        [-0.0554288, -0.111141, -0.133538, 0.389198, -0.131586],
        [0.220429, 0.0485461, -0.38067, -0.131586, 0.534706],
    ]
)


def _mckeown_5(theta):
    constant, slopes, form, curvature = (
        jnp.asarray(array, theta.dtype) for array in (_CONSTANT, _SLOPES, _FORM, _CURVATURE)
    )
    return constant + slopes @ theta + 0.5 * (theta @ form @ theta) * curvature


def _biggs_data(t):
    return jnp.exp(-t) - 5 * jnp.exp(-10 * t) + 3 * jnp.exp(-4 * t)


def _biggs_5(theta):
    a, b, c, d, e = theta
    t = jnp.asarray(np.arange(1, 12) / 10, theta.dtype)
    fit = c * jnp.exp(-a * t) - d * jnp.exp(-b * t) + 3 * jnp.exp(-e * t)
    return fit - _biggs_data(t)


def _biggs_6(theta):
    t = jnp.asarray(np.arange(1, 14) / 10, theta.dtype)
    a, b, c = jnp.exp(-theta[:3, None] * t)
    return theta[3] * a - theta[4] * b + theta[5] * c - _biggs_data(t)


_MATRIX = np.array(
    [
        [-74, 80, 18, -11, -4],
        [14, -69, 21, 28, 0],
        [66, -72, -5, 7, 1],
        [-12, 66, -30, -23, 3],
        [3, 8, -7, -4, 1],
        [4, -12, 4, 4, 0],
    ]
)


def _linear(theta):
    right = jnp.asarray([51, -61, -56, 69, 10, -12], theta.dtype)
    return jnp.asarray(_MATRIX, theta.dtype) @ theta - right


def _four_of_five(theta):
    a, b, c, d, e = theta
    return jnp.stack([a - b, b + c - 2, d - 1, e - 1])


def _weighted(theta):
    weights = jnp.asarray(np.sqrt(160 - 10 * np.arange(1, 7)), theta.dtype)
    return weights * (theta - 1)


def _weighted_quartic(theta):
    linear = _weighted(theta)
    return jnp.append(linear, (linear @ linear) / 10**0.5)


def _hilbert(theta):
    """The upper factor of a Hilbert matrix, so that the squares sum to its quadratic form."""
    index = np.arange(theta.size)
    factor = np.linalg.cholesky(1 / (index[:, None] + index + 1)).T
    return jnp.asarray(factor, theta.dtype) @ theta


def _hilbert_start(p):
    return [-4 / i for i in range(1, p + 1)]


def _fading_valleys(theta):
    weights = jnp.asarray(np.sqrt(100 - 10 * np.arange(1, 10)), theta.dtype)
    valleys = weights * (theta[:-1] ** 2 - theta[1:])
    return jnp.concatenate([theta[:1] - 1, theta[-1:] - 1, valleys])


def _cubed_sum(theta):
    # With s = Σ i³(θ_i - 1)², the squares of s·√i³·(θ_i - 1) sum to s³.
    terms = jnp.asarray(np.arange(1, 11) ** 1.5, theta.dtype) * (theta - 1)
    return (terms @ terms) * terms


def _extended_wood(theta):
    a, b, c, d = theta.reshape(4, 5)
    return jnp.concatenate(
        [
            10 * (b - a**2),
            1 - a,
            90**0.5 * (d - c**2),
            1 - c,
            9.9**0.5 * (b + d - 2),
            0.2**0.5 * (b - 1),
            0.2**0.5 * (d - 1),
        ]
    )


def _squared_form(theta):
    weights = jnp.asarray(np.arange(1, theta.size + 1), theta.dtype)
    return (weights @ theta**2)[None]


def _chained_rosenbrock(theta):
    return jnp.concatenate([10 * (theta[1:] - theta[:-1] ** 2), 1 - theta[:-1]])


# The minima of 261 on the branches of the tangent, 0.355 and 0.815 on the two next to 0.
# fmt: off
_BRANCHES = (
    0.355048564, 0.814778793, 4.370872062, 7.396461176, 14.91412976, 22.15634643, 33.02400238,
    45.69045118, 59.18827739, 78.26352371, 93.69271396, 120.0279837, 136.7268205, 171.0839562,
    188.4264297, 231.5027403, 248.8942084, 301.3379592, 318.2108011, 380.6315678, 396.4414285,
    469.4173882, 483.6400565, 567.7233334, 579.8521657, 675.5728782, 685.1166676, 792.9860736,
    799.4672748, 919.9802701, 922.933509, 1055.541459, 1056.570647, 1197.314363, 1202.770613,
    1348.273064, 1358.592105, 1508.436372, 1524.045833, 1677.821353, 1699.141463, 1856.443566,
    1883.887772, 2044.317259, 2078.292767, 2241.455528, 2282.363788, 2447.870457, 2496.10759,
    2663.573229, 2719.530416, 2888.574224, 2952.638053, 3122.883105, 3195.435882, 3366.508888,
    3447.928924, 3619.460005, 3710.121874, 3881.744359, 3982.019134, 4153.36937, 4263.62484,
    4434.34202, 4554.94289, 4724.668888, 4855.976959, 5024.356184, 5166.730523, 5333.409779,
    5487.206875, 5651.835227, 5817.409137, 5979.637795, 6157.340278, 6316.82248, 6507.003121,
    6663.394028, 6866.400356, 7235.534551,
)
# fmt: on

_WOOD = [-3.0] * 5 + [-1.0] * 5
_ZIGZAG = (-1.2, 1.0)

TP250: tuple[Classical, ...] = (
    # Every branch of the tangent has a minimum of its own: here are the 40 nearest either way.
    _problem(261, "Cragg and Levy, from 0", _cragg_levy, (0,) * 4, 0.0, *_BRANCHES),
    _problem(266, "McKeown, five unknowns", _mckeown_5, (0.1,) * 5, 0.500000115683823),
    # 0.00748 and 0.10775 are flat, of two equal rates; 0.0743 and 0.1074 are infima, as two
    # rates become equal and their amplitudes go to ∓∞, the latter with the last rate going to ∞.
    _problem(
        267,
        "Biggs, five unknowns",
        _biggs_5,
        (2,) * 5,
        0.0,
        0.00125924342144042,
        0.0013249938657019,
        0.00748313069254225,
        0.0742954661901552,
        0.107378005655481,
        0.10775276077479,
    ),
    _problem(268, "linear, six equations", _linear, (1,) * 5, 0.0),
    _problem(269, "linear, four equations in five unknowns", _four_of_five, (2,) * 5, 0.0),
    _problem(271, "linear, diagonal", _weighted, (0,) * 6, 0.0),
    # 0.00283 and 0.153 are flat, of two and of three equal rates.  0.00223 and 0.0903 are infima:
    # as two rates go to ∞, and as all three become equal, with amplitudes going to ±∞.
    _problem(
        272,
        "Biggs, six unknowns",
        _biggs_6,
        (1, 2, 1, 1, 1, 1),
        0.0,
        0.00223406185879951,
        0.00282782496274985,
        0.0903086620120593,
        0.153183386312395,
    ),
    _problem(273, "diagonal and quartic", _weighted_quartic, (0,) * 6, 0.0),
    _problem(274, "Hilbert, two unknowns", _hilbert, _hilbert_start(2), 0.0),
    _problem(275, "Hilbert, four unknowns", _hilbert, _hilbert_start(4), 0.0),
    _problem(276, "Hilbert, six unknowns", _hilbert, _hilbert_start(6), 0.0),
    _problem(282, "fading valleys", _fading_valleys, (-1.2, *(0,) * 9), 0.0, 1.99219750895982),
    _problem(283, "a sum of squares cubed", _cubed_sum, (0,) * 10, 0.0),
    _problem(287, "Wood, extended", _extended_wood, _WOOD * 2, 0.0),
    _problem(290, "a form squared, two unknowns", _squared_form, (1,) * 2, 0.0),
    _problem(291, "a form squared, ten unknowns", _squared_form, (1,) * 10, 0.0),
    _problem(292, "a form squared, thirty unknowns", _squared_form, (1,) * 30, 0.0),
    _problem(
        294, "Rosenbrock, chain of 6", _chained_rosenbrock, _ZIGZAG * 3, 0.0, 1.98697025046515
    ),
    _problem(
        295, "Rosenbrock, chain of 10", _chained_rosenbrock, _ZIGZAG * 5, 0.0, 1.99328955617357
    ),
    _problem(
        296, "Rosenbrock, chain of 16", _chained_rosenbrock, _ZIGZAG * 8, 0.0, 1.9933119219269
    ),
    _problem(
        297, "Rosenbrock, chain of 30", _chained_rosenbrock, (-1.2,) * 30, 0.0, 1.99331192715047
    ),
    _problem(
        299, "Rosenbrock, chain of 100", _chained_rosenbrock, (-1.2,) * 100, 0.0, 1.99331192715047
    ),
)
