"""`python -m benchmarks`: every case in a process of its own, one after another, and a table.

`--group spine` are the problems where dense algebra fits, `--group krylov` those where a solver
lives by products with J; both run by default. The full five-dimensional Poisson problem is for an
accelerator: `python -m benchmarks --only poisson-5d` runs it on JAX's default device.

`--gate` runs none of these: it measures a few small problems of every kind, compares with
`baseline.json`, and fails where something got worse.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .harness.case import Case
from .harness.record import Record
from .harness.table import tables
from .harness.versions import versions
from .suites import DEFAULT, GROUPS
from .suites.gate.main import gate

HERE = Path(__file__).parent
# For every solver: threads of LAPACK wait for one another by spinning, which a process pays for.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


def _run(case: Case, scale: float, quick: bool) -> Record:
    """One case in a fresh process, killed long after its limit."""
    request = case.request(scale, quick)
    failed = Record(problem=case.problem, solver=case.solver, dtype=case.dtype)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "record.json"
        worker = f"{__package__}.harness.worker"
        command = [sys.executable, "-m", worker, json.dumps(request), str(output)]
        try:
            subprocess.run(
                command,
                cwd=HERE.parent,
                env={**os.environ, **ENVIRONMENT},
                check=True,
                capture_output=True,
                text=True,
                timeout=60 + 2 * case.seconds * scale,
            )
        except subprocess.TimeoutExpired:
            failed.error = "not one step within twice its time"
            return failed
        except subprocess.CalledProcessError as error:
            failed.error = f"exit {error.returncode}: {error.stderr.strip()[-200:]}"
            return failed
        return Record.fromdict(json.loads(output.read_text()))


def _chosen(options: argparse.Namespace) -> list[Case]:
    """The cases asked for, each once. A problem asked for by name may be of any group."""
    groups = options.group or (GROUPS if options.only else DEFAULT)
    cases: dict[tuple[str, str, str], Case] = {}
    for case in (case for group in groups for case in GROUPS[group]):
        wanted = not options.only or case.problem in options.only
        if wanted and (not options.solver or any(part in case.solver for part in options.solver)):
            cases.setdefault((case.problem, case.dtype, case.solver), case)
    return list(cases.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--group", action="append", choices=GROUPS, help="may be repeated")
    parser.add_argument("--only", action="append", help="a problem's name; may be repeated")
    parser.add_argument("--solver", action="append", help="part of a solver's name; repeatable")
    parser.add_argument("--quick", action="store_true", help="at most three Jacobians a case")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every time limit")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--output", type=Path, help="also write the tables here, as Markdown")
    parser.add_argument("--gate", action="store_true", help="compare with baseline.json")
    parser.add_argument("--counts", action="store_true", help="with --gate: nothing that is timed")
    parser.add_argument("--write", action="store_true", help="with --gate: write baseline.json")
    options = parser.parse_args()
    if options.gate:
        sys.exit(gate(only_counts=options.counts, write=options.write))
    if options.counts or options.write:
        parser.error("--counts and --write go with --gate")

    cases = _chosen(options)
    if not cases:
        known = sorted({case.problem for group in GROUPS.values() for case in group})
        parser.error("no case is left; problems: " + ", ".join(known))
    records = []
    for number, case in enumerate(cases, 1):
        label = f"{case.problem} {case.dtype} {case.solver}"
        print(f"[{number}/{len(cases)}] {label}", file=sys.stderr, flush=True)
        records.append(_run(case, options.scale, options.quick))
        content = {"versions": versions(), "records": [r.asdict() for r in records]}
        options.results.write_text(json.dumps(content, indent=1) + "\n")
    text = tables(records)
    if any(case.problem == "exponential" for case in cases):
        command = [sys.executable, "-m", f"{__package__}.suites.whole_solve"]
        whole = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True)
        text += "\n### exponential, whole solves, float64, process seconds\n\n" + whole.stdout
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
