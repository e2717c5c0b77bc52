"""What a benchmark problem is: a name, and a builder of its data for a dtype."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PyTree = Any


@dataclass(frozen=True)
class Instance:
    """One problem at one dtype, ready to hand to a solver.

    - `residual_fn(params, args)`: the plain batched residual, what a stranger would write. It
      returns one array of shape (n,).
    - `params`: the start; `args`: the data.
    - `rows`: `((f, ...), data)` with one `f(params, point)` per block of residuals. `data` is the
      data set of the only block, or a tuple with one data set for each of several blocks. None
      where the residual has no such structure.
    - `metric(params)`: an error that is not the cost, or None.
    """

    residual_fn: Callable[[PyTree, PyTree], Any]
    params: PyTree
    args: PyTree
    rows: tuple[tuple[Callable[[PyTree, PyTree], Any], ...], PyTree] | None = None
    metric: Callable[[PyTree], float] | None = None


@dataclass(frozen=True)
class Problem:
    """A named problem; `build(dtype)` makes its data."""

    name: str
    build: Callable[[Any], Instance]
