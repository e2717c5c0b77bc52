"""Markdown tables from records."""

import math
from collections.abc import Callable, Sequence

from ._record import Record

# The levels shown, per problem: costs (relative unless the flag says absolute) and metrics.
LEVELS: dict[str, tuple[tuple[float, ...], bool, tuple[float, ...]]] = {
    "interpolation-folded": ((), True, ()),
    "interpolation": ((1e-4, 1e-10), True, ()),
    "interpolation-from-x": ((1e-4, 1e-10), True, ()),
    "rosenbrock": ((1e-12,), False, ()),
    "exponential": ((1e-10, 1e-20), True, ()),
    "rbf-network": ((1e-2, 1e-6, 1e-10), True, ()),
    "rbf-network-wide": ((1e-2, 1e-6, 1e-10), True, ()),
    "sinc": ((1e-2, 1e-4, 1e-6), True, ()),
    "poisson": ((1e-4,), True, (1e-3, 1e-4, 2e-6)),
}


def _number(value: float | None, digits: int = 3) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}g}"


def _reached(record: Record, index: int | None) -> str:
    """Jacobians, evaluations where known, and process seconds at a step."""
    if index is None:
        return "–"
    counts = f"{record.jacobians[index]}"
    if record.evaluations:
        counts += f"/{record.evaluations[index]}"
    return f"{counts} in {_number(record.process_seconds[index], 2)} s"


def _ratio(record: Record, reference: Record | None) -> str:
    """Process seconds of a step over those of gramlm with the plain residual, in this run."""
    if reference is None or record is reference:
        return "1" if record is reference else "–"
    ratio = record.step_seconds / reference.step_seconds if reference.step_seconds else math.nan
    return _number(ratio, 2)


def _row(record: Record, reference: Record | None) -> list[str]:
    if record.error or not record.costs:
        return [record.solver, f"failed: {record.error or 'no step'}"]
    costs, relative, metrics = LEVELS[record.problem]
    scale = record.initial_cost if relative else 1.0
    cells = [
        record.solver,
        f"{record.jacobians[-1]}",
        f"{min(record.costs) / scale:.1e}",
        *(_reached(record, record.first_below(level * scale)) for level in costs),
    ]
    if metrics:
        cells.append(f"{min(record.metrics or [math.nan]):.1e}")
    cells += [_reached(record, record.first_metric_below(level)) for level in metrics]
    memory = record.peak_mib - record.start_mib
    return [
        *cells,
        _number(record.step_seconds),
        _ratio(record, reference),
        _number(record.compile_seconds, 2),
        f"{memory:.0f}",
        record.stopped,
    ]


def _heading(problem: str) -> list[str]:
    costs, relative, metrics = LEVELS[problem]
    return [
        "solver",
        "Jacobians",
        "relative cost" if relative else "cost",
        *(f"to {level:g}" for level in costs),
        *(["error"] if metrics else []),
        *(f"error {level:g}" for level in metrics),
        "s/step",
        "× gramlm",
        "compile s",
        "MiB",
        "ended by",
    ]


def _markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    padded = [[*row, *[""] * (len(heading) - len(row))] for row in rows]
    lines = [heading, ["---"] * len(heading), *padded]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(records: Sequence[Record]) -> str:
    """One table per problem and dtype, in the order of the records."""
    key: Callable[[Record], tuple[str, str]] = lambda record: (record.problem, record.dtype)  # noqa: E731
    parts = [
        "*Jacobians (/residual evaluations) and process seconds to a level; process seconds of the "
        "median step that computes a Jacobian; wall seconds of compilation; peak memory above "
        "that of the loaded problem.*"
    ]
    for problem, dtype in dict.fromkeys(map(key, records)):
        group = [record for record in records if key(record) == (problem, dtype)]
        reference = next((r for r in group if r.solver == "gramlm" and r.costs), None)
        sizes = next(((r.residuals, r.parameters) for r in group if r.residuals), (0, 0))
        parts.append(f"### {problem}, {dtype} (n = {sizes[0]}, p = {sizes[1]})")
        parts.append(_markdown(_heading(problem), [_row(r, reference) for r in group]))
    return "\n\n".join(parts) + "\n"
