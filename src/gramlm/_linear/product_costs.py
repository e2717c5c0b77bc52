"""What products with J cost, measured."""

import time
import weakref
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.costs import ProductCosts
from .._model.linearisation import AbstractLinearisation
from .._model.memory import AbstractMemoryPolicy, RowBlocks
from .._problem.residual.base import AbstractResidual

# Vectors in the block whose time is compared with that of one. Arbitrary.
_BLOCK = 8

# Points of each data set that stand for all, where rows are declared. Arbitrary.
_SAMPLE = 512

# Points in a block whose rows are not formed. Without rows, a point holds what the residual
# computes for it: little, or it would be cheaper to form its row. Arbitrary.
POINTS_OF_SPARSE_ROWS = 4096

# What was measured stays, so that the next solve with the same residual is the same program.
_known: weakref.WeakKeyDictionary[Any, dict[Any, "ProductCosts"]] = weakref.WeakKeyDictionary()


def measured(
    key: Callable[..., Any],
    memory: AbstractMemoryPolicy,
    function: AbstractResidual,
    params: Float[Array, " p"],
) -> ProductCosts:
    """The costs for a residual; remembered for the function `key`. Compiles and runs
    small programs."""
    try:
        found = _known.setdefault(key, {})
    except TypeError:  # neither hashable nor weakly referable
        found = {}
    case = (function.size, params.size, params.dtype.name)
    if case not in found:
        if function.cheap_rows and isinstance(memory, RowBlocks):
            found[case] = _of_rows(memory.block_size, function, params)
        else:
            at = _linearised(memory, function, params)
            one, several = _seconds(_single, at, 1), _seconds(_block, at, _BLOCK)
            found[case] = ProductCosts(one, _slope(one, several), True)
    return found[case]


def _of_rows(
    block_size: int, function: AbstractResidual, params: Float[Array, " p"]
) -> ProductCosts:
    sample = function.sample(_SAMPLE)
    assembled = _linearised(RowBlocks(block_size), sample, params)
    differentiated = _linearised(RowBlocks(block_size, assemble=False), sample, params)
    by_rows = _seconds(_block, assembled, _BLOCK)
    by_vectors = _seconds(_block, differentiated, _BLOCK)
    one = _seconds(_single, differentiated, 1)
    if by_vectors < 0.5 * by_rows:
        # All points: a part of the time does not depend on how many they are.
        whole = _linearised(RowBlocks(POINTS_OF_SPARSE_ROWS, assemble=False), function, params)
        return ProductCosts(_seconds(_single, whole, 1), _slope(one, by_vectors), False)
    seconds = one * function.size / sample.size
    wider = _seconds(_block, assembled, 4 * _BLOCK)
    # Rows are formed whatever the number of vectors: a + 8 s and a + 32 s give both.
    each = max(wider - by_rows, 0.0) / (3 * _BLOCK)
    return ProductCosts(seconds, each / max(by_rows - (_BLOCK - 1) * each, each, 1e-9), True)


def _slope(one: float, several: float) -> float:
    return max((several / one - 1) / (_BLOCK - 1), 0.0)


@eqx.filter_jit
def _linearised(memory, function, params) -> AbstractLinearisation:
    return memory.linearise(memory.prepare(function), params)[0]


@eqx.filter_jit
def _single(at: AbstractLinearisation, u: Float[Array, "1 n"]):
    return at.jvp(at.vjp(u[0]))


@eqx.filter_jit
def _block(at: AbstractLinearisation, u: Float[Array, "b n"]):
    return at.jvp_block(at.vjp_block(u))


def _seconds(product, at: AbstractLinearisation, vectors: int) -> float:
    """The shorter of two runs with this many vectors, after one that compiles."""
    u = jnp.ones((vectors, 1), at.residual.dtype) * at.residual
    jax.block_until_ready(product(at, u))
    times = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(product(at, u))
        times.append(time.perf_counter() - start)
    return max(min(times), 1e-9)
