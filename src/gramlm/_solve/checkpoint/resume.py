"""Going on from where a solve was left: a file, a checkpoint in memory, or a solution."""

import abc
import dataclasses
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._core.costs import ProductCosts
from ..._core.flatten import FlatSpec
from ..._core.results import RESULTS, code
from ..._step.info import StepInfo
from ..._step.state import State
from ..carry import TOTALS, Account
from ..history import Past, flatten_rows
from ..solution import History, Solution
from ..task import Task, cost_at
from . import file
from .checkpoint import Checkpoint, difference, layout
from .file import CheckpointError

Whole = tuple[Account, State, Past]


class AbstractSource(abc.ABC):
    """Where a solve is resumed from."""

    @property
    @abc.abstractmethod
    def costs(self) -> ProductCosts | None:
        """What products with J were measured to cost, for the plan to be the same."""

    @abc.abstractmethod
    def restored(self, task: Task, account: Account, state: State, now: dict[str, Any]) -> Whole:
        """The solve as it was; `account` and `state` are those of a new one of the same task, and
        `now` its description.
        """


class CheckpointSource(AbstractSource):
    """A checkpoint in memory."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint

    @property
    def costs(self) -> ProductCosts | None:
        return _costs(self._checkpoint.description)

    def restored(self, task: Task, account: Account, state: State, now: dict[str, Any]) -> Whole:
        kept = self._checkpoint
        _compare("The checkpoint in `resume`", kept.description, now, account, state)
        _compare_data("The checkpoint in `resume`", kept.description, task, kept.account)
        return kept.account, kept.state, kept.past


class FileSource(AbstractSource):
    """A file that `Checkpoint.save` or `Checkpoints` wrote."""

    def __init__(self, path: Path):
        self._path = path
        self._description = file.read_description(path)

    @property
    def costs(self) -> ProductCosts | None:
        return _costs(self._description)

    def restored(self, task: Task, account: Account, state: State, now: dict[str, Any]) -> Whole:
        name, before = f"The checkpoint {self._path}", self._description
        _compare(name, before, now, account, state)
        dtype = account.flat.dtype
        past = Past.empty(before["steps"], before["rows"], account.flat.size, dtype)
        found = file.read_tree(self._path, (account, state, past))
        _compare_data(name, before, task, found[0])
        return found


class SolutionSource(AbstractSource):
    """A solution in memory. Other data of the same shapes are no error here."""

    def __init__(self, solution: Solution):
        self._solution = solution

    @property
    def costs(self) -> ProductCosts | None:
        return self._solution.costs

    def restored(self, task: Task, account: Account, state: State, now: dict[str, Any]) -> Whole:
        solution = self._solution
        if solution.state is None:
            raise CheckpointError(
                "The solution in `resume` has no state, since it was interrupted in the middle of "
                "a step: start from its `value`."
            )
        _compare_layout(
            "The solution in `resume`",
            layout((solution.flat, solution.state)),
            layout((account.flat, state)),
        )
        past = _past(solution.history, int(solution.stats["num_steps"]), task.flat()[0].params_spec)
        return _account(solution, past), solution.state, past


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


def _compare(
    name: str, before: dict[str, Any], now: dict[str, Any], account: Account, state: State
) -> None:
    different = difference(before, now)
    if different is not None:
        raise CheckpointError(
            f"{name} belongs to another solve: {different}. Resume with what it was written for, "
            "or start anew without `resume`."
        )
    _compare_layout(name, before["leaves"], layout((account, state)))


def _compare_layout(name: str, before: list[list[Any]], now: list[list[Any]]) -> None:
    if before == now:
        return
    pairs = zip(before, now, strict=False)
    there, here = next((pair for pair in pairs if pair[0] != pair[1]), (None, None))
    raise CheckpointError(
        f"{name} belongs to another solve, or another plan: of its {len(before)} arrays the first "
        f"that differs is {there}, where this solve, of {len(now)}, has {here}."
    )


def _compare_data(name: str, before: dict[str, Any], task: Task, account: Account) -> None:
    """Whether the cost is what it was: other data have the same shapes."""
    found, expected = float(cost_at(task, account.flat)), before["cost_again"]
    eps = float(jnp.finfo(account.flat.dtype).eps)
    slack = eps**0.5 * max(abs(found), abs(expected)) + eps * abs(float(account.initial_cost))
    if not np.isfinite(expected) or abs(found - expected) <= slack:
        return
    raise CheckpointError(
        f"{name} belongs to a problem with other values: at its parameters the cost was "
        f"{expected:.6e} when it was written, and is {found:.6e}. Pass the same `residual_fn` and "
        "`args`, or start anew from its parameters."
    )


def _past(history: History, steps: int, spec: FlatSpec) -> Past:
    dtype = history.cost.dtype
    if history.params is None:
        rows = np.empty((0, spec.size), dtype)
    else:
        rows = flatten_rows(spec, history.params)
    columns = (history.cost, history.damping, history.gradient_norm)
    return Past(
        np.stack([np.asarray(column)[:steps] for column in columns]),
        np.asarray(history.seconds, np.float64)[:steps],
        rows,
    )


# Ends by a tolerance, or because there is nothing to go on with.
_FINAL = (
    RESULTS.successful,
    RESULTS.nonfinite_start,
    RESULTS.nonfinite_derivative,
    RESULTS.nonfinite_trials,
    RESULTS.linear_solver_failed,
    RESULTS.stalled,
)


def _account(solution: Solution, past: Past) -> Account:
    stats = solution.stats
    cost = jnp.asarray(np.asarray(solution.history.cost)[len(past.seconds)])
    result = RESULTS.running
    if code(solution.result) in map(code, _FINAL):
        result = solution.result
    elif code(solution.result) == code(RESULTS.passed_better):
        result = RESULTS.successful
    info = dataclasses.replace(
        StepInfo.before_any(cost),
        linear_residual=stats["linear_residual"],
        relative_gradient=stats["relative_gradient"],
        criterion=stats["criterion"],
        result=result,
    )
    totals = {name: stats[name] for name in TOTALS}
    return Account(solution.flat, info, totals, stats["initial_cost"])
