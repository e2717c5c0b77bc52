"""`python -m benchmarks.suites.constrained`: bounds and losses beside SciPy's `least_squares`.

- *Boxes*: the 39 problems of Moré, Garbow and Hillstrom from their published starts. Of every
  second parameter the box ends half of the way from the start to the solution, and as far on the
  other side of the start; the others have no bounds.
- *Positive bumps*: Gaussian bumps with weights that must not be negative, n × p up to 200 × 100 and
  40 × 120, from weights of 0.1.
- *Outliers*: the 27 certified regressions from their nearer starts, with every seventh observation
  moved by ten standard deviations of the residuals, by the losses `soft_l1` and `cauchy` with a
  scale of 1.5 standard deviations.

Solved is a cost within 1e-6 of the lowest that any of the solvers found. Both have exact
Jacobians in float64, compiled; times are those of a second solve. SciPy's tolerances are 1e-12,
gramlm's its defaults; the budget is 500 Jacobians.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

import gramlm

from .classical._run import instances

BUDGET = 500
DOCS = Path(__file__).parents[2] / "docs"
BUMPS = ((30, 12), (20, 40), (200, 100), (40, 120))


@dataclass
class Case:
    """A problem with its box and its loss."""

    name: str
    residual: Callable[[Any], Any]
    start: np.ndarray
    lower: np.ndarray | float = -np.inf
    upper: np.ndarray | float = np.inf
    loss: str = "linear"
    scale: float = 1.0


@dataclass
class Found:
    """What a solver made of it."""

    cost: float
    jacobians: int
    evaluations: int
    seconds: float
    claimed: bool


@dataclass
class Row:
    """The sums of a solver over a collection."""

    solved: int = 0
    claims: int = 0
    jacobians: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    missed: list[str] = field(default_factory=list)


def boxes() -> Iterator[Case]:
    """Half of the way to the solution, for every second parameter."""
    for problem in instances("mgh"):
        start = np.asarray(problem.starts["×1"], float)
        found = gramlm.solve(problem.residual, jnp.asarray(start), throw=False, max_steps=BUDGET)
        half = 0.5 * (np.asarray(found.value) - start)
        cut = (np.arange(start.size) % 2 == 0) & (half != 0)
        lower = np.where(cut, start - np.abs(half), -np.inf)
        upper = np.where(cut, start + np.abs(half), np.inf)
        yield Case(problem.name, problem.residual, start, lower, upper)


def bumps() -> Iterator[Case]:
    """Non-negative weights of Gaussian bumps."""
    for n, p in BUMPS:
        rng = np.random.default_rng(n + p)
        x, centres = np.linspace(0, 1, n), np.linspace(0, 1, p)
        design = np.exp(-(((x[:, None] - centres) / 0.05) ** 2) / 2)
        weights = np.where(rng.random(p) < 0.2, np.abs(rng.normal(size=p)), 0)
        y = design @ weights + 0.01 * rng.normal(size=n)
        a, b = jnp.asarray(design), jnp.asarray(y)
        yield Case(f"bumps {n} × {p}", lambda t, a=a, b=b: a @ t - b, np.full(p, 0.1), lower=0.0)


def outliers(loss: str) -> Iterator[Case]:
    """Certified regressions of which every seventh observation is far off."""
    for problem in instances("regression"):
        certified = np.asarray(problem.known.certified, float)
        r = np.asarray(problem.residual(jnp.asarray(certified)))
        spread = float(np.sqrt(np.mean(r**2)))
        shift = np.where(np.arange(r.size) % 7 == 3, 10 * spread, 0.0)

        def residual(t, f=problem.residual, shift=jnp.asarray(shift)):
            return f(t) + shift

        start = np.asarray(problem.starts["near"], float)
        yield Case(problem.name, residual, start, loss=loss, scale=1.5 * spread)


def ours(case: Case) -> Found:
    """gramlm with its defaults."""
    losses = {"linear": None, "soft_l1": gramlm.SoftL1, "cauchy": gramlm.Cauchy}
    kind = losses[case.loss]
    bounded = np.any(np.isfinite(case.lower)) or np.any(np.isfinite(case.upper))

    def run():
        return jax.block_until_ready(
            gramlm.solve(
                case.residual, jnp.asarray(case.start), throw=False, max_steps=BUDGET,
                loss=None if kind is None else kind(case.scale),
                lower=jnp.asarray(case.lower) if bounded else None,
                upper=jnp.asarray(case.upper) if bounded else None,
            )
        )  # fmt: skip

    run()
    begun = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - begun
    stats = found.stats
    return Found(
        float(stats["cost"]), int(stats["num_steps"]), 1 + int(stats["num_evaluations"]), seconds,
        bool(found.result == gramlm.RESULTS.successful),
    )  # fmt: skip


def scipys(method: str) -> Callable[[Case], Found]:
    """SciPy's, with its parameters scaled by J as gramlm's are."""

    def solve(case: Case) -> Found:
        residual, jacobian = jax.jit(case.residual), jax.jit(jax.jacfwd(case.residual))

        def run():
            return least_squares(
                lambda t: np.asarray(residual(t)), case.start,
                jac=lambda t: np.asarray(jacobian(t)), bounds=(case.lower, case.upper),
                method=method, loss=case.loss, f_scale=case.scale, x_scale="jac",
                xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=BUDGET,
            )  # fmt: skip

        run()
        begun = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - begun
        return Found(found.cost, found.njev, found.nfev, seconds, found.success)

    return solve


SOLVERS = {"gramlm": ours, "SciPy trf": scipys("trf"), "SciPy dogbox": scipys("dogbox")}
PAGES = {
    "bounds": {"Boxes": boxes, "Positive bumps": bumps},
    "losses": {
        "Outliers, soft_l1": lambda: outliers("soft_l1"),
        "Outliers, cauchy": lambda: outliers("cauchy"),
    },
}


def attempted(solve: Callable[[Case], Found], case: Case) -> Found:
    """What raises has found nothing."""
    try:
        return solve(case)
    except Exception as error:
        print(f"  {case.name}: {type(error).__name__}: {error}"[:200], flush=True)
        return Found(np.inf, 0, 0, 0.0, False)


def table(name: str, cases: Iterator[Case]) -> str:
    """The table of a collection."""
    rows = {solver: Row() for solver in SOLVERS}
    count = common = 0
    for case in cases:
        found = {solver: attempted(solve, case) for solver, solve in SOLVERS.items()}
        best = min(f.cost for f in found.values() if np.isfinite(f.cost))
        solved = {s: f.cost <= best * (1 + 1e-6) + 1e-10 for s, f in found.items()}
        count += 1
        common += all(solved.values())
        for solver, f in found.items():
            row = rows[solver]
            row.solved += solved[solver]
            row.claims += f.claimed
            if not solved[solver]:
                row.missed.append(f"{case.name} ({f.cost / best - 1:.1e} above)")
            if all(solved.values()):
                row.jacobians += f.jacobians
                row.evaluations += f.evaluations
                row.seconds += f.seconds
        print(
            case.name,
            {s: (f.cost, f.jacobians, f.evaluations) for s, f in found.items()},
            flush=True,
        )
        jax.clear_caches()
    lines = [
        f"### {name}",
        "",
        f"{count} problems; Jacobians, evaluations and seconds over the {common} that all solve.",
        "",
        "| solver | solved | claims | Jacobians | evaluations | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for solver, row in rows.items():
        lines.append(
            f"| {solver} | {row.solved} | {row.claims} | {row.jacobians} | {row.evaluations} | "
            f"{row.seconds:.2f} |"
        )
    lines.append("")
    for solver, row in rows.items():
        if row.missed:
            lines += [f"Not solved by {solver}: {', '.join(row.missed)}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suites.constrained", description=__doc__
    )
    parser.add_argument("--page", nargs="+", choices=PAGES, default=list(PAGES))
    parser.add_argument("--write", action="store_true", help="write the tables of the docs")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    for page in options.page:
        text = "\n".join(table(name, cases()) for name, cases in PAGES[page].items())
        if options.write:
            (DOCS / f"benchmarks-{page}-tables.md").write_text(text, "utf-8")
        print(text)


if __name__ == "__main__":
    main()
