"""Going on from where a solve was left: a file, a checkpoint in memory, or a solution."""

import abc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from ..._core.costs import ProductCosts
from ..._core.flatten import FlatSpec
from ..carry import Carry
from ..history import Past
from ..solution import Solution
from . import file
from .checkpoint import Checkpoint, difference, layout
from .file import CheckpointError


class Wanted(NamedTuple):
    """The solve that resumes: what the one before must fit.

    - `description`: as in a checkpoint. `carry`: shapes of a carry. `spec`: of the parameters.
    - `cost`: that of the problem, of flat parameters.
    """

    description: dict[str, Any]
    carry: Carry
    spec: FlatSpec
    cost: Callable[[Float[Array | np.ndarray, " p"]], Float[Array, ""]]


class AbstractSource(abc.ABC):
    """Where a solve is resumed from."""

    @property
    @abc.abstractmethod
    def costs(self) -> ProductCosts | None:
        """What products with J were measured to cost, for the plan to be the same."""

    @abc.abstractmethod
    def restored(self, wanted: Wanted) -> tuple[Carry, Past]:
        """The solve as it was. Raises `CheckpointError` if it does not fit."""


class CheckpointSource(AbstractSource):
    """A checkpoint in memory."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint

    @property
    def costs(self) -> ProductCosts | None:
        return _costs(self._checkpoint.description)

    def restored(self, wanted: Wanted) -> tuple[Carry, Past]:
        kept, name = self._checkpoint, "The checkpoint in `resume`"
        _compare(name, kept.description, wanted)
        _compare_data(name, kept.description, wanted, kept.carry)
        return kept.carry, kept.past


class FileSource(AbstractSource):
    """A file that `Checkpoint.save` or `Checkpoints` wrote."""

    def __init__(self, path: Path):
        self._path = path
        self._description = file.read_description(path)

    @property
    def costs(self) -> ProductCosts | None:
        return _costs(self._description)

    def restored(self, wanted: Wanted) -> tuple[Carry, Past]:
        name, before = f"The checkpoint {self._path}", self._description
        _compare(name, before, wanted)
        carry = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), wanted.carry)
        past = Past.empty(before["steps"], before["rows"], carry.told.flat)
        carry, past = file.read_tree(self._path, (carry, past))
        _compare_data(name, before, wanted, carry)
        return carry, past


class SolutionSource(AbstractSource):
    """A solution in memory. Other data of the same shapes are no error here."""

    def __init__(self, solution: Solution):
        self._solution = solution

    @property
    def costs(self) -> ProductCosts | None:
        return self._solution.costs

    def restored(self, wanted: Wanted) -> tuple[Carry, Past]:
        solution = self._solution
        if solution.carry is None:
            raise CheckpointError(
                "The solution in `resume` has no state, since it was interrupted in the middle of "
                "a step: start from its `value`."
            )
        name = "The solution in `resume`"
        carry = solution.carry.carry
        _compare_layout(name, layout(carry), layout(wanted.carry))
        steps = int(carry.told.totals.num_steps)
        return carry, Past.of(solution.history, steps, wanted.spec)


def as_source(given: Any) -> AbstractSource:
    """What came as `resume`."""
    if isinstance(given, Solution):
        return SolutionSource(given)
    if isinstance(given, Checkpoint):
        return CheckpointSource(given)
    if isinstance(given, str | os.PathLike):
        return FileSource(Path(given))
    raise TypeError(
        "`resume` must be the path of a checkpoint, a `gramlm.Checkpoint`, or a "
        f"`gramlm.Solution`; got {given!r}."
    )


def _costs(description: dict[str, Any]) -> ProductCosts | None:
    costs = description.get("costs")
    return None if costs is None else ProductCosts(*costs)


def _compare(name: str, before: dict[str, Any], wanted: Wanted) -> None:
    different = difference(before, wanted.description)
    if different is not None:
        raise CheckpointError(
            f"{name} belongs to another solve: {different}. Resume with what it was written for, "
            "or start anew without `resume`."
        )
    _compare_layout(name, before["leaves"], layout(wanted.carry))


def _compare_layout(name: str, before: list[list[Any]], now: list[list[Any]]) -> None:
    if before == now:
        return
    pairs = zip(before, now, strict=False)
    there, here = next((pair for pair in pairs if pair[0] != pair[1]), (None, None))
    raise CheckpointError(
        f"{name} belongs to another solve, or another plan: of its {len(before)} arrays the first "
        f"that differs is {there}, where this solve, of {len(now)}, has {here}."
    )


def _compare_data(name: str, before: dict[str, Any], wanted: Wanted, carry: Carry) -> None:
    """Whether the cost is what it was: other data have the same shapes."""
    told = carry.told
    found, expected = float(wanted.cost(told.flat)), before["cost_again"]
    eps = float(np.finfo(told.flat.dtype).eps)
    slack = eps**0.5 * max(abs(found), abs(expected)) + eps * abs(float(told.initial_cost))
    if not np.isfinite(expected) or abs(found - expected) <= slack:
        return
    raise CheckpointError(
        f"{name} belongs to a problem with other values: at its parameters the cost was "
        f"{expected:.6e} when it was written, and is {found:.6e}. Pass the same `residual_fn` and "
        "`args`, or start anew from its parameters."
    )
