"""Which parameters are free: as the user says it, and leaf by leaf."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

_HOW_TO = (
    "Pass a pytree prefix of `params` whose leaves are True, False, functions such as "
    "`eqx.is_inexact_array`, or boolean arrays of the shape of a parameter."
)


@dataclass(frozen=True)
class Mask:
    """The free entries of one array. Compares by value, and is no array to a compiled program."""

    shape: tuple[int, ...]
    bits: bytes

    @property
    def size(self) -> int:
        """Entries, free or not."""
        return math.prod(self.shape)

    @property
    def indices(self) -> np.ndarray:
        """Where the free entries are in the flattened array, ascending."""
        bits = np.frombuffer(self.bits, np.uint8)
        return np.flatnonzero(np.unpackbits(bits, count=self.size))


Entry = bool | Mask


@dataclass(frozen=True)
class Free:
    """What is free of parameters of one structure, an entry a leaf. Compares by value."""

    treedef: Any
    entries: tuple[Entry, ...]

    def map(self, function: Callable[[Any], Any], params: PyTree) -> PyTree:
        """The parameters with a function applied to the leaves that are free, or in part."""
        leaves = zip(jtu.tree_leaves(params), self.entries, strict=True)
        changed = [leaf if entry is False else function(leaf) for leaf, entry in leaves]
        return jtu.tree_unflatten(self.treedef, changed)

    def merge(self, fixed: PyTree, found: PyTree) -> PyTree:
        """The leaves of `fixed` where nothing is free, and those of `found`."""
        leaves = zip(jtu.tree_leaves(fixed), jtu.tree_leaves(found), self.entries, strict=True)
        merged = [given if entry is False else new for given, new, entry in leaves]
        return jtu.tree_unflatten(self.treedef, merged)


def frozen(free: PyTree) -> PyTree:
    """The same spec without arrays: a constant to a compiled program, which may be an argument."""
    return jtu.tree_map(_as_mask, free)


def resolved(free: PyTree, params: PyTree) -> Free:
    """What is free of these parameters; all of them for None.

    Raises `TypeError` or `ValueError` for a `free` that does not fit them.
    """
    paths, treedef = jtu.tree_flatten_with_path(params)
    if isinstance(free, Free):
        if free.treedef != treedef:
            raise ValueError(
                f"`params` must keep the structure that `free` was given for, {free.treedef}; "
                f"got {treedef}."
            )
        return free
    if free is None:
        return Free(treedef, (True,) * len(paths))
    said: list[Any] = []

    def spread(entry: Any, part: PyTree) -> None:
        said.extend([entry] * len(jtu.tree_leaves(part)))

    try:
        jtu.tree_map(spread, frozen(free), params)
    except (TypeError, ValueError) as error:
        reason = str(error)[:300].rstrip(". ")
        raise ValueError(f"`free` is no prefix of `params`: {reason}. {_HOW_TO}") from error
    entries = tuple(
        _entry(value, leaf, jtu.keystr(path))
        for value, (path, leaf) in zip(said, paths, strict=True)
    )
    if paths and not any(entry is not False for entry in entries):
        raise ValueError(
            "`free` leaves nothing free: there is nothing to solve for. `eqx.is_inexact_array` "
            "says no to Python numbers, `eqx.is_inexact_array_like` does not."
        )
    for entry, (path, leaf) in zip(entries, paths, strict=True):
        if entry is False:
            _check_fixed(leaf, jtu.keystr(path))
    return Free(treedef, entries)


def _entry(value: Any, leaf: Any, path: str) -> Entry:
    if callable(value):
        value = value(leaf)
    if isinstance(value, Tracer):
        raise TypeError(
            f"`free` at `params{path}` is traced by a transformation, but it decides on the sizes "
            "of the program. Make it outside of `jit` and `vmap`, by NumPy."
        )
    value = _as_mask(value)
    if isinstance(value, bool):
        return value
    if not isinstance(value, Mask):
        kind = f"of dtype {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise TypeError(f"`free` at `params{path}` is {value!r}, {kind}. {_HOW_TO}")
    if np.shape(leaf) != value.shape:
        raise ValueError(
            f"The mask in `free` for `params{path}` has the shape {value.shape}, but the parameter "
            f"has {np.shape(leaf)}. They must be the same; `np.broadcast_to` makes it so."
        )
    count = len(value.indices)
    return bool(count) if count in (0, value.size) else value


def _as_mask(value: Any) -> Any:
    """A mask, or a bool, where the value is a boolean array that is known; else the value."""
    array = isinstance(value, np.ndarray | np.bool_ | jax.Array) and not isinstance(value, Tracer)
    if not array or value.dtype != bool:
        return value
    mask = np.asarray(value)
    return Mask(mask.shape, np.packbits(mask).tobytes()) if mask.ndim else bool(mask)


def _check_fixed(leaf: Any, path: str) -> None:
    if isinstance(leaf, jax.Array):
        return
    if isinstance(leaf, np.ndarray):
        if leaf.dtype.kind in "OSUMmV" and not jnp.issubdtype(leaf.dtype, np.number):
            raise TypeError(
                f"`params{path}` is fixed, and an array of dtype {leaf.dtype}, which no compiled "
                "program can take. Make it a tuple, or leave it to a closure."
            )
        return
    # What is no array is a constant of the compiled program, looked up by its hash.
    try:
        hash(leaf)
    except TypeError as error:
        raise TypeError(
            f"`params{path}` is fixed, and {leaf!r}, of type {type(leaf).__name__}, which has no "
            "hash. Make it an array, give it a `__hash__`, or leave it to a closure."
        ) from error
