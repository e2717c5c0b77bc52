"""Compiled programs that are not waited for."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .compiling import compiler_options, outside


class _Fixed:
    """What is compiled in: the structure of a tree, and its leaves that are no arrays."""

    def __init__(self, structure: Any, leaves: tuple[Any, ...]):
        self._key = (structure, leaves)
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Fixed) and self._key == other._key

    def tree(self, arrays: list[Any]) -> PyTree:
        structure, leaves = self._key
        pairs = zip(arrays, leaves, strict=True)
        return jax.tree.unflatten(structure, [b if a is None else a for a, b in pairs])


class Split:
    """A tree, split once into what is compiled in and what is not.

    For small problems that takes as long as the steps do.
    """

    def __init__(self, tree: PyTree):
        leaves, structure = jax.tree.flatten(tree)
        arrays = [eqx.is_array(leaf) for leaf in leaves]
        pairs = list(zip(leaves, arrays, strict=True))
        self.arrays = [leaf if array else None for leaf, array in pairs]
        self.fixed = _Fixed(structure, tuple(None if array else leaf for leaf, array in pairs))


class Program:
    """`function(tree, given, *rest)` compiled, with `given` overwritten if `donate`.

    Unlike one of `equinox.filter_jit` it returns before its results are there.
    """

    def __init__(self, function: Callable[..., Any], donate: bool = False):
        def run(fixed: _Fixed, arrays: list[Any], given: PyTree, rest: PyTree) -> Any:
            return function(fixed.tree(arrays), given, *rest)

        run.__name__ = run.__qualname__ = function.__name__
        self._jitted = cache(
            lambda options: jax.jit(
                run,
                static_argnums=0,
                donate_argnums=(2,) if donate else (),
                compiler_options=dict(options),
            )
        )

    def __call__(self, split: Split, given: PyTree, *rest: PyTree) -> Any:
        # Within a transformation only the outermost program has options.
        options = tuple(compiler_options().items()) if outside() else ()
        return self._jitted(options)(split.fixed, split.arrays, given, rest)


# How an error of `equinox.error_if` looks when it comes out of a compiled program, and what follows
# it there: advice to use `filter_jit`.
_MARK, _ADVICE = "_EquinoxRuntimeError: ", "\n\n\n----"


def equinox_error(error: Exception) -> Exception | None:
    """An error of `equinox.error_if` as `equinox.filter_jit` would raise it."""
    _, mark, message = str(error).partition(_MARK)
    return eqx.EquinoxRuntimeError(message.partition(_ADVICE)[0]) if mark else None


@contextmanager
def without_logged_errors() -> Iterator[None]:
    """Keeps JAX from printing errors of the residual that are raised anyway."""
    logger = logging.getLogger("jax._src.callback")
    logger.addFilter(_is_no_failure)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_failure)


def _is_no_failure(record: logging.LogRecord) -> bool:
    return record.getMessage() != "jax.pure_callback failed"
