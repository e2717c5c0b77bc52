"""Process seconds as ratios: import, first and later calls, over those of what is beside them.

A machine that is busy, or another one, changes both sides of a ratio about alike. So the two sides
take turns, two processes at a time, and the ratio is that of the fastest of each: whatever else
the machine does only adds, to the later calls of a solve up to twice as much.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...harness.metric import Metric

ROOT = Path(__file__).parents[3]
PROCESSES = 2
REPEATS = 3
IMPORTS = 5
# From an idle machine to one with seven processes a core, ratios went up by a tenth.
RELATIVE = 0.25


@dataclass(frozen=True)
class Call:
    """A solver on a row, as `calls` runs it."""

    row: str
    solver: str = "gramlm"

    def command(self) -> tuple[str, ...]:
        return ("-m", f"{__package__}.calls", self.row, self.solver)


@dataclass(frozen=True)
class Import:
    """The import of a package, with all that it imports."""

    package: str

    def command(self) -> tuple[str, ...]:
        lines = (
            "import json, time",
            "start = time.process_time()",
            f"import {self.package}",
            'print(json.dumps({"import": time.process_time() - start}))',
        )
        return ("-c", "\n".join(lines))


Process = Call | Import


@dataclass(frozen=True)
class Ratio:
    """What is measured, what it is divided by, and which of the seconds they tell of."""

    name: str
    ours: Process
    beside: Process
    seconds: str
    needs: Callable[[], str] = lambda: ""  # why it cannot be measured here


def without(package: str) -> Callable[[], str]:
    return lambda: "" if find_spec(package) else f"{package} is not installed"


def _rows_known() -> bool:
    return find_spec("nlls_gram") is not None and find_spec("nlls_gram.vmap_rows") is not None


def _beside_rows() -> str:
    return "" if _rows_known() else "nlls_gram is not installed, or has no vmap_rows"


def _beside_plain() -> str:
    if _rows_known():
        return "this nlls_gram has vmap_rows, beside which it is measured"
    return without("nlls_gram")()


OPTIMISTIX = without("optimistix")
RATIOS: tuple[Ratio, ...] = (
    Ratio("import / optimistix", Import("gramlm"), Import("optimistix"), "import", OPTIMISTIX),
    Ratio(
        "rosenbrock, first call / optimistix",
        Call("rosenbrock"),
        Call("rosenbrock", "optimistix"),
        "first",
        OPTIMISTIX,
    ),
    Ratio(
        "rosenbrock, later call / optimistix",
        Call("rosenbrock"),
        Call("rosenbrock", "optimistix"),
        "later",
        OPTIMISTIX,
    ),
    Ratio(
        "exponential, first call / optimistix",
        Call("exponential"),
        Call("exponential", "optimistix"),
        "first",
        OPTIMISTIX,
    ),
    Ratio(
        "exponential, first call / nlls-gram",
        Call("exponential"),
        Call("exponential", "nlls-gram"),
        "first",
        without("nlls_gram"),
    ),
    Ratio(
        "poisson, first call / nlls-gram",
        Call("poisson, rows"),
        Call("poisson, rows", "nlls-gram"),
        "first",
        _beside_plain,
    ),
    Ratio(
        "poisson, first call / nlls-gram vmap_rows",
        Call("poisson, rows"),
        Call("poisson, rows", "nlls-gram vmap_rows"),
        "first",
        _beside_rows,
    ),
    Ratio(
        "20 x 40, first call, Krylov / dense",
        Call("20 x 40, Krylov"),
        Call("20 x 40, dense"),
        "first",
    ),
)


def times(environment: Mapping[str, str]) -> tuple[dict[str, dict[str, Metric]], dict[str, str]]:
    """The ratios by name, and those that cannot be measured here with the reason."""
    skipped = {ratio.name: reason for ratio in RATIOS if (reason := ratio.needs())}
    wanted = [ratio for ratio in RATIOS if ratio.name not in skipped]
    seconds = _fastest(wanted, environment)
    found = {
        ratio.name: {
            "ratio": Metric(
                seconds[ratio.ours][ratio.seconds] / seconds[ratio.beside][ratio.seconds],
                relative=RELATIVE,
            )
        }
        for ratio in wanted
    }
    return found, skipped


def _fastest(
    ratios: Iterable[Ratio], environment: Mapping[str, str]
) -> dict[Process, dict[str, float]]:
    """The fewest seconds of each process that the ratios need, by what they are of."""
    processes = list(dict.fromkeys(p for ratio in ratios for p in (ratio.ours, ratio.beside)))
    turns = list(_turns(processes))
    with ThreadPoolExecutor(PROCESSES) as pool:
        outcomes = list(pool.map(lambda process: _run(process, environment), turns))
    told: dict[Process, list[dict[str, float]]] = {process: [] for process in processes}
    for process, outcome in zip(turns, outcomes, strict=True):
        told[process].append(outcome)
    return {
        process: {kind: min(o[kind] for o in outcomes) for kind in outcomes[0]}
        for process, outcomes in told.items()
    }


def _turns(processes: list[Process]) -> Iterator[Process]:
    for turn in range(max(REPEATS, IMPORTS)):
        for process in processes:
            if turn < (IMPORTS if isinstance(process, Import) else REPEATS):
                yield process


def _run(process: Process, environment: Mapping[str, str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, *process.command()],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{process} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
