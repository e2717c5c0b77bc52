"""Pytrees to flat vectors and back, and the checks that belong there."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

_SUPPORTED = ("float32", "float64")


class FlatSpec(eqx.Module):
    """How a flat vector becomes a pytree. Compares by value, so it never triggers a recompile."""

    treedef: Any = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    def unflatten(self, vector: Float[Array, " p"]) -> PyTree[Array]:
        """The pytree whose leaves are slices of `vector`."""
        leaves, start = [], 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            leaves.append(vector[start:stop].reshape(shape))
            start = stop
        return jtu.tree_unflatten(self.treedef, leaves)


def as_parameters(params: PyTree) -> tuple[FlatSpec, Float[Array, " p"]]:
    """Parameters as one flat vector.

    Raises `TypeError` or `ValueError` unless `params` is a non-empty pytree of real arrays (or
    floats), all of one dtype, float32 or float64.
    """
    paths, treedef = jtu.tree_flatten_with_path(params)
    arrays = [_as_real_array(leaf, f"`params{jtu.keystr(path)}`") for path, leaf in paths]
    if sum(array.size for array in arrays) == 0:
        raise ValueError(
            "`params` has no entries: there is nothing to solve for. Pass a pytree of real arrays."
        )
    dtypes = sorted({str(array.dtype) for array in arrays})
    if len(dtypes) > 1:
        raise TypeError(
            f"`params` mixes the dtypes {', '.join(dtypes)}. All leaves must have one: cast them "
            "with `jax.tree.map(lambda x: x.astype(...), params)`."
        )
    spec = FlatSpec(treedef, tuple(array.shape for array in arrays))
    return spec, _concatenate(arrays)


def flatten_residual(residual: PyTree) -> Float[Array, " n"]:
    """Residuals as one flat vector, with the same checks and messages of their own."""
    leaves = jtu.tree_leaves(residual)
    if not leaves:
        raise ValueError(
            "`residual_fn` returned no arrays"
            + (" (it returned None: is a `return` missing?)" if residual is None else "")
            + ". It must return a pytree of real arrays."
        )
    arrays = [_as_real_array(leaf, "what `residual_fn` returned") for leaf in leaves]
    if sum(array.size for array in arrays) == 0:
        shapes = [array.shape for array in arrays]
        raise ValueError(
            f"`residual_fn` returned empty arrays, of shapes {shapes}: there is nothing to fit."
        )
    dtypes = sorted({str(array.dtype) for array in arrays})
    if len(dtypes) > 1:
        raise TypeError(
            f"`residual_fn` returned arrays of the dtypes {', '.join(dtypes)}; all must have one."
        )
    return _concatenate(arrays)


def _concatenate(arrays: list[Array]) -> Array:
    flat = [array.reshape(-1) for array in arrays]
    return flat[0] if len(flat) == 1 else jnp.concatenate(flat)


def _as_real_array(leaf: Any, name: str) -> Array:
    try:
        array = jnp.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} is {leaf!r}, of type {type(leaf).__name__}; it must be a real array."
        ) from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(
            f"{name} is complex ({array.dtype}); it must be real. Split it into real and "
            "imaginary parts, `jnp.stack([z.real, z.imag])`."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} is of dtype {array.dtype}; it must be of a floating dtype. Cast it with "
            "`.astype(float)`."
        )
    if str(array.dtype) not in _SUPPORTED:
        raise TypeError(
            f"{name} is of dtype {array.dtype}; supported are {' and '.join(_SUPPORTED)}."
        )
    return array
