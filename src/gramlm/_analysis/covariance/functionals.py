"""The rows of `A = ∂f/∂θ` of a function of the parameters, some at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core.arrays import map_blocks, unit_rows
from ..._core.flatten import FlatSpec, Slot, flatten_residual
from ..._model.matrix import row_batches
from ..._problem.residual.canonical import canonical
from ..._problem.residual.declared import Rows
from ..._problem.residual.plain import PlainResidual
from ..._problem.residual.rows import RowResidual, batched

# Rows of A at a time, where each costs a product.
_AT_A_TIME = 64

# What is computed of rows of A: arrays with one number for each.
Reduced = tuple[Float[Array, " k"], ...]
Reduce = Callable[[Float[Array, "k p"]], Reduced]


def each_functional(
    function: Callable[..., Any],
    args: PyTree,
    spec: FlatSpec,
    params: Float[Array, " p"],
    reduce: Reduce,
) -> tuple[PyTree, ...]:
    """What `reduce` makes of the rows of A, each in the structure of what the function returns."""
    if isinstance(function, Rows):
        rows = canonical(function, spec.unflatten(params), args)[0]
        assert isinstance(rows, RowResidual)
        return _of_rows(rows, params, reduce)

    def evaluate(tree: PyTree) -> PyTree:
        return function(tree) if args is None else function(tree, args)

    output = jax.eval_shape(lambda q: evaluate(spec.unflatten(q)), params)
    structure = _structure(output, params.dtype)
    found = _of_function(evaluate, structure.size, spec, params, reduce)
    return tuple(structure.unflatten(values) for values in found)


def _of_function(evaluate, size: int, spec: FlatSpec, params, reduce: Reduce) -> Reduced:
    if size > params.size:
        flat = PlainResidual(function=evaluate, params_spec=spec, size=size)
        return reduce(flat.value_and_jacobian(params)[1])
    pull = jax.vjp(lambda q: flatten_residual(evaluate(spec.unflatten(q))), params)[1]
    count = min(_AT_A_TIME, size)

    def block(start):
        units = unit_rows(start, count, size, params.dtype)
        return jnp.stack(reduce(jax.vmap(lambda u: pull(u)[0])(units)), axis=1)

    return tuple(map_blocks(block, size, count).T)


def _of_rows(rows: RowResidual, params, reduce: Reduce) -> tuple[PyTree, ...]:
    found = []
    for (of_points, data, count), function in zip(row_batches(rows), rows.functions, strict=True):
        first = jax.tree.map(lambda x: x[0], data)

        def of_point(q, x, function=function):
            return function(rows.params_spec.unflatten(q), x)

        point = _structure(jax.eval_shape(of_point, params, first), params.dtype)

        def of_batch(points, of_points=of_points):
            return jnp.stack(reduce(of_points(points).value_and_jacobian(params)[1]))

        full, rest = batched(data, count)
        parts = []
        if full is not None:
            stacked = jax.lax.map(of_batch, full)  # (batches, numbers, rows)
            parts.append(jnp.swapaxes(stacked, 0, 1).reshape(stacked.shape[1], -1))
        if rest is not None:
            parts.append(of_batch(rest))
        numbers = jnp.concatenate(parts, axis=1)
        found.append(
            [jax.vmap(point.unflatten)(values.reshape(-1, point.size)) for values in numbers]
        )
    return tuple(of[0] if len(of) == 1 else of for of in zip(*found, strict=True))


def _structure(output: PyTree, dtype: Any) -> FlatSpec:
    leaves, treedef = jax.tree.flatten(output)
    if sum(leaf.size for leaf in leaves) == 0:
        raise ValueError(
            "`function` returned no values. It must return a pytree of real arrays: the values "
            "whose standard errors are wanted."
        )
    for leaf in leaves:
        if leaf.dtype != dtype:
            raise TypeError(
                f"`function` returned {leaf.dtype} values for {dtype} parameters. It must return "
                "real arrays of the dtype of the parameters."
            )
    slots = tuple(Slot(leaf.shape, is_complex=False) for leaf in leaves)
    return FlatSpec(treedef, slots, (None,) * len(slots))
