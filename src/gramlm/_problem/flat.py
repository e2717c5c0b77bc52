"""From what the user declared to a problem in flat vectors, with what is wrong about it said."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from .._flatten import FlatSpec
from .._linearisation import AbstractLinearisation, AbstractMemoryPolicy
from .._misc import dot, sum_squares
from .._residual.base import AbstractResidual
from .._residual.canonical import canonical, residual_structure
from .box import Box, Face
from .declared import Problem
from .flat_loss import FlatLoss, Segment
from .loss import AbstractLoss, AbstractScaledLoss, PerBlock
from .row_factor import AbstractRowFactor, DiagonalFactor, factored, product
from .weights import AbstractWeighting, check_weights


class FlatProblem(eqx.Module):
    """What is minimised over a flat vector: `½‖W f(θ)‖²`, or its loss, within a box."""

    function: AbstractResidual
    weights: AbstractRowFactor | None = None
    loss: FlatLoss | None = None
    box: Box | None = None

    @property
    def params_spec(self) -> FlatSpec:
        return self.function.params_spec

    def residual(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        """`r = W f(θ)`."""
        return self._weighted(self.function(params))

    def cost(self, residual: Float[Array, " n"]) -> Float[Array, ""]:
        """That of r: `½‖r‖²`, or the loss."""
        return 0.5 * sum_squares(residual) if self.loss is None else self.loss.cost(residual)

    def decrease(self, before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
        """`cost(before) − cost(after)`, without the cancellation of nearly equal sums."""
        if self.loss is None:
            return 0.5 * dot(before - after, before + after)
        return self.loss.decrease(before, after)

    def model(self, at: AbstractLinearisation) -> "Model":
        """The least-squares problem that stands for this one near a point."""
        residual = self._weighted(at.residual)
        if self.loss is None:
            return Model(residual, factored(at, residual, self.weights), self.weights)
        corrected, factor = self.loss.corrected(residual)
        left = product(factor, self.weights)
        return Model(residual, factored(at, corrected, left), left)

    def project(self, params: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        """The nearest point within the bounds."""
        return params if self.box is None else self.box.project(params)

    def divided(self, scale: Float[Array, ""]) -> "FlatProblem":
        """The problem with its residual divided by a number, and its cost by the square."""
        loss = None if self.loss is None else self.loss.divided(scale)
        return dataclasses.replace(self, function=self.function.divided(scale), loss=loss)

    def prepared(self, memory: AbstractMemoryPolicy) -> "FlatProblem":
        """With the residual as a memory policy wants it evaluated."""
        return dataclasses.replace(self, function=memory.prepare(self.function))

    def _weighted(self, residual: Float[Array, " n"]) -> Float[Array, " m"]:
        return residual if self.weights is None else self.weights.vector(residual)


class Model(eqx.Module):
    """The least-squares problem that stands for a problem near a point.

    - `residual`, (n,): r there. `at`: r and J of the least-squares problem, which has the slope
      of the cost and about its curvature; without the columns of parameters that are held.
    - `left`: by which the J of `at` is that of the residual function multiplied.
    - `face`: which parameters are held; None without bounds.
    """

    residual: Float[Array, " n"]
    at: AbstractLinearisation
    left: AbstractRowFactor | None
    face: Face | None = None

    def curved(self, second: Float[Array, " n"]) -> Float[Array, " m"]:
        """A derivative of the residual function, as `at` sees it."""
        return second if self.left is None else self.left.vector(second)

    def within(
        self, box: Box | None, params: Float[Array, " p"]
    ) -> tuple["Model", Float[Array, " p"]]:
        """The model where bounds hold some of the parameters, and the gradient of the others."""
        gradient = self.at.vjp(self.at.residual)
        if box is None:
            return self, gradient
        face = box.face(params, gradient)
        held = dataclasses.replace(self, at=self.held(face), face=face)
        return held, jnp.where(face.free, gradient, 0)

    def held(self, face: Face) -> AbstractLinearisation:
        """`at` with the columns of those that a face holds left out as well."""
        return factored(self.at, self.at.residual, None, face.free)


def flat_problem(
    residual_fn: Callable[..., Any], params: PyTree, args: PyTree = None, has_aux: bool = False
) -> tuple[FlatProblem, Float[Array, " p"]]:
    """The problem over a flat vector, and the flat parameters.

    Raises `TypeError` or `ValueError`, naming the argument.
    """
    if not isinstance(residual_fn, Problem):
        function, flat = canonical(residual_fn, params, args, has_aux)
        return FlatProblem(function), flat
    function, flat = canonical(residual_fn.residual_fn, params, args, has_aux)
    structure = residual_structure(function, flat)
    problem = FlatProblem(
        function=function,
        weights=_row_factor(residual_fn.weights, structure, flat.dtype),
        loss=_flat_loss(residual_fn.loss, structure),
        box=_box(residual_fn.lower, residual_fn.upper, params, flat),
    )
    return problem, flat


def _row_factor(weights: Any, structure: PyTree, dtype: Any) -> AbstractRowFactor | None:
    if weights is None:
        return None
    if isinstance(weights, AbstractWeighting):
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(structure))
        return weights.factor(size, dtype)
    flat = _spread(weights, structure, "weights", "the residual", 1.0, dtype)
    check_weights(flat, "`weights`")
    return DiagonalFactor(jnp.sqrt(flat))


def _box(lower: Any, upper: Any, params: PyTree, flat: Float[Array, " p"]) -> Box | None:
    if lower is None and upper is None:
        return None
    bounds = [
        _spread(bound, params, name, "`params`", infinite, flat.dtype)
        for bound, name, infinite in ((lower, "lower", -jnp.inf), (upper, "upper", jnp.inf))
    ]
    for bound, name in zip(bounds, ("lower", "upper"), strict=True):
        if not isinstance(bound, Tracer) and np.any(np.isnan(bound)):
            raise ValueError(f"`{name}` holds NaN; write infinity, or None, for no bound.")
    low, high = bounds
    if not isinstance(low, Tracer) and not isinstance(high, Tracer):
        crossed = np.asarray(low > high)
        if np.any(crossed):
            raise ValueError(
                f"`lower` exceeds `upper` for {int(np.sum(crossed))} parameters; the first of "
                f"them has {np.asarray(low)[crossed][0]} and {np.asarray(high)[crossed][0]}."
            )
    return Box(low, high)


def _spread(
    tree: Any, structure: PyTree, name: str, of: str, missing: float, dtype: Any
) -> Float[Array, " m"]:
    """One number for each entry of the arrays of `structure`, from a prefix of it."""
    parts = [
        _broadcast(missing if value is None else value, leaf, name, of, dtype)
        for value, leaf in _along(tree, structure, name, of, lambda x: x is None)
    ]
    return jnp.concatenate(parts)


def _broadcast(value: Any, leaf: Any, name: str, of: str, dtype: Any) -> Float[Array, " m"]:
    shape = jnp.shape(leaf)
    try:
        array = jnp.asarray(value, dtype)
        return jnp.broadcast_to(array, shape).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be numbers that broadcast to the arrays of {of}; got "
            f"{_described(value)} for one of the shape {shape}."
        ) from error


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return repr(value) if shape is None else f"an array of the shape {tuple(shape)}"


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


def _flat_loss(loss: Any, structure: PyTree) -> FlatLoss | None:
    if loss is None:
        return None

    pairs = _along(
        loss, structure, "loss", "the residual", lambda x: x is None or isinstance(x, AbstractLoss)
    )
    segments, start = [], 0
    for one, leaf in pairs:
        if not (one is None or isinstance(one, AbstractLoss)):
            raise TypeError(
                f"`loss` must be a `gramlm.AbstractLoss`, such as `gramlm.Huber(1.0)`; got {one!r}."
            )
        stop = start + math.prod(leaf.shape)
        if stop > start:
            segments.append(Segment(_fitted(one, leaf), start, stop))
        start = stop
    return FlatLoss(tuple(segments))


def _fitted(loss: AbstractLoss | None, leaf: Any) -> AbstractLoss | None:
    """The loss with its scale spread over the residuals, or blocks, of one array."""
    size = math.prod(leaf.shape)
    if isinstance(loss, PerBlock):
        if size % loss.size:
            raise ValueError(
                f"`PerBlock(size={loss.size})` does not divide the residual array of the shape "
                f"{leaf.shape} into whole blocks."
            )
        blocks = jax.ShapeDtypeStruct((size // loss.size,), leaf.dtype)
        return dataclasses.replace(loss, loss=_fitted(loss.loss, blocks))
    if isinstance(loss, AbstractScaledLoss) and jnp.ndim(loss.scale) > 0:
        scale = _broadcast(loss.scale, leaf, "scale", "the residual", leaf.dtype)
        return dataclasses.replace(loss, scale=scale)
    return loss
