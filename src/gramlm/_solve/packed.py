"""Trees that go into a compiled program and come out of it in few arrays.

Each array that a program returns takes a microsecond or two, as long as a step of a small solve
takes for some of its numbers; and a solve carries sixty of them. So scalars of one dtype travel as
one vector.
"""

from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree


class _Layout:
    """Where the leaves of a tree are: of each its vector and its place there, or its array."""

    def __init__(self, structure: Any, places: tuple[tuple[int | None, int], ...]):
        self.structure, self.places = structure, places
        self._hash = hash((structure, places))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, _Layout):
            return False
        return (self.structure, self.places) == (other.structure, other.places)


@jtu.register_pytree_node_class
class Packed:
    """A tree whose scalars are in `vectors`, one for each dtype, and the rest in `arrays`."""

    def __init__(self, layout: _Layout, vectors: tuple[Any, ...], arrays: tuple[Any, ...]):
        self._layout, self.vectors, self.arrays = layout, vectors, arrays

    def __repr__(self) -> str:
        parts = [f"{part.dtype}{list(part.shape)}" for part in (*self.vectors, *self.arrays)]
        return f"Packed({', '.join(parts)})"

    def __reduce__(self):
        # The structure of a tree cannot be pickled or copied, the tree itself can.
        return Packed.of, (self.tree(),)

    def tree_flatten(self):
        return (self.vectors, self.arrays), self._layout

    @classmethod
    def tree_unflatten(cls, layout: _Layout, children):
        return cls(layout, *children)

    @classmethod
    def of(cls, tree: PyTree) -> "Packed":
        """Of arrays, traced or not."""
        leaves, structure = jtu.tree_flatten(tree)
        scalars: dict[str, list[Any]] = {}
        arrays, places = [], []
        names = sorted({str(leaf.dtype) for leaf in leaves if _is_number(leaf)})
        for leaf in leaves:
            together = scalars.setdefault(str(leaf.dtype), []) if _is_number(leaf) else arrays
            index = names.index(str(leaf.dtype)) if _is_number(leaf) else None
            places.append((index, len(together)))
            together.append(leaf)
        vectors = tuple(_stacked(scalars[name]) for name in names)
        return cls(_Layout(structure, tuple(places)), vectors, tuple(arrays))

    def tree(self) -> PyTree:
        """The tree; outside of a program its scalars are NumPy's, which are waited for.

        Of many trees at once, as `vmap` makes them, with the axis of the trees in front.
        """
        vectors = [_by_place(vector) for vector in self.vectors]
        leaves = [
            self.arrays[place] if index is None else vectors[index][place, ...]
            for index, place in self._layout.places
        ]
        return jtu.tree_unflatten(self._layout.structure, leaves)


def _by_place(vector: Any) -> Any:
    """The axis of the places in front."""
    traced = isinstance(vector, Tracer)
    vector = vector if traced else np.asarray(vector)
    return vector if vector.ndim == 1 else (jnp if traced else np).moveaxis(vector, -1, 0)


def _stacked(scalars: list[Any]) -> Any:
    traced = any(isinstance(scalar, Tracer) for scalar in scalars)
    return jnp.stack(scalars) if traced else np.stack([np.asarray(scalar) for scalar in scalars])


def _is_number(leaf: Any) -> bool:
    return leaf.shape == () and isinstance(leaf.dtype, np.dtype) and leaf.dtype.kind in "fiub"
