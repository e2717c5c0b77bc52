"""From what the user declared to a problem in flat vectors, with what is wrong about it said."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, PyTree

from .._core.flatten import FlatSpec
from .box import AbstractBox, Box, Unbounded
from .flat import FlatProblem
from .flat_loss import AbstractFlatLoss, FlatLoss, Squares
from .loss import AbstractLoss, AbstractScaledLoss, PerBlock
from .problem import Problem
from .residual.base import AbstractResidual
from .residual.canonical import canonical, flatten_output, residual_structure
from .residual.rows import RowResidual
from .row_factor import AbstractRowFactor, DiagonalFactor, Unweighted
from .segment import AbstractSegment, Layout, LossSegment, SquaresSegment
from .weights import AbstractWeighting, LinearWeighting, check_weights


def flat_problem(
    residual_fn: Callable[..., Any], params: PyTree, args: PyTree = None, has_aux: bool = False
) -> tuple[FlatProblem, Float[Array, " p"]]:
    """The problem over a flat vector, and the flat parameters.

    Raises `TypeError` or `ValueError`, naming the argument.
    """
    declared = Problem.of(residual_fn)
    function, flat = canonical(declared.residual_fn, params, args, has_aux, free=declared.free)
    problem = FlatProblem(
        function=function,
        weights=_row_factor(declared.weights, function, flat),
        loss=_flat_loss(declared.loss, function, flat, declared.weights),
        box=_box(declared.lower, declared.upper, params, function.params_spec, flat.dtype),
    )
    return problem, flat


def _row_factor(
    weights: Any, function: AbstractResidual, params: Float[Array, " p"]
) -> AbstractRowFactor:
    dtype = params.dtype
    if weights is None:
        return Unweighted()
    if isinstance(weights, AbstractWeighting):
        return weights.factor(function.size, dtype)
    leaves, structure = [], residual_structure(function, params)
    for value, leaf in _along(weights, structure, "weights", "the residual", _is_none):
        array = _broadcast(1.0 if value is None else value, leaf, "weights", "the residual", dtype)
        check_weights(array, "`weights`")
        root = jnp.sqrt(array)
        leaves.append(jax.lax.complex(root, root) if _is_complex(leaf) else root)
    tree = jtu.tree_unflatten(jtu.tree_structure(structure), leaves)
    return DiagonalFactor(flatten_output(function, tree))


def _box(lower: Any, upper: Any, params: PyTree, spec: FlatSpec, dtype: Any) -> AbstractBox:
    if lower is None and upper is None:
        return Unbounded()
    low = _flat_bound(lower, params, spec, "lower", -jnp.inf, dtype)
    high = _flat_bound(upper, params, spec, "upper", jnp.inf, dtype)
    if not isinstance(low, Tracer) and not isinstance(high, Tracer):
        crossed = np.asarray(low > high)
        if np.any(crossed):
            raise ValueError(
                f"`lower` exceeds `upper` for {int(np.sum(crossed))} parameters; the first of "
                f"them has {np.asarray(low)[crossed][0]} and {np.asarray(high)[crossed][0]}."
            )
    return Box(low, high)


def _flat_bound(
    bound: Any, params: PyTree, spec: FlatSpec, name: str, infinite: float, dtype: Any
) -> Float[Array, " p"]:
    """One number for each free parameter, from a prefix of the parameters."""
    parts = []
    pairs = _along(bound, params, name, "`params`", _is_none)
    for (value, leaf), slot in zip(pairs, spec.slots, strict=True):
        if slot is None:
            continue
        value = infinite if value is None else value
        if slot.is_complex:
            parts.append(slot.flatten(_complex_bound(value, leaf, name, dtype)))
        else:
            parts.append(slot.flatten(_broadcast(value, leaf, name, "`params`", dtype)))
    flat = jnp.concatenate(parts)
    if not isinstance(flat, Tracer) and np.any(np.isnan(flat) | (flat == -infinite)):
        raise ValueError(
            f"`{name}` holds NaN or {-infinite}; write {infinite}, or None, for no bound."
        )
    return flat


def _complex_bound(value: Any, leaf: Any, name: str, dtype: Any) -> Inexact[Array, "..."]:
    if jnp.iscomplexobj(value):
        value = jnp.asarray(value)
        real, imaginary = value.real, value.imag
    else:
        finite = jnp.isfinite(jnp.asarray(value))
        if not isinstance(finite, Tracer) and np.any(finite):
            raise TypeError(
                f"`{name}` must be complex for a complex parameter: bounds of its real and of its "
                f"imaginary part; got {_described(value)}."
            )
        real = imaginary = value
    parts = (_broadcast(part, leaf, name, "`params`", dtype) for part in (real, imaginary))
    return jax.lax.complex(*parts)


def _broadcast(value: Any, leaf: Any, name: str, of: str, dtype: Any) -> Float[Array, "..."]:
    shape = jnp.shape(leaf)
    if isinstance(value, complex) or jnp.issubdtype(getattr(value, "dtype", float), complex):
        raise TypeError(f"`{name}` must be real for real arrays of {of}; got {_described(value)}.")
    try:
        return jnp.broadcast_to(jnp.asarray(value, dtype), shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be numbers that broadcast to the arrays of {of}; got "
            f"{_described(value)} for one of the shape {shape}."
        ) from error


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return repr(value) if shape is None else f"an array of the shape {tuple(shape)}"


def _flat_dtype(structure: PyTree) -> Any:
    """The dtype of the flat residual."""
    return jnp.finfo(jax.tree.leaves(structure)[0].dtype).dtype


def _is_none(value: Any) -> bool:
    return value is None


def _is_complex(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.complexfloating)


def _along(
    tree: Any, structure: PyTree, name: str, of: str, is_leaf: Callable[[Any], bool]
) -> list[tuple[Any, Any]]:
    """For each array of `structure` the leaf of `tree`, a prefix of it, that it falls under."""
    leaves, treedef = jtu.tree_flatten(tree, is_leaf=is_leaf)
    try:
        subtrees = treedef.flatten_up_to(structure)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must have the structure of {of}, or of its upper part; got {treedef} for "
            f"{jax.tree.structure(structure)}."
        ) from error
    return [
        (leaf, array)
        for leaf, subtree in zip(leaves, subtrees, strict=True)
        for array in jax.tree.leaves(subtree)
    ]


def _flat_loss(
    loss: Any, function: AbstractResidual, params: Float[Array, " p"], weights: Any
) -> AbstractFlatLoss:
    if loss is None:
        return Squares()
    structure = residual_structure(function, params)
    if isinstance(weights, LinearWeighting):
        # Its rows are not those of the residual: one loss for all of them.
        structure = jax.ShapeDtypeStruct((weights.operator.out_size(),), _flat_dtype(structure))
    segments, start = [], 0
    parts = _parts(loss, function, structure, isinstance(weights, LinearWeighting))
    for one, outer, leaf in parts:
        if not (one is None or isinstance(one, AbstractLoss)):
            raise TypeError(
                f"`loss` must be a `gramlm.AbstractLoss`, such as `gramlm.Huber(1.0)`; got {one!r}."
            )
        layout = _layout(one, outer, leaf)
        stop = start + math.prod(layout)
        if stop > start:
            segments.append(_segment(one, start, stop, layout, leaf))
        start = stop
    return FlatLoss(tuple(segments))


def _segment(
    loss: AbstractLoss | None, start: int, stop: int, layout: Layout, leaf: Any
) -> AbstractSegment:
    if loss is None:
        return SquaresSegment.of_range(start, stop)
    return LossSegment(start=start, stop=stop, layout=layout, loss=_fitted(loss, leaf))


def _parts(loss: Any, function: AbstractResidual, structure: PyTree, mixed: bool):
    """For each part of the flat residual its loss, its data points (1 unless `Rows`), its array."""

    def is_leaf(value):
        return value is None or isinstance(value, AbstractLoss)

    if mixed or not isinstance(function, RowResidual):
        for one, leaf in _along(loss, structure, "loss", "the residual", is_leaf):
            yield one, 1, leaf
        return
    # The arrays of a point lie side by side: one loss for all of them.
    blocks = (structure,) if len(function.functions) == 1 else structure
    stand_ins = tuple(_Points(block) for block in blocks)
    one_for_each = stand_ins[0] if len(blocks) == 1 else stand_ins
    pairs = _along(loss, one_for_each, "loss", "the functions of `Rows`", is_leaf)
    for (one, stand_in), data, m in zip(pairs, function.datasets, function.sizes, strict=True):
        leaves, count = jax.tree.leaves(stand_in.block), len(jax.tree.leaves(data)[0])
        if len(leaves) == 1:
            yield one, count, leaves[0]
        elif any(_is_complex(leaf) for leaf in leaves) and one is not None:
            raise TypeError(
                "A function of `Rows` that has a loss must return one array if it is complex; got "
                f"{len(leaves)}."
            )
        else:
            yield one, count, jax.ShapeDtypeStruct((count, m), leaves[0].dtype)


@dataclasses.dataclass(frozen=True)
class _Points:
    """What a function of `Rows` returns for all of its points, as one leaf."""

    block: Any


def _layout(loss: AbstractLoss | None, outer: int, leaf: Any) -> Layout:
    count = math.prod(leaf.shape) // max(outer, 1)
    block = loss.size if isinstance(loss, PerBlock) else 1
    if count % block:
        raise ValueError(
            f"`PerBlock(size={block})` does not divide the residual array of the shape "
            f"{leaf.shape} into whole blocks."
        )
    return Layout(outer, 2 if _is_complex(leaf) else 1, count // block, block)


def _fitted(loss: AbstractLoss, leaf: Any) -> AbstractLoss:
    """The loss with its scale spread over the residuals, or blocks, of one array."""
    if isinstance(loss, PerBlock):
        blocks = jax.ShapeDtypeStruct((math.prod(leaf.shape) // loss.size,), leaf.dtype)
        return dataclasses.replace(loss, loss=_fitted(loss.loss, blocks))
    if isinstance(loss, AbstractScaledLoss) and jnp.ndim(loss.scale) > 0:
        dtype = jnp.finfo(leaf.dtype).dtype
        scale = _broadcast(loss.scale, leaf, "scale", "the residual", dtype)
        return dataclasses.replace(loss, scale=scale.reshape(-1))
    return loss
