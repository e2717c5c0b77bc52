"""Markdown tables of judged records."""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._peers import CORE
from ._problem import Classical
from ._run import Instance, Record
from .networks import Network

NAMES = {
    "mgh": "Moré, Garbow and Hillstrom",
    "schittkowski": "Hock and Schittkowski",
    "regression": "Certified regression",
    "networks": "Networks and kernels",
}
PACKAGES = ("scipy", "optimistix", "nlls-gram", "jaxopt", "jax")


@dataclass(frozen=True)
class Table:
    """The judged records of one collection and dtype, a list a solver, all in the same order."""

    collection: str
    dtype: str
    problems: Sequence[Instance]
    records: dict[str, list[Record]]

    @property
    def core(self) -> list[str]:
        core = [name for name in self.records if name in CORE]
        return core if len(core) > 1 else list(self.records)

    @property
    def common(self) -> np.ndarray:
        """Which runs every solver of the core solved."""
        return np.all([_flags(self.records[name], "solved") for name in self.core], axis=0)


def _flags(records: Sequence[Record], name: str) -> np.ndarray:
    return np.array([bool(record.verdict.get(name)) for record in records])


def _counts(records: Sequence[Record], common: np.ndarray) -> list[str]:
    """Jacobians and evaluations over the common runs that it solved, and how many it did not."""
    solved = common & _flags(records, "solved")
    if not solved.any():
        return ["–", "–", "–"]
    missing = common.sum() - solved.sum()
    part = f" ({missing} missing)" if missing else ""
    jacobians = np.array([record.jacobians for record in records])[solved]
    evaluations = np.array([record.evaluations for record in records])[solved]
    median = f"{np.median(jacobians):.3g}"
    return [f"{jacobians.sum()}{part}", median, f"{evaluations.sum()}{part}"]


def _claims(records: Sequence[Record]) -> list[str]:
    return [f"{sum(r.claimed for r in records)}", f"{_flags(records, 'false').sum()}"]


def _problem_row(table: Table, records: Sequence[Record]) -> list[str]:
    solved = _flags(records, "solved")
    labels = np.array([record.start for record in records])
    each = [f"{solved[labels == label].sum()}" for label in table.problems[0].starts]
    return [f"{solved.sum()}", *each, *_claims(records), *_counts(records, table.common)]


def _regression_row(table: Table, records: Sequence[Record]) -> list[str]:
    digits = np.array([record.verdict["digits"] for record in records])
    errors = [r.verdict["errors"] for r in records if r.verdict["errors"] is not None]
    swapped = _flags(records, "swapped").sum()
    return [
        f"{_flags(records, 'reached').sum()}" + (f" ({swapped} swapped)" if swapped else ""),
        f"{(digits >= 9).sum()}",
        f"{(digits >= 6).sum()}",
        f"{np.median(digits):.1f}",
        f"{np.median(errors):.1f}" if errors else "–",
        *_claims(records),
        *_counts(records, table.common),
    ]


_PROFILE_TITLE = "### Performance profiles"
_CAPTION = (
    "The fraction of the runs of all problems but the regressions, in float64, that a solver "
    "solved with at most τ times the Jacobians (left) or residual evaluations (right) of the "
    "solver that needed the fewest. A solver is charged for all until its own tests or the budget "
    "end it."
)
_COUNTS = ["claims", "false", "Jacobians", "median", "evaluations"]


def _rows(header: list[str], rows: dict[str, list[str]]) -> list[str]:
    lines = [["solver", *header], ["---"] * (len(header) + 1)]
    lines += [[name, *cells] for name, cells in rows.items()]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _unsolved(table: Table) -> list[str]:
    """What gramlm did not solve, with where it ended."""
    lines = []
    known = {problem.name: problem.known for problem in table.problems}
    for record in table.records.get("gramlm", []):
        verdict = record.verdict
        if verdict["solved"]:
            continue
        answer = known[record.problem]
        if isinstance(answer, Classical):
            best = answer.best
        else:
            best = (
                answer.target if isinstance(answer, Network) else answer.residual_sum_of_squares / 2
            )
        kind = "false: " if verdict["false"] else "claimed: " if record.claimed else ""
        lines.append(
            f"- {record.problem} {record.start}: cost {verdict['cost']:.6g}, known {best:.6g}, "
            f"largest cosine {verdict['cosine']:.0e}, after {record.jacobians} Jacobians; "
            f"{kind}{record.status.split('.')[0]}."
        )
    if not lines:
        return ["", "gramlm solved all."] if "gramlm" in table.records else []
    return ["", "Not solved by gramlm:", "", *lines]


def _section(table: Table) -> list[str]:
    runs = len(next(iter(table.records.values())))
    title = f"### {NAMES[table.collection]}, {table.dtype}"
    row: Callable[[Table, Sequence[Record]], list[str]]
    if table.collection == "regression":
        header = ["certified RSS", "≥ 9 digits", "≥ 6 digits", "median digits"]
        header += ["digits of standard errors", *_COUNTS]
        row = _regression_row
    else:
        header = ["solved", *table.problems[0].starts, *_COUNTS]
        row = _problem_row
    core = ", ".join(table.core)
    note = (
        f"{len(table.problems)} problems, {runs} runs. Jacobians, their median and evaluations are "
        f"those of the {table.common.sum()} runs that {core} all solved; where a solver lacks "
        "some of them, so many are missing from its sums."
    )
    rows = {name: row(table, records) for name, records in table.records.items()}
    wide = [p for p in table.problems if _is_wide(p)]
    if wide and any(name.startswith("SciPy lm") for name in table.records):
        note += (
            f" SciPy's lm refuses {len(wide)} problems that have more parameters than residuals, "
            f"{sum(len(p.starts) for p in wide)} runs."
        )
    return [title, "", note, "", *_rows(header, rows), *_unsolved(table), ""]


def _is_wide(problem: Instance) -> bool:
    import jax

    shape = jax.ShapeDtypeStruct((problem.size,), np.dtype("float64"))
    return jax.eval_shape(problem.residual, shape).size < problem.size


def report(tables: Sequence[Table], budget: int, profile: str | None) -> str:
    """The whole fragment. `profile`: the name of the figure, in the folder of images."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lead = (
        "*Solved*: the best known cost or that of a listed local minimum, to 1e-6 relative or "
        "1e-10 absolute (float32: 1e-3, 1e-5). *Claims*: how often the solver says that it "
        "succeeded. *False*: a claim at a point that is neither solved nor stationary: some column "
        "of J makes an angle with r whose cosine exceeds 1e-5 (float32: 3e-2), columns left out "
        "that no longer move r beyond rounding; or a claim that is not finite. Claims at unlisted "
        "stationary points are neither. *Certified RSS*: the residual sum of squares agrees to "
        "1e-9 (float32: solved is 1e-3) or to the rounding of the data; *digits*: those of the "
        "worst parameter, of 11 certified. *Swapped*: the certified RSS with like terms in another "
        "order, which has no digits. Every solver has its own defaults but for the stopping "
        f"accuracy and a budget of {budget} Jacobians. {versions}."
    )
    lines = [lead, "", *(line for table in tables for line in _section(table))]
    if profile:
        lines += [
            _PROFILE_TITLE,
            "",
            f"![Performance profiles](images/{profile})",
            "",
            _CAPTION,
            "",
        ]
    return "\n".join(lines)
