"""The problem of the main job: real terrain from scattered samples, by a trained RBF network.

The network starts as a linear fit, a ridge regression on Gaussians of several widths, and then
trains everything: centres, widths, skews and weights. The parameters are counted from that start
in units in which they are all of order one, so that the shortest step that explains the
data, which is what the dual form finds, is also a smooth one. No other regularisation is
needed, although there are many more parameters than samples.
"""

import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._model.metric import PowerMetric
from .._problem.residual.declared import Rows
from .._solve.callback.base import AbstractCallback
from .._solve.solution import Solution
from .._solve.solve import solve
from .._step.levenberg_marquardt import LevenbergMarquardt
from .._step.rules.damping.multiplicative import Nielsen
from .._step.rules.termination import Termination

Params = dict[str, Array]

PARAMETERS_PER_CENTRE = 6

_KM_PER_DEGREE = 111.2  # of latitude, on the sphere

# The start, chosen by the held-out error at 1000 and 2000 samples, with the seeds 0 and 1.
_FINE_SHARE = 1 / 1.75  # of the centres lie on samples; the rest are coarser, quasi-random
_FINE_WIDTH = 0.45  # in mean sample spacings
_OCTAVES = 4  # coarser levels, each of twice the width and a quarter of the centres
_OVERLAP = 0.65  # width of a coarse level in its own spacings
_ROUGHNESS = 0.7  # amplitudes grow as width^roughness, as those of a rough fractal surface
_SHIFT = 0.6  # a unit of a centre's parameters, in widths
_STRETCH = 0.6  # a unit of a log-width's or a skew's parameter
_NOISE = 0.3  # of the starting ridge fit, in standard deviations of the elevation
# λ₀ over λmax(K). It acts as a prior: with 1e-5 the first steps are so long that the Gaussians
# stretch into streaks, and the held-out RMSE at 2000 samples was 51 m instead of 44 m.
_FIRST_DAMPING = 1e-2


class Terrain(NamedTuple):
    """A digital elevation model on a grid.

    **Attributes:** `elevation` (rows, columns), metres, north first; `x` (columns,) and `y`
    (rows,), kilometres eastwards and northwards from the south-western corner.
    """

    elevation: Float[np.ndarray, "rows columns"]
    x: Float[np.ndarray, " columns"]
    y: Float[np.ndarray, " rows"]

    @property
    def points(self) -> Float[np.ndarray, "grid 2"]:
        """All grid points, km, row by row."""
        x, y = np.meshgrid(self.x, self.y)
        return np.stack([x.ravel(), y.ravel()], axis=1)


class Samples(NamedTuple):
    """Scattered samples of a terrain.

    **Attributes:** `positions` (n,), places in the flattened grid; `points` (n, 2), km;
    `elevation` (n,), metres.
    """

    positions: np.ndarray
    points: Float[np.ndarray, "n 2"]
    elevation: Float[np.ndarray, " n"]


def load_terrain() -> Terrain:
    """The Jacksboro fault elevation model that comes with matplotlib: 344 × 403 points."""
    from matplotlib.cbook import get_sample_data

    with np.load(str(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False))) as file:
        elevation = np.asarray(file["elevation"], float)
        dx, dy = float(file["dx"]), float(file["dy"])
        # `ymin` and `ymax` of the file are the northern and the southern edge.
        latitude = 0.5 * (float(file["ymin"]) + float(file["ymax"]))
    rows, columns = elevation.shape
    x = np.arange(columns) * dx * _KM_PER_DEGREE * np.cos(np.deg2rad(latitude))
    y = np.arange(rows)[::-1] * dy * _KM_PER_DEGREE
    return Terrain(elevation, x, y)


def draw_samples(terrain: Terrain, count: int, seed: int) -> Samples:
    """`count` different grid points, drawn uniformly."""
    index = np.random.default_rng(seed).permutation(terrain.elevation.size)[:count]
    return Samples(index, terrain.points[index], terrain.elevation.ravel()[index])


class Network(eqx.Module):
    """`f(x) = Σ_k s_k w_k exp(−½‖L_k (x − c_k)‖²)`, a sum of m skewed anisotropic Gaussians.

    A pytree of parameters has the leaves `centre` (m, 2), `log_width` (m, 2), `skew` (m,) and
    `weight` (m,), pure numbers that are all zero at the start, but for the weights. With the
    starting centre c⁰ and width ρ, and e = (x − c⁰)/ρ − shift·`centre`, the exponent is made of

        a = e₁ exp(−stretch·log_width₁)
        b = (e₂ + stretch·skew·e₁) exp(−stretch·log_width₂),

    so that every ellipse can be reached, and none is degenerate.

    **Attributes:** `centre` (m, 2) and `width` (m,), km; `amplitude` (m,), a pure number.
    """

    centre: Float[Array, "m 2"]
    width: Float[Array, " m"]
    amplitude: Float[Array, " m"]

    def __call__(self, params: Params, point: Float[Array, " 2"]) -> Float[Array, ""]:
        """The standardised elevation at a point (2,), km."""
        e = (point - self.centre) / self.width[:, None] - _SHIFT * params["centre"]
        shrink = jnp.exp(-_STRETCH * params["log_width"])
        a = e[:, 0] * shrink[:, 0]
        b = (e[:, 1] + _STRETCH * params["skew"] * e[:, 0]) * shrink[:, 1]
        return jnp.sum(self.amplitude * params["weight"] * jnp.exp(-0.5 * (a * a + b * b)))


class Misfit(eqx.Module):
    """The residual of one sample: predicted minus measured, standardised."""

    network: Network

    def __call__(self, params: Params, sample: dict[str, Array]) -> Float[Array, ""]:
        return self.network(params, sample["point"]) - sample["elevation"]


class Fit(NamedTuple):
    """A trained network.

    **Attributes:** `network` and `solution`; `mean` and `scale`, metres, which turn standardised
    elevations back; `start_seconds` for the linear start and `seconds` for the solve, compilation
    included.
    """

    network: Network
    solution: Solution
    mean: float
    scale: float
    start_seconds: float
    seconds: float

    def predict(self, points: Float[np.ndarray, "q 2"]) -> Float[np.ndarray, " q"]:
        """Elevations at points (q, 2), km, in metres."""
        dtype = self.network.width.dtype
        values = _evaluate(self.network, self.solution.value, jnp.asarray(points, dtype))
        return self.mean + self.scale * np.asarray(values, float)


@eqx.filter_jit
def _evaluate(network: Network, params: Params, points: Array) -> Array:
    return jax.lax.map(lambda x: network(params, x), points, batch_size=256)


def fit_terrain(
    samples: Samples,
    centres: int,
    *,
    dtype: str = "float32",
    max_steps: int = 20,
    target: float = 1.0,
    verbose: bool | AbstractCallback = False,
) -> Fit:
    """Fits an RBF network of `centres` Gaussians to the samples.

    Ends when the RMSE at the samples is at most `target`, in metres, or after `max_steps`
    Jacobians. The elevations are whole metres, so there is no point in a closer fit than 1.
    """
    begin = time.perf_counter()
    mean, scale = float(samples.elevation.mean()), float(samples.elevation.std()) or 1.0
    standardised = (samples.elevation - mean) / scale
    network, weights = _start(samples.points, standardised, centres, dtype)
    zeros = jnp.zeros((centres, 2), dtype)
    params = {
        "centre": zeros,
        "log_width": zeros,
        "skew": zeros[:, 0],
        "weight": jnp.asarray(weights, dtype),
    }
    data = {
        "point": jnp.asarray(samples.points, dtype),
        "elevation": jnp.asarray(standardised, dtype),
    }
    started = time.perf_counter()
    cost = 0.5 * len(standardised) * (target / scale) ** 2
    solver = LevenbergMarquardt(
        metric=PowerMetric(0.5),
        damping=Nielsen(initial=_FIRST_DAMPING),
        termination=Termination(absolute_cost=cost),
    )
    solution = solve(
        Rows(Misfit(network)),
        params,
        args=data,
        solver=solver,
        max_steps=max_steps,
        throw=False,
        verbose=verbose,
    )
    jax.block_until_ready(solution.value)
    return Fit(network, solution, mean, scale, started - begin, time.perf_counter() - started)


def _start(
    points: Float[np.ndarray, "n 2"], values: Float[np.ndarray, " n"], centres: int, dtype: str
) -> tuple[Network, Float[np.ndarray, " m"]]:
    """The network before training, and its weights by ridge regression."""
    centre, width, amplitude = _layout(points, centres)
    features = amplitude * np.exp(-0.5 * _squared_distances(points, centre) / width**2)
    size = np.sqrt(np.mean(np.sum(features**2, axis=1)))
    amplitude, features = amplitude / size, features / size
    gram = features @ features.T + _NOISE**2 * np.eye(len(values))
    weights = features.T @ np.linalg.solve(gram, values)
    network = Network(
        jnp.asarray(centre, dtype), jnp.asarray(width, dtype), jnp.asarray(amplitude, dtype)
    )
    return network, weights


def _layout(
    points: Float[np.ndarray, "n 2"], centres: int
) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Centres (km), widths (km) and amplitudes: a fine level on samples, and coarser octaves."""
    low, high = points.min(axis=0), points.max(axis=0)
    fine = min(len(points), max(1, round(_FINE_SHARE * centres)))
    finest = _FINE_WIDTH * np.sqrt(np.prod(high - low) / fine)
    centre, width, amplitude = [points[:fine]], [np.full(fine, finest)], [np.ones(fine)]
    left = centres - fine
    for octave, count in enumerate(_geometric(left, _OCTAVES), start=1):
        if count == 0:
            continue
        margin = finest * 2.0**octave
        extent = high - low + 2 * margin
        spacing = np.sqrt(np.prod(extent) / count)
        centre.append(low - margin + extent * _halton(count))
        width.append(np.full(count, max(margin, _OVERLAP * spacing)))
        amplitude.append(np.full(count, 2.0 ** (_ROUGHNESS * octave)))
    return np.concatenate(centre), np.concatenate(width), np.concatenate(amplitude)


def _geometric(total: int, parts: int) -> list[int]:
    """`total` in decreasing parts, each a quarter of the one before."""
    shares = 0.25 ** np.arange(parts)
    ends = np.round(total * np.cumsum(shares) / shares.sum()).astype(int)
    return np.diff(ends, prepend=0).tolist()


def _halton(count: int) -> Float[np.ndarray, "count 2"]:
    """The first points of the Halton sequence in the unit square."""
    columns = []
    for base in (2, 3):
        index, digit, value = np.arange(1, count + 1), 1.0, np.zeros(count)
        while index.any():
            digit /= base
            value += digit * (index % base)
            index //= base
        columns.append(value)
    return np.stack(columns, axis=1)


def _squared_distances(
    a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"]
) -> Float[np.ndarray, "n m"]:
    return (a[:, :1] - b[:, 0]) ** 2 + (a[:, 1:] - b[:, 1]) ** 2


def interpolate(
    samples: Samples, points: Float[np.ndarray, "q 2"]
) -> tuple[Float[np.ndarray, " q"], float]:
    """SciPy's `RBFInterpolator` at its defaults: elevations (q,), metres, and the seconds taken."""
    from scipy.interpolate import RBFInterpolator

    begin = time.perf_counter()
    values = RBFInterpolator(samples.points, samples.elevation)(points)
    return values, time.perf_counter() - begin
