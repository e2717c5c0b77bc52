"""The tanh networks of two problems: start and value."""

from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np


def initial(widths: tuple[int, ...], seed: int, dtype: Any) -> list[tuple[Any, Any]]:
    """Glorot-normal weights of shape (in, out) and zero biases, one pair a layer."""
    rng = np.random.default_rng(seed)
    return [
        (
            jnp.asarray(rng.normal(size=(i, o)) * np.sqrt(2.0 / (i + o)), dtype),
            jnp.zeros((o,), dtype),
        )
        for i, o in pairwise(widths)
    ]


def value(params: Any, x: Any) -> Any:
    """The network at x of shape (..., in): tanh layers, then a linear one; shape (..., out)."""
    for weights, bias in params[:-1]:
        x = jnp.tanh(x @ weights + bias)
    weights, bias = params[-1]
    return x @ weights + bias
