"""Numbers that are declared for arrays, spread over them."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def broadcast(value: Any, leaf: Any, name: str, of: str, dtype: Any) -> Float[Array, "..."]:
    """A number, or an array, for each entry of a leaf; `name` and `of` are what errors name."""
    shape = jnp.shape(leaf)
    if isinstance(value, complex) or jnp.issubdtype(getattr(value, "dtype", float), complex):
        raise TypeError(
            f"`{name}` must be real for real arrays of {of}; got {described_array(value)}."
        )
    try:
        return jnp.broadcast_to(jnp.asarray(value, dtype), shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be numbers that broadcast to the arrays of {of}; got "
            f"{described_array(value)} for one of the shape {shape}."
        ) from error


def described_array(value: Any) -> str:
    """What came in the place of numbers, for an error message."""
    shape = getattr(value, "shape", None)
    return repr(value) if shape is None else f"an array of the shape {tuple(shape)}"
