"""Performance profiles (Dolan and Moré 2002) of the problems with known costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._report import Table

_RATIOS = 2.0 ** np.linspace(0, 6, 400)
# Of Okabe and Ito, told apart by the colour-blind; after the last, lines are dashed.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", ":")


def _costs(table: Table, solver: str, what: str) -> np.ndarray:
    """What each run took, infinite where it was not solved."""
    return np.array(
        [
            max(getattr(r, what), 1) if r.verdict["solved"] else np.inf
            for r in table.records[solver]
        ],
        float,
    )


def _fractions(costs: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The fraction of runs within each ratio of the best, of all runs."""
    ratios = np.full(costs.shape, np.inf)
    np.divide(costs, best, out=ratios, where=np.isfinite(costs))
    return (ratios[None, :] <= _RATIOS[:, None] * (1 + 1e-12)).mean(axis=1)


def draw(tables: Sequence[Table], path: Path, dtype: str = "float64") -> bool:
    """Draws the profiles of the problems of all collections but the regressions, if there."""
    shown = [t for t in tables if t.dtype == dtype and t.collection != "regression"]
    solvers = [s for s in (shown[0].records if shown else ()) if all(s in t.records for t in shown)]
    if not solvers:
        return False
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gramlm"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.8), sharey=True, facecolor="white")
    runs = sum(len(t.records[solvers[0]]) for t in shown)
    panels: Any = zip(axes, ("jacobians", "evaluations"), strict=True)
    for panel, what in panels:
        costs = {s: np.concatenate([_costs(t, s, what) for t in shown]) for s in solvers}
        best = np.min(list(costs.values()), axis=0)
        for index, solver in enumerate(solvers):
            panel.plot(
                _RATIOS,
                _fractions(costs[solver], best),
                color=_COLOURS[index % len(_COLOURS)],
                linestyle=_LINES[index // len(_COLOURS) % len(_LINES)],
                linewidth=2.2 if solver == "gramlm" else 1.4,
                drawstyle="steps-post",
                label=solver,
                zorder=3 if solver == "gramlm" else 2,
            )
        panel.set_xscale("log", base=2)
        panel.set_xlim(1, _RATIOS[-1])
        panel.set_ylim(0, 1)
        panel.grid(True, color="#dddddd", linewidth=0.6)
        words = "Jacobians" if what == "jacobians" else "residual evaluations"
        panel.set_xlabel(f"τ: {words} over the fewest of any solver")
    axes[0].set_ylabel(f"fraction of {runs} runs solved within τ")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white", metadata={"Date": None})
    plt.close(figure)
    return True
