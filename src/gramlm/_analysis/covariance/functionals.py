"""The rows of `A = ∂f/∂θ` of a function of the parameters, some at a time."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, PyTree

from ..._core.flatten import FlatSpec
from ..._problem.residual.base import Reduce
from ..._problem.residual.canonical import declaration_of


def each_functional(
    function: Callable[..., Any],
    args: PyTree,
    spec: FlatSpec,
    params: Float[Array, " p"],
    reduce: Reduce,
) -> tuple[PyTree, ...]:
    """What `reduce` makes of the rows of A, each in the structure of what the function returns."""
    values = declaration_of(function).values(spec, params, args)
    found = values.map_rows(params, reduce)
    return tuple(values.unflatten_output(numbers, params) for numbers in found)
