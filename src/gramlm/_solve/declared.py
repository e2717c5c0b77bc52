"""From the arguments of `solve` to one declaration."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from jaxtyping import PyTree

from .._problem.problem import Problem

# Arbitrary. A module takes 0.03 ms to make, a tenth of a small solve.
_remembered = lru_cache(maxsize=256)(Problem)


def declared(
    residual_fn: Callable[..., Any],
    loss: PyTree,
    weights: PyTree,
    lower: PyTree,
    upper: PyTree,
    free: PyTree,
) -> Problem:
    """The problem that they declare, with arrays for Python numbers."""
    parts = {"loss": loss, "weights": weights, "lower": lower, "upper": upper, "free": free}
    if any(part is not None for part in parts.values()) or isinstance(residual_fn, Problem):
        return Problem.of(residual_fn, **parts).with_arrays()
    try:
        return _remembered(residual_fn)
    except TypeError:  # it has no hash
        return Problem(residual_fn)
