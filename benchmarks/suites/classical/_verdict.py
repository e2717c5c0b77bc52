"""Judges where a solve ended, in float64 whatever it was computed in.

- *Solved* (the two collections of problems): the cost there is that of the best known or of a
  listed local minimum, to 1e-6 relative or 1e-10 absolute; for a float32 run 1e-3 or 1e-5.
- *Stationary*: no column of the Jacobian makes an angle with the residual whose cosine exceeds
  1e-5 (float32: 3e-2). Columns with `‖Jⱼ‖(|θⱼ| + 1) ≤ 1e-14‖r‖` (float32: 1e-7) are left out: these
  parameters no longer move the residual beyond rounding.
- *False success*: the solver says that it succeeded at a point that is neither solved nor
  stationary, or not finite. A claim at a stationary point that is not listed is neither success
  nor false.
- Of networks only the cost is looked at.
- *Reached* (regression): the residual sum of squares (RSS) is the certified one to 1e-9 relative.
  Solved is 1e-6 relative; for a float32 run both are 1e-3. Both also hold within 1e-20 `‖y‖²`
  (float32: 1e-8), which rounding of the parameters costs. Correct digits are the worst
  parameter's; those of a point that has the RSS but other parameters, as sums of like terms in
  another order have, are 0, and it is counted as *swapped*.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._run import Instance, Record
from .networks import Network
from .regression import Certified, correct_digits, standard_errors


@dataclass(frozen=True)
class _Limits:
    relative: float
    absolute: float
    cosine: float
    rounding: float
    floor: float
    reached: float


_LIMITS = {
    "float64": _Limits(1e-6, 1e-10, 1e-5, 1e-14, 1e-20, 1e-9),
    "float32": _Limits(1e-3, 1e-5, 3e-2, 1e-7, 1e-8, 1e-3),
}
# So close to the certified RSS is no other point of a flat valley.
_SAME = 1e-9


def largest_cosine(r: np.ndarray, J: np.ndarray, theta: np.ndarray, rounding: float) -> float:
    """The largest cosine between r and a column of J that still moves it; 0 where r is 0."""
    if not (np.isfinite(r).all() and np.isfinite(J).all()):
        return float("inf")
    size = np.abs(r).max()
    columns = np.abs(J).max(axis=0)
    if size == 0 or not columns.any():
        return 0.0
    unit = r / size
    residual_norm = np.linalg.norm(unit)
    scaled = J / np.where(columns > 0, columns, 1.0)
    norms = np.linalg.norm(scaled, axis=0)
    with np.errstate(over="ignore", under="ignore"):
        # In logarithms, because the product of two huge numbers may not be finite.
        moved = np.log10(np.maximum(norms, 1e-300)) + np.log10(np.maximum(columns, 1e-300))
        moved += np.log10(np.abs(theta) + 1) - np.log10(size * residual_norm)
    counts = (columns > 0) & (moved > np.log10(rounding))
    cosines = np.abs(unit @ scaled) / (residual_norm * np.where(norms > 0, norms, 1.0))
    return float(np.max(cosines[counts], initial=0.0))


@dataclass
class Judge:
    """Fills in verdicts; keeps what it compiled for each problem."""

    compiled: dict[str, Any] = field(default_factory=dict)

    def _at(self, instance: Instance, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import jax

        if instance.name not in self.compiled:
            residual = instance.residual
            self.compiled[instance.name] = jax.jit(lambda t: (residual(t), jax.jacfwd(residual)(t)))
        r, J = self.compiled[instance.name](theta)
        return np.asarray(r), np.asarray(J)

    def judge(self, instance: Instance, record: Record, dtype: str) -> None:
        """Sets the verdict of a record that was made in this dtype."""
        limits = _LIMITS[dtype]
        theta = np.asarray(record.theta, np.float64)
        cost, cosine, solved = float("inf"), float("inf"), False
        extra: dict[str, Any] = {}
        if theta.size == instance.size and np.isfinite(theta).all():
            if isinstance(instance.known, Network):
                r = np.asarray(instance.residual(theta))
            else:
                r, J = self._at(instance, theta)
                cosine = largest_cosine(r, J, theta, limits.rounding)
            with np.errstate(over="ignore", invalid="ignore"):
                cost = 0.5 * float(r @ r)
        known = instance.known
        if isinstance(known, Certified):
            solved, extra = _fit(known, theta, 2 * cost, limits)
        else:
            solved = np.isfinite(cost) and known.solved(cost, limits.relative, limits.absolute)
        false = record.claimed and not solved and not cosine <= limits.cosine
        record.verdict = {
            "cost": cost, "cosine": cosine, "solved": bool(solved), "false": bool(false), **extra
        }  # fmt: skip


def _fit(
    data: Certified, theta: np.ndarray, rss: float, limits: _Limits
) -> tuple[bool, dict[str, Any]]:
    """Whether a fit is as good as the certified one, and the digits of its answer."""
    certified = data.residual_sum_of_squares
    floor = limits.floor * float(data.response @ data.response)
    excess = rss - certified
    reached = bool(excess <= max(limits.reached * certified, floor))
    solved = bool(excess <= max(limits.relative * certified, floor))
    digits = correct_digits(theta, data.certified) if np.isfinite(rss) else 0.0
    errors = None
    if np.isfinite(rss) and data.float64_resolves and digits >= 4:
        errors = correct_digits(standard_errors(data.residual, theta), data.standard_deviations)
    swapped = bool(excess <= _SAME * certified and data.float64_resolves and digits < 1)
    return solved, {"digits": digits, "reached": reached, "swapped": swapped, "errors": errors}
