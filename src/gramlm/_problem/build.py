"""From what the user declared to a problem in flat vectors, with what is wrong about it said."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, PyTree

from .._core.checks import check_not_negative
from .._core.flatten import FlatSpec
from .box import AbstractBox, Box, Unbounded
from .broadcast import broadcast, described_array
from .flat import FlatProblem
from .flat_loss import AbstractFlatLoss, FlatLoss, Squares
from .loss import AbstractLoss, known
from .problem import Problem
from .residual.base import AbstractResidual
from .residual.canonical import canonical
from .residual.outputs import Part, is_complex
from .row_factor import AbstractRowFactor, DiagonalFactor, Unweighted
from .segment import AbstractSegment, Layout, LossSegment, SquaresSegment
from .weights import AbstractWeighting


def flat_problem(
    residual_fn: Callable[..., Any], params: PyTree, args: PyTree = None, has_aux: bool = False
) -> tuple[FlatProblem, Float[Array, " p"]]:
    """The problem over a flat vector, and the flat parameters.

    Raises `TypeError` or `ValueError`, naming the argument.
    """
    declared = Problem.of(residual_fn)
    function, flat = canonical(declared.residual_fn, params, args, has_aux, free=declared.free)
    weights = _row_factor(declared.weights, function, flat)
    problem = FlatProblem(
        function=function,
        weights=weights,
        loss=_flat_loss(declared.loss, function, flat, weights),
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
    leaves, structure = [], function.structure(params)
    for value, leaf in _along(weights, structure, "weights", "the residual", _is_none):
        array = broadcast(1.0 if value is None else value, leaf, "weights", "the residual", dtype)
        check_not_negative(
            array, "weights", ": they multiply squares, as inverse variances do", finite=True
        )
        root = jnp.sqrt(array)
        leaves.append(jax.lax.complex(root, root) if is_complex(leaf) else root)
    tree = jtu.tree_unflatten(jtu.tree_structure(structure), leaves)
    return DiagonalFactor(function.flatten_output(tree))


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
            parts.append(slot.flatten(broadcast(value, leaf, name, "`params`", dtype)))
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
                f"imaginary part; got {described_array(value)}."
            )
        real = imaginary = value
    parts = (broadcast(part, leaf, name, "`params`", dtype) for part in (real, imaginary))
    return jax.lax.complex(*parts)


def _is_none(value: Any) -> bool:
    return value is None


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
    loss: Any, function: AbstractResidual, params: Float[Array, " p"], weights: AbstractRowFactor
) -> AbstractFlatLoss:
    if loss is None:
        return Squares()
    parts, declared = function.parts(params)
    if weights.new_rows is not None:
        # One loss for all of them, as none belongs to a part of the residual.
        rows = jax.ShapeDtypeStruct((weights.new_rows,), params.dtype)
        parts, declared = Part.of(rows), "the residual"
    segments, start = [], 0
    for one, part in _along(loss, parts, "loss", declared, _is_loss_or_none):
        if part.size > 0:
            segments.append(_segment(one, start, part))
        start += part.size
    return FlatLoss(tuple(segments))


def _is_loss_or_none(value: Any) -> bool:
    return value is None or isinstance(value, AbstractLoss)


def _segment(loss: Any, start: int, part: Part) -> AbstractSegment:
    stop = start + part.size
    if loss is None:
        return SquaresSegment.of_range(start, stop)
    if not isinstance(loss, AbstractLoss):
        raise TypeError(
            "`loss` must be a `gramlm.extend.AbstractLoss`, such as `gramlm.Huber(1.0)`; got "
            f"{loss!r}."
        )
    if part.array is None:
        raise TypeError(
            "A function of `Rows` that has a loss must return one array if it is complex; got "
            "several."
        )
    fitted = known(loss).fitted(part.array)
    layout = _layout(fitted.block, part.points, part.array)
    return LossSegment(start=start, stop=stop, layout=layout, loss=fitted)


def _layout(block: int, outer: int, leaf: Any) -> Layout:
    count = math.prod(leaf.shape) // outer
    if count % block:
        raise ValueError(
            f"`PerBlock(size={block})` does not divide the residual array of the shape "
            f"{leaf.shape} into whole blocks."
        )
    return Layout(outer, 2 if is_complex(leaf) else 1, count // block, block)
