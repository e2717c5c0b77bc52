"""Measures, compares with `baseline.json`, says what changed, and fails where it got worse."""

import os
import sys
import time
from collections.abc import Mapping

from ...harness.baseline import PATH, Baseline
from ...harness.metric import Change, Table, Verdict, compare

# The same on every machine: one device, and LAPACK without threads of its own.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}
SILENT = (Verdict.within, Verdict.skipped)


def gate(*, only_counts: bool, write: bool) -> int:
    """The exit status: 0 where nothing got worse, and after the baseline was written."""
    begun = time.perf_counter()
    os.environ.update(ENVIRONMENT)
    sections, skipped = measure(only_counts)
    if write:
        written = dict(Baseline.read().sections) if PATH.exists() else {}
        Baseline({**written, **sections}).write()
        print(f"{PATH.name} is written.")
        return 0
    baseline = Baseline.read()
    changes = [
        change
        for section, table in sections.items()
        for change in compare(baseline.sections.get(section, {}), table, frozenset(skipped))
    ]
    text, worse = report(changes, skipped)
    print(text)
    if worse and (differences := baseline.differences()):
        print("Not as it was when the baseline was written: " + ", ".join(differences) + ".")
    print(f"{time.perf_counter() - begun:.0f} s")
    return 1 if worse else 0


def measure(only_counts: bool) -> tuple[dict[str, Table], Mapping[str, str]]:
    """The sections of a baseline, and the rows that cannot be measured here with the reason."""
    from .counts import counts
    from .rows import ROWS
    from .times import times

    print("counts and memory", file=sys.stderr, flush=True)
    sections: dict[str, Table] = {"counts": counts(ROWS)}
    if only_counts:
        return sections, {}
    print("times", file=sys.stderr, flush=True)
    sections["times"], skipped = times(ENVIRONMENT)
    return sections, skipped


def report(changes: list[Change], skipped: Mapping[str, str]) -> tuple[str, bool]:
    """What is worth saying, the worst last, and whether anything fails."""
    lines = [f"skipped  {row}: {reason}" for row, reason in skipped.items()]
    told = sorted((c for c in changes if c.verdict not in SILENT), key=lambda c: c.verdict.fails)
    lines += [str(change) for change in told]
    failed = sum(change.verdict.fails for change in changes)
    better = sum(change.verdict is Verdict.better for change in changes)
    lines.append(f"{len(changes)} metrics: {failed} got worse or are missing, {better} better")
    return "\n".join(lines), failed > 0
