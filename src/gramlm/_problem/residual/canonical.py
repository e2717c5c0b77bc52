"""From whatever the user wrote to a canonical residual, with what is wrong about it said."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core.checks import described
from ..._core.flatten import FlatSpec, as_parameters, dtypes_of, flatten_residual
from .base import AbstractResidual
from .declared import Rows
from .plain import PlainResidual
from .rows import RowResidual


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
    if isinstance(residual_fn, Rows):
        if has_aux:
            raise ValueError("`has_aux=True` does not go with `Rows`: its rows have no aux.")
        datasets = jax.tree.map(jnp.asarray, residual_fn.datasets(args))
        sizes = tuple(
            _point_size(function, data, params_spec, flat)
            for function, data in zip(residual_fn.functions, datasets, strict=True)
        )
        counts = [jax.tree.leaves(data)[0].shape[0] for data in datasets]
        size = sum(m * count for m, count in zip(sizes, counts, strict=True))
        rows = RowResidual(
            functions=residual_fn.functions,
            datasets=datasets,
            params_spec=params_spec,
            sizes=sizes,
            size=size,
        )
        return rows, flat
    function = _without_aux(residual_fn, args, has_aux)
    structure = _shape_of(function, params_spec, flat)
    plain = PlainResidual(function=function, params_spec=params_spec, size=structure.shape[0])
    return plain, flat


def residual_structure(residual: AbstractResidual, params: Float[Array, " p"]) -> PyTree:
    """What the residual function returns, as shapes and dtypes; of `Rows` an array a function."""
    if isinstance(residual, RowResidual):
        pairs = zip(residual.functions, residual.datasets, strict=True)
        blocks = tuple(
            jax.eval_shape(
                lambda vector, x, f=function: jax.vmap(f, in_axes=(None, 0))(
                    residual.params_spec.unflatten(vector), x
                ),
                params,
                data,
            )
            for function, data in pairs
        )
        return blocks[0] if len(blocks) == 1 else blocks
    assert isinstance(residual, PlainResidual)
    return jax.eval_shape(
        lambda vector: jax.tree.map(
            jnp.asarray, residual.function(residual.params_spec.unflatten(vector))
        ),
        params,
    )


def flatten_output(residual: AbstractResidual, output: PyTree) -> Float[Array, " n"]:
    """A pytree like that of `residual_structure`, in the order of the flat residual."""
    if not isinstance(residual, RowResidual):
        return flatten_residual(output)
    blocks = (output,) if len(residual.functions) == 1 else output
    return jnp.concatenate([jax.vmap(flatten_residual)(block).reshape(-1) for block in blocks])


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
    return _Bound(residual_fn, args, accepts)


class _Bound(eqx.Module):
    """A residual function with its arguments; a module, so that arrays in it stay leaves."""

    function: Callable[..., Any]
    args: PyTree
    accepts: bool = eqx.field(static=True)

    def __call__(self, params: PyTree) -> Any:
        return self.function(params, self.args) if self.accepts else self.function(params)


class _FirstOutput(eqx.Module):
    """Drops the aux output of a residual function."""

    function: Callable[[PyTree], Any]

    def __call__(self, params: PyTree) -> Any:
        return split_aux(self.function(params))[0]


def split_aux(output: Any) -> tuple[Any, Any]:
    """The pair that a residual with `has_aux=True` returns, checked."""
    if not (isinstance(output, tuple) and len(output) == 2):
        raise TypeError(
            "With `has_aux=True`, `residual_fn` must return a pair `(residual, aux)`; got "
            f"{described(output)}."
        )
    return output


def _without_aux(residual_fn, args, has_aux: bool) -> Callable[[PyTree], Any]:
    bound = bind_args(residual_fn, args)
    return _FirstOutput(bound) if has_aux else bound


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


def _shape_of(function, params_spec: FlatSpec, flat) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the flat residual; says what is wrong with it if anything is."""

    def evaluate(vector):
        output = function(params_spec.unflatten(vector))
        number = isinstance(output, jax.Array | np.generic | float | int | complex)
        if number and jnp.ndim(output) == 0:
            raise ValueError(
                "`residual_fn` returned a scalar. It must return the residuals themselves, whose "
                "squares are summed here, not their sum; a single residual has the shape (1,)."
            )
        return _of_dtype(vector.dtype, output, "`residual_fn`")

    return jax.eval_shape(evaluate, flat)


def _point_size(function, data, params_spec, flat) -> int:
    point = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)

    def evaluate(vector, x):
        output = function(params_spec.unflatten(vector), x)
        return _of_dtype(vector.dtype, output, "A function of `Rows`")

    return jax.eval_shape(evaluate, flat, point).shape[0]


def _of_dtype(dtype: Any, output: PyTree, name: str) -> Float[Array, " n"]:
    residual = flatten_residual(output)
    if residual.dtype != dtype:
        raise TypeError(
            f"{name} returned {dtypes_of(output)} residuals for {dtype} parameters. Cast the data "
            "or the parameters, so that both are of one precision."
        )
    return residual
