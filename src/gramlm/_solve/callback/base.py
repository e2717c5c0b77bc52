"""The seam for callbacks: what is called before, between and after the steps of a solve."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import PyTree

from ..._core.results import CRITERIA, RESULTS
from ..._step.info import StepInfo
from ..._step.state import State
from ..checkpoint.checkpoint import Checkpoint
from .action import AbstractAction
from .budget import Budget, Remaining

Answer = AbstractAction | Sequence[AbstractAction] | None


@dataclass(frozen=True)
class Beginning:
    """A solve that is about to begin.

    - `plan`: what was chosen for the problem, in words. `budget`: its limits, `steps`,
      `evaluations` and `seconds`.
    - `step`: steps made before, 0 unless it is resumed.
    - `compiled`: whether its program is there from an earlier solve; if not, it is compiled now.
    """

    plan: str
    budget: Budget
    step: int
    compiled: bool


@dataclass(frozen=True)
class Event:
    """A solve between two steps, with concrete values.

    - `step`: the number of steps made. `info`: the diagnostics of the last.
    - `params`: the best parameters so far, with the structure of those given. `cost`: `½‖r‖²`
      there, in squared residual units.
    - `seconds`: since the solve began. `remaining`: what is left of the budgets:
      its `steps`; `evaluations` and `seconds`, None where there is no limit; `fraction`, between 0
      and 1, of the budget of which least is left.
    - `state`: that of the solver; None inside of a transformation. A large one is given back to the
      next step: `jax.tree.map(jnp.copy, event.state)` keeps it.
    """

    step: int
    params: PyTree
    cost: float
    info: StepInfo
    seconds: float
    remaining: Remaining
    state: State | None = None
    snapshot: Callable[[], Checkpoint] | None = field(default=None, repr=False)

    def checkpoint(self) -> Checkpoint:
        """All that it takes to go on from here, for `solve(..., resume=…)`, or to `save`."""
        return _taken(self.snapshot)


@dataclass(frozen=True)
class Ending:
    """A solve after its last step.

    - `step`, `cost`, `seconds`: as in `Event`.
    - `result`, `criterion`: how it ended, and the tolerance that was met, if any.
    - `reason`: why a callback stopped it, in its own words.
    """

    step: int
    cost: float
    seconds: float
    result: RESULTS
    criterion: CRITERIA
    reason: str = ""
    snapshot: Callable[[], Checkpoint] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        steps = "1 step" if self.step == 1 else f"{self.step} steps"
        why = RESULTS[self.result] or CRITERIA[self.criterion]
        why += f" ({self.reason})" if self.reason else ""
        return f"Ended after {steps}, {self.seconds:.3g} s, at the cost {self.cost:.6e}. {why}"

    def checkpoint(self) -> Checkpoint:
        """All that it takes to go on from here, with a larger budget."""
        return _taken(self.snapshot)


def _taken(snapshot: Callable[[], Checkpoint] | None) -> Checkpoint:
    if snapshot is None:
        raise RuntimeError(
            "There is no checkpoint to take here: inside of `jit`, `vmap` and other "
            "transformations the state of a solve stays on the device, and a step that failed "
            "leaves none. Call `gramlm.solve` outside of them."
        )
    return snapshot()


class AbstractCallback(abc.ABC):
    """Is told of the beginning of a solve, of each step, and of the end.

    A function of the `Event` is a callback, too, without a beginning and an end.
    """

    @abc.abstractmethod
    def start(self, beginning: Beginning) -> None:
        """Called before the first step."""

    @abc.abstractmethod
    def __call__(self, event: Event) -> Answer:
        """Called after each step. None goes on; see `gramlm.Stop` and `gramlm.SetDamping`."""

    @abc.abstractmethod
    def end(self, ending: Ending | None) -> None:
        """Called after the last step, whatever ended the solve; None after an error in a step."""


class FunctionCallback(AbstractCallback):
    """A function of the event."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __repr__(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))

    def start(self, beginning: Beginning) -> None:
        pass

    def __call__(self, event: Event) -> Any:
        return self._function(event)

    def end(self, ending: Ending | None) -> None:
        pass


def as_callbacks(given: Any) -> tuple[AbstractCallback, ...]:
    """What came as `callback`: nothing, one, or several."""
    if given is None:
        return ()
    several = given if isinstance(given, list | tuple) else (given,)
    return tuple(_as_callback(one) for one in several)


def _as_callback(given: Any) -> AbstractCallback:
    if isinstance(given, AbstractCallback):
        return given
    if isinstance(given, type) or not callable(given):
        hint = f"; make one: `{given.__name__}(…)`" if isinstance(given, type) else ""
        raise TypeError(
            "`callback` must be a function of a `gramlm.extend.Event`, a "
            f"`gramlm.extend.AbstractCallback`, or a list of those; got {given!r}{hint}."
        )
    return FunctionCallback(given)
