"""Progress on the terminal or in a notebook, and nothing else."""

import sys
from typing import Any

from .base import AbstractCallback, Beginning, Ending, Event


class TextProgress(AbstractCallback):
    """One line a step, on standard output, and one that says why the solve ended.

    Before the first of them it says that the solve is being compiled, where it is. `left` is what
    is left of the budget of which least is left.
    """

    def __init__(self):
        self._begun = False

    def start(self, beginning: Beginning) -> None:
        print(beginning.plan)
        print(f"at most {beginning.budget}{'' if beginning.compiled else '; compiling…'}")
        print(
            f"{'step':>5} {'cost':>13} {'gradient':>11} {'damping':>11} {'gain':>7} trials inner "
            f"{'seconds':>9} left",
            flush=True,
        )
        self._begun = True

    def __call__(self, event: Event) -> None:
        info = event.info
        if self._begun:
            print(f"{event.step - 1:5d} {float(info.cost_before):13.6e}")
            self._begun = False
        mark = "" if info.accepted else "  rejected"
        print(
            f"{event.step:5d} {float(info.cost):13.6e} {float(info.gradient_norm):11.3e} "
            f"{float(info.damping):11.3e} {float(info.gain_ratio):7.3f} {int(info.trials):6d} "
            f"{int(info.inner_iterations):5d} {event.seconds:9.2f} "
            f"{event.remaining.fraction:4.0%}{mark}",
            flush=True,
        )

    def end(self, ending: Ending | None) -> None:
        print("Ended by an error." if ending is None else ending, flush=True)


class ProgressBar(AbstractCallback):
    """One bar, by `tqdm`, with the cost, the gradient norm and the damping beside it.

    In a notebook it is a widget. It says so while the solve is being compiled, and when it has
    ended a line says why.
    """

    def __init__(self):
        self._bar: Any = None

    def start(self, beginning: Beginning) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(total=beginning.budget.steps, initial=beginning.step, unit="step")
        if not beginning.compiled:
            self._bar.set_postfix_str("compiling…")

    def __call__(self, event: Event) -> None:
        info = event.info
        # tqdm shows the steps left; the other budgets are shown where there are any.
        left = f", {event.remaining.fraction:.0%} left"
        self._bar.set_postfix_str(
            f"cost {float(info.cost):.4e}, gradient {float(info.gradient_norm):.2e}, "
            f"damping {float(info.damping):.2e}{left}",
            refresh=False,
        )
        self._bar.update(event.step - self._bar.n)

    def end(self, ending: Ending | None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if ending is not None:
            print(ending, file=sys.stderr, flush=True)


def as_progress(verbose: bool | AbstractCallback) -> tuple[AbstractCallback, ...]:
    """`True` is one line a step, `False` is nothing."""
    if isinstance(verbose, AbstractCallback):
        return (verbose,)
    return (TextProgress(),) if verbose else ()
