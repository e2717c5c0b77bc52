"""From whatever the user wrote to a canonical residual, with what is wrong about it said."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core.flatten import FlatSpec, as_parameters
from .base import AbstractResidual
from .declared import AbstractDeclaration
from .outputs import check_values, of_dtype, output_spec
from .plain import Bound, FirstOutput, PlainResidual


def canonical(
    residual_fn: Callable[..., Any],
    params: PyTree,
    args: PyTree = None,
    has_aux: bool = False,
    *,
    free: PyTree = None,
) -> tuple[AbstractResidual, Float[Array, " p"]]:
    """The residual as a function of a flat vector, and the flat parameters that are free.

    Raises `TypeError` or `ValueError`, naming the argument, for parameters or residuals that are
    not non-empty pytrees of real or complex arrays of one precision.
    """
    params_spec, flat = as_parameters(params, free)
    return declaration_of(residual_fn).residual(params_spec, flat, args, has_aux), flat


def declaration_of(function: Callable[..., Any]) -> AbstractDeclaration:
    """A declaration as it is, and any other function as one of which nothing is known."""
    return function if isinstance(function, AbstractDeclaration) else Function(function)


class Function(AbstractDeclaration):
    """Any function of the parameters, or of these and the arguments."""

    function: Callable[..., Any]

    def residual(
        self, params_spec: FlatSpec, params: Float[Array, " p"], args: PyTree, has_aux: bool
    ) -> PlainResidual:
        bound = bind_args(self.function, args)
        function = FirstOutput(bound) if has_aux else bound
        size = _size_of(function, params_spec, params)
        return PlainResidual(function=function, params_spec=params_spec, size=size)

    def values(
        self, params_spec: FlatSpec, params: Float[Array, " p"], args: PyTree
    ) -> PlainResidual:
        bound = Bound(self.function, args, accepts=args is not None)
        output = jax.eval_shape(lambda q: bound(params_spec.unflatten(q)), params)
        check_values(output, params.dtype)
        size = output_spec(output).size
        return PlainResidual(function=bound, params_spec=params_spec, size=size)


def bind_args(residual_fn: Callable[..., Any], args: PyTree) -> Callable[[PyTree], Any]:
    """`params -> residual_fn(params)` or `residual_fn(params, args)`, as its signature says."""
    if not callable(residual_fn):
        raise TypeError(
            f"`residual_fn` must be a function of `params`, or of `params` and `args`; got "
            f"{type(residual_fn).__name__}."
        )
    accepts = _accepts_args(residual_fn, args)
    if not accepts and args is not None:
        raise TypeError(
            "`args` was given, but `residual_fn` takes the parameters alone. Write it as "
            "`residual_fn(params, args)`, or leave `args` out."
        )
    return Bound(residual_fn, args, accepts)


def _accepts_args(function: Callable[..., Any], args: PyTree) -> bool:
    """Whether to call `function(params, args)`. A default of its own is left alone without args."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins and the like have no signature
        return args is not None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return args is not None
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    if len(positional) < 2:
        return False
    return args is not None or positional[1].default is inspect.Parameter.empty


def _size_of(
    function: Callable[[PyTree], Any], params_spec: FlatSpec, params: Float[Array, " p"]
) -> int:
    """n, the length of the flat residual; says what is wrong with it if anything is."""

    def evaluate(vector):
        output = function(params_spec.unflatten(vector))
        number = isinstance(output, jax.Array | np.generic | float | int | complex)
        if number and jnp.ndim(output) == 0:
            raise ValueError(
                "`residual_fn` returned a scalar. It must return the residuals themselves, whose "
                "squares are summed here, not their sum; a single residual has the shape (1,)."
            )
        return of_dtype(vector.dtype, output, "`residual_fn`")

    return jax.eval_shape(evaluate, params).shape[0]
