"""Nonlinear regression with certified answers.

The 27 data sets, models, starts and certified values are those of the Statistical Reference
Datasets (nonlinear regression) of the US National Institute of Standards and Technology. The
decimals in `data/` are the published ones; each file names its source.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import gramlm

Difficulty = Literal["lower", "average", "higher"]
Model = Callable[[Any, Any], Any]

# As many digits as NIST certifies.
CERTIFIED_DIGITS = 11.0


@dataclass(frozen=True, eq=False)
class Certified:
    """Fit `model(θ, x)` to `y`, the answer known to 11 digits.

    - `name`, `difficulty`: as NIST has them.
    - `model`: θ (p,) and `x` → (k,), in JAX, in whatever dtype it is given.
    - `x`: (k,), or (k, 2) with two predictors; `y`: (k,), as published.
    - `starts`: the published starts, far and near.
    - `certified`, `standard_deviations`, `residual_sum_of_squares`: the certified answer.
    - `log_response`: whether the model is of log y, as for Nelson.
    - `float64_resolves`: whether float64 reproduces the last two certified figures. It does not
      for Lanczos1: its residuals, near 1e-13, vanish beside the rounding of the certified θ to
      11 digits, and even at float64's own minimum the standard deviations agree to 3 digits only.
    """

    name: str
    difficulty: Difficulty
    model: Model
    x: np.ndarray
    y: np.ndarray
    starts: tuple[tuple[float, ...], tuple[float, ...]]
    certified: tuple[float, ...]
    standard_deviations: tuple[float, ...]
    residual_sum_of_squares: float
    log_response: bool = False
    float64_resolves: bool = True

    @property
    def response(self) -> np.ndarray:
        """What the model is fitted to: y, or log y."""
        return np.log(self.y) if self.log_response else self.y

    def residual(self, theta: Any) -> jax.Array:
        """Model less response, (p,) → (k,), in the dtype of θ."""
        theta = jnp.asarray(theta)
        x, response = (jnp.asarray(a, theta.dtype) for a in (self.x, self.response))
        return self.model(theta, x) - response


def correct_digits(found: Any, certified: Any) -> float:
    """Digits to which the worst parameter agrees, −log₁₀ of its relative error, from 0 to 11.

    Parameters are compared in the published order: the same fit with its terms swapped scores 0.
    """
    found, certified = np.asarray(found, float), np.asarray(certified, float)
    if found.shape != certified.shape:
        raise ValueError(f"{found.shape} parameters against {certified.shape} certified")
    if not np.isfinite(found).all():
        return 0.0
    worst = float(np.max(np.abs(found - certified) / np.abs(certified)))
    if worst == 0:
        return CERTIFIED_DIGITS
    return float(np.clip(-np.log10(worst), 0, CERTIFIED_DIGITS))


def standard_errors(residual: Callable[[Any], Any], theta: Any) -> np.ndarray:
    """Standard errors `s √diag((JᵀJ)⁻¹)` at θ, with `s² = ‖r‖²/(n − p)`, in float64.

    NaN where r or J is not finite; infinite where J does not determine a parameter.
    """
    point = jnp.asarray(np.asarray(theta, np.float64))
    if point.dtype != jnp.float64:
        raise ValueError("standard errors need float64: set jax_enable_x64")
    return np.asarray(gramlm.uncertainty.covariance(residual, point).standard_errors())


def _bennett(theta, x):
    b1, b2, b3 = theta
    return b1 * (b2 + x) ** (-1 / b3)


def _saturation(theta, x):
    b1, b2 = theta
    return b1 * (1 - jnp.exp(-b2 * x))


def _chwirut(theta, x):
    b1, b2, b3 = theta
    return jnp.exp(-b1 * x) / (b2 + b3 * x)


def _power(theta, x):
    b1, b2 = theta
    return b1 * x**b2


def _enso(theta, x):
    b1, b2, b3, b4, b5, b6, b7, b8, b9 = theta

    def cycle(period, cosine, sine):
        phase = 2 * jnp.pi * x / period
        return cosine * jnp.cos(phase) + sine * jnp.sin(phase)

    return b1 + cycle(12, b2, b3) + cycle(b4, b5, b6) + cycle(b7, b8, b9)


def _eckerle(theta, x):
    b1, b2, b3 = theta
    return b1 / b2 * jnp.exp(-0.5 * ((x - b3) / b2) ** 2)


def _two_peaks(theta, x):
    b1, b2, b3, b4, b5, b6, b7, b8 = theta

    def peak(height, centre, width):
        return height * jnp.exp(-((x - centre) ** 2) / width**2)

    return b1 * jnp.exp(-b2 * x) + peak(b3, b4, b5) + peak(b6, b7, b8)


def _cubics(theta, x):
    b1, b2, b3, b4, b5, b6, b7 = theta
    return (b1 + x * (b2 + x * (b3 + x * b4))) / (1 + x * (b5 + x * (b6 + x * b7)))


def _quadratics(theta, x):
    b1, b2, b3, b4, b5 = theta
    return (b1 + x * (b2 + x * b3)) / (1 + x * (b4 + x * b5))


def _lanczos(theta, x):
    b1, b2, b3, b4, b5, b6 = theta
    return b1 * jnp.exp(-b2 * x) + b3 * jnp.exp(-b4 * x) + b5 * jnp.exp(-b6 * x)


def _mgh09(theta, x):
    b1, b2, b3, b4 = theta
    return b1 * (x**2 + x * b2) / (x**2 + x * b3 + b4)


def _mgh10(theta, x):
    b1, b2, b3 = theta
    return b1 * jnp.exp(b2 / (x + b3))


def _mgh17(theta, x):
    b1, b2, b3, b4, b5 = theta
    return b1 + b2 * jnp.exp(-x * b4) + b3 * jnp.exp(-x * b5)


def _misra1b(theta, x):
    b1, b2 = theta
    return b1 * (1 - (1 + b2 * x / 2) ** -2)


def _misra1c(theta, x):
    b1, b2 = theta
    return b1 * (1 - (1 + 2 * b2 * x) ** -0.5)


def _misra1d(theta, x):
    b1, b2 = theta
    return b1 * b2 * x / (1 + b2 * x)


def _nelson(theta, x):
    b1, b2, b3 = theta
    return b1 - b2 * x[:, 0] * jnp.exp(-b3 * x[:, 1])


def _rat42(theta, x):
    b1, b2, b3 = theta
    return b1 / (1 + jnp.exp(b2 - b3 * x))


def _rat43(theta, x):
    b1, b2, b3, b4 = theta
    return b1 / (1 + jnp.exp(b2 - b3 * x)) ** (1 / b4)


def _roszman(theta, x):
    b1, b2, b3, b4 = theta
    return b1 - b2 * x - jnp.arctan(b3 / (x - b4)) / jnp.pi


# In NIST's order, by difficulty.
_MODELS: dict[str, Model] = {
    "Misra1a": _saturation,
    "Chwirut2": _chwirut,
    "Chwirut1": _chwirut,
    "Lanczos3": _lanczos,
    "Gauss1": _two_peaks,
    "Gauss2": _two_peaks,
    "DanWood": _power,
    "Misra1b": _misra1b,
    "Kirby2": _quadratics,
    "Hahn1": _cubics,
    "Nelson": _nelson,
    "MGH17": _mgh17,
    "Lanczos1": _lanczos,
    "Lanczos2": _lanczos,
    "Gauss3": _two_peaks,
    "Misra1c": _misra1c,
    "Misra1d": _misra1d,
    "Roszman1": _roszman,
    "ENSO": _enso,
    "MGH09": _mgh09,
    "Thurber": _cubics,
    "BoxBOD": _saturation,
    "Rat42": _rat42,
    "MGH10": _mgh10,
    "Eckerle4": _eckerle,
    "Rat43": _rat43,
    "Bennett5": _bennett,
}


def _read(name: str, model: Model) -> Certified:
    """A data set: `#` comments, labelled values, then a table headed by its columns."""
    path = Path(__file__).with_name("data") / f"{name.lower()}.csv"
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    head = next(i for i, line in enumerate(lines) if line.startswith("y,"))
    labelled: dict[str, Any] = {
        label: values.split(",") for label, values in (s.split(",", 1) for s in lines[:head])
    }

    def numbers(label: str) -> tuple[float, ...]:
        return tuple(map(float, labelled[label]))

    table = np.array([line.split(",") for line in lines[head + 1 :]], float)
    table.flags.writeable = False
    (rss,) = numbers("residual sum of squares")
    return Certified(
        name=name,
        difficulty=labelled["difficulty"][0],
        model=model,
        x=table[:, 1] if table.shape[1] == 2 else table[:, 1:],
        y=table[:, 0],
        starts=(numbers("start 1"), numbers("start 2")),
        certified=numbers("certified"),
        standard_deviations=numbers("standard deviation"),
        residual_sum_of_squares=rss,
        log_response=name == "Nelson",
        float64_resolves=name != "Lanczos1",
    )


CERTIFIED: tuple[Certified, ...] = tuple(_read(name, model) for name, model in _MODELS.items())
