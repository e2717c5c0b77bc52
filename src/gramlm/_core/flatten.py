"""Pytrees to flat vectors and back, and the checks that belong there."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, Inexact, PyTree

from .free import Mask, resolved

_FIX_IT = " What is no parameter can be fixed: `gramlm.solve(…, free=eqx.is_inexact_array)`."

_SUPPORTED = ("float32", "float64", "complex64", "complex128")


@dataclass(frozen=True)
class Slot:
    """The place of one array in the flat vector: its free entries, row by row.

    A complex array is two real ones, all real parts and then all imaginary parts.
    """

    shape: tuple[int, ...]
    is_complex: bool
    mask: Mask | None = None

    @property
    def size(self) -> int:
        """How many real numbers of the flat vector it takes."""
        count = math.prod(self.shape) if self.mask is None else len(self.mask.indices)
        return 2 * count if self.is_complex else count

    def flatten(self, array: Inexact[Array, "..."]) -> Float[Array, " size"]:
        """The free entries as real numbers."""
        numbers = array.reshape(-1)
        if self.mask is not None:
            numbers = numbers[self.mask.indices]
        return jnp.concatenate([numbers.real, numbers.imag]) if self.is_complex else numbers

    def unflatten(
        self, vector: Float[Array, " size"], fixed: Inexact[Array, "..."] | None
    ) -> Inexact[Array, "..."]:
        """The array, with the entries of `fixed` where there is a mask."""
        if self.is_complex:
            # Not by a sum with 1j, which would change signs of zero and spread NaN.
            vector = jax.lax.complex(*jnp.split(vector, 2))
        if self.mask is None or fixed is None:
            return vector.reshape(self.shape)
        whole = fixed.reshape(-1).at[self.mask.indices]
        return whole.set(vector, indices_are_sorted=True, unique_indices=True).reshape(self.shape)


class FlatSpec(eqx.Module):
    """How a flat vector becomes a pytree. Compares by value, so it never triggers a recompile.

    `slots` has None for a leaf that is fixed; `fixed` has that leaf, an array of which entries are
    fixed, or None.
    """

    treedef: Any = eqx.field(static=True)
    slots: tuple[Slot | None, ...] = eqx.field(static=True)
    fixed: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(slot.size for slot in self.slots if slot is not None)

    @property
    def blank(self) -> "FlatSpec":
        """For what belongs to parameters, such as errors: None and 0 in the place of the fixed."""
        fixed = (None if array is None else jnp.zeros_like(array) for array in self._masked())
        return FlatSpec(self.treedef, self.slots, tuple(fixed))

    def _masked(self):
        for slot, fixed in zip(self.slots, self.fixed, strict=True):
            yield None if slot is None else fixed

    def unflatten(self, vector: Float[Array, " p"]) -> PyTree:
        """The pytree whose free leaves are slices of `vector`."""
        leaves, start = [], 0
        for slot, fixed in zip(self.slots, self.fixed, strict=True):
            if slot is None:
                leaves.append(fixed)
                continue
            stop = start + slot.size
            leaves.append(slot.unflatten(vector[start:stop], fixed))
            start = stop
        return jtu.tree_unflatten(self.treedef, leaves)


def as_parameters(params: PyTree, free: PyTree = None) -> tuple[FlatSpec, Float[Array, " p"]]:
    """The free parameters as one flat vector; all of them unless `free` is given.

    Raises `TypeError` or `ValueError` unless what is free is a non-empty pytree of real or complex
    arrays (or numbers), all of one precision, single or double.
    """
    free = resolved(free, params)
    paths, treedef = jtu.tree_flatten_with_path(params)
    slots, fixed, parts, arrays = [], [], [], []
    for entry, (path, leaf) in zip(free.entries, paths, strict=True):
        if entry is False:
            slots.append(None)
            fixed.append(leaf)
            continue
        array = _as_numbers(leaf, f"`params{jtu.keystr(path)}`", _FIX_IT)
        mask = entry if isinstance(entry, Mask) else None
        slots.append(Slot(array.shape, jnp.iscomplexobj(array), mask))
        fixed.append(None if mask is None else array)
        parts.append(slots[-1].flatten(array))
        arrays.append(array)
    if sum(part.size for part in parts) == 0:
        raise ValueError(
            "`params` has no entries: there is nothing to solve for. Pass a pytree of real or "
            "complex arrays."
        )
    if len({part.dtype for part in parts}) > 1:
        raise TypeError(
            f"`params` mixes the dtypes {dtypes_of(arrays)}. All leaves must have one precision: "
            "cast them with `jax.tree.map(lambda x: x.astype(...), params)`."
        )
    return FlatSpec(treedef, tuple(slots), tuple(fixed)), _concatenate(parts)


def flatten_residual(residual: PyTree) -> Float[Array, " n"]:
    """Residuals as one flat vector, with the same checks and messages of their own."""
    leaves = jtu.tree_leaves(residual)
    if not leaves:
        raise ValueError(
            "`residual_fn` returned no arrays"
            + (" (it returned None: is a `return` missing?)" if residual is None else "")
            + ". It must return a pytree of real or complex arrays."
        )
    arrays = [_as_numbers(leaf, "what `residual_fn` returned") for leaf in leaves]
    if sum(array.size for array in arrays) == 0:
        shapes = [array.shape for array in arrays]
        raise ValueError(
            f"`residual_fn` returned empty arrays, of shapes {shapes}: there is nothing to fit."
        )
    parts = [Slot(array.shape, jnp.iscomplexobj(array)).flatten(array) for array in arrays]
    if len({part.dtype for part in parts}) > 1:
        raise TypeError(
            f"`residual_fn` returned arrays of the dtypes {dtypes_of(arrays)}; all must have one "
            "precision."
        )
    return _concatenate(parts)


def dtypes_of(tree: PyTree) -> str:
    """The dtypes of the leaves, for an error message."""
    return ", ".join(sorted({str(jnp.asarray(leaf).dtype) for leaf in jtu.tree_leaves(tree)}))


def _concatenate(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _as_numbers(leaf: Any, name: str, hint: str = "") -> Array:
    try:
        array = jnp.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} is {leaf!r}, of type {type(leaf).__name__}; it must be a real or complex "
            f"array.{hint}"
        ) from error
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        raise TypeError(
            f"{name} is of dtype {array.dtype}; it must be of a floating or complex dtype. Cast it "
            f"with `.astype(float)`.{hint}"
        )
    if str(array.dtype) not in _SUPPORTED:
        raise TypeError(
            f"{name} is of dtype {array.dtype}; supported are float32 and float64, complex64 "
            "and complex128."
        )
    return array
