"""`python -m benchmarks.suites.classical`: problems with known answers, by several solvers.

Every problem is solved from its published start ×1, ×10 and ×100 (39 of Moré, Garbow and
Hillstrom, 66 of Hock and Schittkowski), or from both published starts (27 certified regressions),
by every solver at its own defaults but for the stopping accuracy and the budget; `_peers` says
which these are. Where a solve ended is judged in float64; `_verdict` says how. A solver that
raises has failed without a claim.

A solver runs in a process of its own, and its records stay in `--out`, one file for a solver,
collection and dtype. Files that are there already are used again, unless `--fresh`. The report
covers the chosen collections and solvers in every dtype that is there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ._peers import CORE, OTHERS, SOLVERS, VARIANTS
from ._run import Instance, Record, instances

COLLECTIONS = ("mgh", "schittkowski", "regression")
OWN = ("mgh", "schittkowski", "networks")
DTYPES = ("float64", "float32")
ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
# For every solver: threads of LAPACK wait for one another by spinning.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}

Key = tuple[str, str, str]


def _path(folder: Path, key: Key) -> Path:
    collection, dtype, solver = key
    return folder / f"{collection}-{dtype}-{solver.replace(' ', '_')}.jsonl"


def _read(path: Path, problems: Sequence[Instance]) -> list[Record]:
    """The records of a file, one a problem and start: those that a crash lost are failures."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = {(r.problem, r.start): r for r in (Record(**json.loads(line)) for line in lines)}
    return [
        found.get((problem.name, start)) or Record(problem.name, start, status="the process ended")
        for problem in problems
        for start in problem.starts
    ]


def _run(folder: Path, key: Key, budget: int, limit: float) -> None:
    """One solver over one collection in a fresh process."""
    collection, dtype, solver = key
    path = _path(folder, key)
    partial = path.with_suffix(".part")
    words = (solver, collection, dtype, str(budget), str(partial))
    command = [sys.executable, "-m", f"{__package__}._run", *words]
    begun = time.perf_counter()
    ended = ""
    try:
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            check=True,
            timeout=limit,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        ended = f", cut off after {limit:.0f} s"
    except subprocess.CalledProcessError as error:
        ended = f", exit {error.returncode}: {error.stderr.strip()[-300:]}"
    if partial.exists():
        partial.rename(path)
    seconds = time.perf_counter() - begun
    print(f"{solver}, {collection}, {dtype}: {seconds:.0f} s{ended}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suites.classical", description=__doc__
    )
    parser.add_argument("--collection", nargs="+", choices={*COLLECTIONS, *OWN}, help="by name")
    parser.add_argument(
        "--variants", action="store_true", help="choices of gramlm beside one another, no peers"
    )
    parser.add_argument("--solver", nargs="+", choices=SOLVERS, metavar="NAME", help="by name")
    parser.add_argument("--dtype", choices=DTYPES, default="float64")
    parser.add_argument("--budget", type=int, default=1000, help="Jacobians a solve may take")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one process")
    parser.add_argument("--out", type=Path, help="where records are kept")
    parser.add_argument("--fresh", action="store_true", help="run also what is there already")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="write the page's tables and figure")
    return parser.parse_args()


def main() -> None:
    options = _options()
    folder = options.out or Path(tempfile.gettempdir()) / "gramlm-classical"
    folder.mkdir(parents=True, exist_ok=True)
    subject = "variants" if options.variants else "classical"
    collections = options.collection or (OWN if options.variants else COLLECTIONS)
    solvers = options.solver or (["gramlm", *VARIANTS] if options.variants else [*CORE, *OTHERS])
    page, figure = DOCS / f"benchmarks-{subject}-tables.md", f"{subject}-profile.svg"
    if not options.report:
        for solver in solvers:
            for collection in collections:
                key = (collection, options.dtype, solver)
                if options.fresh or not _path(folder, key).exists():
                    _run(folder, key, options.budget, options.limit)

    import jax

    jax.config.update("jax_enable_x64", True)
    from ._profile import draw
    from ._report import Table, report
    from ._verdict import Judge

    tables = []
    for collection in collections:
        problems = instances(collection)
        judge = Judge()
        for dtype in DTYPES:
            there = [s for s in solvers if _path(folder, (collection, dtype, s)).exists()]
            records = {s: _read(_path(folder, (collection, dtype, s)), problems) for s in there}
            for index, name in enumerate(r.problem for r in next(iter(records.values()), [])):
                problem = next(p for p in problems if p.name == name)
                for solver in there:
                    judge.judge(problem, records[solver][index], dtype)
            if there:
                tables.append(Table(collection, dtype, problems, records))
    path = (DOCS / "images" if options.write else folder) / figure
    text = report(tables, options.budget, path.name if draw(tables, path) else None)
    if options.write:
        page.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
