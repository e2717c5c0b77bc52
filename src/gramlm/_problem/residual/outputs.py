"""What a residual function returns: shapes, parts, and checks that say what is wrong with it."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core.flatten import FlatSpec, Slot, dtypes_of, flatten_residual


@dataclass(frozen=True)
class Part:
    """Residuals that have one loss: an array, or what a function returns at all data points.

    - `points`: along its leading axis; blocks do not reach from one to another. 1 for a plain
      array.
    - `array`: its shape and dtype; None if it is `size` real numbers of several complex arrays,
      which no loss can tell apart.
    """

    points: int
    size: int
    array: jax.ShapeDtypeStruct | None

    @classmethod
    def of(cls, array: Any, points: int = 1) -> "Part":
        """An array."""
        size = Slot(array.shape, is_complex(array)).size
        return cls(points, size, jax.ShapeDtypeStruct(array.shape, array.dtype))


def is_complex(array: Any) -> bool:
    """Whether an array, or what stands for one, is of complex numbers."""
    return jnp.issubdtype(array.dtype, jnp.complexfloating)


def of_dtype(dtype: Any, output: PyTree, name: str) -> Float[Array, " n"]:
    """The flat residual, checked to be of the dtype of the parameters."""
    residual = flatten_residual(output)
    if residual.dtype != dtype:
        raise TypeError(
            f"{name} returned {dtypes_of(output)} residuals for {dtype} parameters. Cast the data "
            "or the parameters, so that both are of one precision."
        )
    return residual


def output_spec(structure: PyTree) -> FlatSpec:
    """How a vector with one number for each real entry becomes a pytree of this structure."""
    leaves, treedef = jax.tree.flatten(structure)
    slots = tuple(Slot(leaf.shape, is_complex(leaf)) for leaf in leaves)
    return FlatSpec(treedef, slots, (None,) * len(slots))


def check_values(structure: PyTree, dtype: Any) -> None:
    """Raises for a function of the parameters whose values can have no standard errors."""
    leaves = jax.tree.leaves(structure)
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
