"""Progress of a compiled solve on the terminal."""

import abc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from tqdm import tqdm

from ._solution import StepInfo


class AbstractProgress(abc.ABC):
    """Shows each step of a solve."""

    @abc.abstractmethod
    def start(self, max_steps: int, plan: str) -> None:
        """Called before the first step; `plan` says in words what was chosen for the problem."""

    @abc.abstractmethod
    def report(self, step: int, info: StepInfo) -> None:
        """Called after step number `step`, counted from 1, with concrete diagnostics."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Called after the last step, also when the solve fails."""


class Lines(AbstractProgress):
    """One line a step, on standard output."""

    def start(self, max_steps: int, plan: str) -> None:
        print(plan)
        print(f"{'step':>5} {'cost':>13} {'gradient':>11} {'damping':>11} {'gain':>7} trials inner")

    def report(self, step: int, info: StepInfo) -> None:
        mark = "" if info.accepted else "  rejected"
        print(
            f"{step:5d} {float(info.cost):13.6e} {float(info.gradient_norm):11.3e} "
            f"{float(info.damping):11.3e} {float(info.gain_ratio):7.3f} {int(info.trials):6d} "
            f"{int(info.inner_iterations):5d}{mark}"
        )
        sys.stdout.flush()

    def stop(self) -> None:
        sys.stdout.flush()


class ProgressBar(AbstractProgress):
    """One bar, by `tqdm`, with the cost, the gradient norm and the damping beside it."""

    def __init__(self):
        self._bar = None

    def start(self, max_steps: int, plan: str) -> None:
        self._bar = tqdm(total=max_steps, unit="step")

    def report(self, step: int, info: StepInfo) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"cost {float(info.cost):.4e}, gradient {float(info.gradient_norm):.2e}, "
                f"damping {float(info.damping):.2e}",
                refresh=False,
            )
            self._bar.update(1)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


# The progress displays of the solves under way, innermost last. The compiled program calls one
# fixed function, which looks here, so that a new display is not a new program.
_active: list[AbstractProgress] = []


def _to_active(step, info) -> None:
    if _active:
        _active[-1].report(int(step), jax.tree.map(np.asarray, info))


def report(step, info: StepInfo) -> None:
    """Reports a step from inside a compiled program."""
    jax.debug.callback(_to_active, step, info)


@contextmanager
def shown(progress: AbstractProgress | None, max_steps: int, plan: str) -> Iterator[None]:
    """Shows the steps made within the block."""
    if progress is None:
        yield
        return
    _active.append(progress)
    progress.start(max_steps, plan)
    try:
        yield
        jax.effects_barrier()
    finally:
        progress.stop()
        _active.remove(progress)


def as_progress(verbose: bool | AbstractProgress) -> AbstractProgress | None:
    """`True` is one line a step, `False` is nothing."""
    if isinstance(verbose, AbstractProgress):
        return verbose
    if isinstance(verbose, bool):
        return Lines() if verbose else None
    raise TypeError(
        f"`verbose` must be a bool, `gramlm.Lines()` or `gramlm.ProgressBar()`; got {verbose!r}."
    )
