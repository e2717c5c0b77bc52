"""Checks of what the user declares, whose messages name the argument, what came, and what to pass.

A number is checked where its value is known: not while it is traced. Of arrays every entry is
checked, and the first that is wrong is named.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.core import Tracer


def described(value: Any) -> str:
    """What came, for an error message."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}"


def check_positive(value: Any, name: str, hint: str = "", *, finite: bool = False) -> None:
    """Raises `ValueError` unless `value > 0`; `hint` follows what was wanted."""
    wanted = "be positive and finite" if finite else "be positive"
    _check(value, name, wanted + hint, lambda x: (x > 0) & (np.isfinite(x) | (not finite)))


def check_not_negative(value: Any, name: str, hint: str = "", *, finite: bool = False) -> None:
    """Raises `ValueError` unless `value ≥ 0`."""
    wanted = "be finite and not negative" if finite else "not be negative"
    _check(value, name, wanted + hint, lambda x: (x >= 0) & (np.isfinite(x) | (not finite)))


def check_at_least(value: Any, name: str, least: float | int, hint: str = "") -> None:
    """Raises `ValueError` unless `value ≥ least`."""
    _check(value, name, f"be at least {least}{hint}", lambda x: x >= least)


def check_above(value: Any, name: str, low: float | int, hint: str = "") -> None:
    """Raises `ValueError` unless `value > low`."""
    _check(value, name, f"be above {low}{hint}", lambda x: x > low)


def check_between(
    value: Any,
    name: str,
    low: float | int,
    high: float | int,
    hint: str = "",
    *,
    closed: Literal["both", "low", "high", "neither"],
) -> None:
    """Raises `ValueError` unless the value is between two numbers; `closed` are those allowed."""
    above = "positive" if low == 0 else f"above {low}"
    wanted, holds = {
        "both": (f"be between {low} and {high}", lambda x: (low <= x) & (x <= high)),
        "low": (f"be at least {low} and below {high}", lambda x: (low <= x) & (x < high)),
        "high": (f"be {above} and at most {high}", lambda x: (low < x) & (x <= high)),
        "neither": (f"be {above} and below {high}", lambda x: (low < x) & (x < high)),
    }[closed]
    _check(value, name, wanted + hint, holds)


def check_in_order(low: Any, low_name: str, high: Any, high_name: str) -> None:
    """Raises `ValueError` if `low > high`."""
    known = [_known(value) for value in (low, high)]
    if known[0] is not None and known[1] is not None and np.any(known[0] > known[1]):
        raise ValueError(f"`{low_name}` must not exceed `{high_name}`; got {low} and {high}.")


def _check(value: Any, name: str, wanted: str, holds: Callable[[Any], Any]) -> None:
    array = _known(value)
    if array is None:
        return
    real = np.isrealobj(array)
    good = holds(array) if real else np.zeros(array.shape, bool)
    if not np.all(good):
        worst = value if array.ndim == 0 else array[~good][0]
        raise ValueError(f"`{name}` must {wanted}; got {worst}.")


def _known(value: Any) -> np.ndarray | None:
    """The value where it is one or more numbers, and known."""
    number = isinstance(value, int | float | complex | np.ndarray | np.generic | jax.Array)
    return np.asarray(value) if number and not isinstance(value, Tracer) else None
