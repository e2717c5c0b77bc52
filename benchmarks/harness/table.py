"""Markdown tables from records."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .record import Record

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
    "poisson-5d": ((1e-4,), True, (1e-1, 1e-2, 1e-3)),
    "poisson-5d-small": ((1e-4,), True, (1e-1, 1e-2, 3e-3)),
}
# Those of the kernel problems and of the large networks.
OTHERS: tuple[tuple[float, ...], bool, tuple[float, ...]] = ((1e-4, 1e-6, 1e-8), True, ())


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


def _products(record: Record, steps: Sequence[int | None]) -> str:
    """Products with J or Jᵀ up to each of these steps."""
    if not record.products:
        return "–"
    return " / ".join("–" if step is None else f"{record.products[step]}" for step in steps)


@dataclass(frozen=True)
class _Table:
    """The records of one problem and dtype."""

    records: Sequence[Record]

    @property
    def levels(self) -> tuple[tuple[float, ...], bool, tuple[float, ...]]:
        return LEVELS.get(self.records[0].problem, OTHERS)

    @property
    def counted(self) -> bool:
        return any(record.products for record in self.records)

    @property
    def prepared(self) -> bool:
        return not all(math.isnan(record.setup_process_seconds) for record in self.records)

    def heading(self) -> list[str]:
        costs, relative, metrics = self.levels
        names = [f"{level:g}" for level in costs] + [f"error {level:g}" for level in metrics]
        return [
            "solver",
            "Jacobians",
            "relative cost" if relative else "cost",
            *(f"to {level:g}" for level in costs),
            *(["error"] if metrics else []),
            *(f"error {level:g}" for level in metrics),
            *([f"products to {' / '.join(names)}"] if self.counted and names else []),
            "s/step",
            "× gramlm",
            *(["set-up s"] if self.prepared else []),
            "compile s",
            "MiB",
            "ended by",
        ]

    def row(self, record: Record, reference: Record | None) -> list[str]:
        if record.error or not record.costs:
            reason = record.error or f"no step ({record.stopped or 'unknown'})"
            return [record.solver, f"failed: {reason}"]
        costs, relative, metrics = self.levels
        scale = record.initial_cost if relative else 1.0
        below = [record.first_below(level * scale) for level in costs]
        within = [record.first_metric_below(level) for level in metrics]
        cells = [
            record.solver,
            f"{record.jacobians[-1]}",
            f"{min(record.costs) / scale:.1e}",
            *(_reached(record, step) for step in below),
        ]
        if metrics:
            cells.append(f"{min(record.metrics or [math.nan]):.1e}")
        cells += [_reached(record, step) for step in within]
        if self.counted and (costs or metrics):
            cells.append(_products(record, [*below, *within]))
        cells += [_number(record.step_seconds), _ratio(record, reference)]
        if self.prepared:
            cells.append(_number(record.setup_process_seconds, 2))
        memory = record.peak_mib - record.start_mib
        return [*cells, _number(record.compile_seconds, 2), f"{memory:.0f}", record.stopped]


def _markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    padded = [[*row, *[""] * (len(heading) - len(row))] for row in rows]
    lines = [heading, ["---"] * len(heading), *padded]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(records: Sequence[Record]) -> str:
    """One table per problem and dtype, in the order of the records."""
    key: Callable[[Record], tuple[str, str]] = lambda record: (record.problem, record.dtype)  # noqa: E731
    parts = [
        "*Jacobians (/residual evaluations) and process seconds to a level; process seconds of the "
        "median step that computes a Jacobian, and of the set-up before the first step; wall "
        "seconds of compilation; peak memory above that of the loaded problem. Products are the "
        "vectors multiplied by J or Jᵀ up to a level, the set-up's included, one by one or by the "
        "block.*"
    ]
    for problem, dtype in dict.fromkeys(map(key, records)):
        group = [record for record in records if key(record) == (problem, dtype)]
        reference = next((r for r in group if r.solver == "gramlm" and r.costs), None)
        sizes = next(((r.residuals, r.parameters) for r in group if r.residuals), (0, 0))
        parts.append(f"### {problem}, {dtype} (n = {sizes[0]}, p = {sizes[1]})")
        table = _Table(group)
        parts.append(_markdown(table.heading(), [table.row(r, reference) for r in group]))
    return "\n\n".join(parts) + "\n"
