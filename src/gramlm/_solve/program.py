"""Compiled programs that are not waited for."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.core import Tracer
from jaxtyping import PyTree

from .compiling import compiler_options, outside


class Fixed:
    """What is compiled in: the structure of a tree, and its leaves that are no arrays."""

    def __init__(self, structure: Any, leaves: tuple[Any, ...]):
        self._key = (structure, leaves)
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Fixed) and self._key == other._key)

    def tree(self, arrays: list[Any]) -> PyTree:
        structure, leaves = self._key
        pairs = zip(arrays, leaves, strict=True)
        return jax.tree.unflatten(structure, [b if a is None else a for a, b in pairs])


class Split(NamedTuple):
    """A tree, split once into what is compiled in and its arrays, None in the place of the rest.

    For small problems that takes as long as the steps do.
    """

    fixed: Fixed
    arrays: list[Any]

    @classmethod
    def of(cls, tree: PyTree) -> "Split":
        leaves, structure = jax.tree.flatten(tree)
        arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
        pairs = zip(leaves, arrays, strict=True)
        fixed = tuple(leaf if array is None else None for leaf, array in pairs)
        return cls(Fixed(structure, fixed), arrays)

    @property
    def key(self) -> tuple[Any, ...]:
        """The same for trees that are the same to a program."""
        shapes = tuple(None if leaf is None else (leaf.shape, leaf.dtype) for leaf in self.arrays)
        return self.fixed, shapes

    @property
    def traced(self) -> bool:
        """Whether a transformation is under way of some of the arrays."""
        return any(isinstance(leaf, Tracer) for leaf in self.arrays)


class Program:
    """`function(tree, *rest)` compiled, with the first of the rest overwritten if `donate`.

    Unlike one of `equinox.filter_jit` it returns before its results are there.
    """

    def __init__(self, function: Callable[..., Any], donate: bool = False):
        def run(fixed: Fixed, arrays: list[Any], *rest: PyTree) -> Any:
            return function(fixed.tree(arrays), *rest)

        self.name = run.__name__ = run.__qualname__ = function.__name__
        self._jitted = cache(
            lambda options: jax.jit(
                run,
                static_argnums=0,
                donate_argnums=(2,) if donate else (),
                compiler_options=dict(options),
            )
        )

    def __call__(self, split: Split, *rest: PyTree) -> Any:
        # Within a transformation only the outermost program has options.
        options = compiler_options() if outside() else ()
        return self._jitted(options)(split.fixed, split.arrays, *rest)


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
