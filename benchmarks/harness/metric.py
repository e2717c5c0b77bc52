"""A number that must not get worse, and the comparison of many with those of before. No JAX here.

A metric knows which direction is better and how far it may go in the other one. What decides is
what the baseline says: another tolerance counts from the next baseline on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Better(StrEnum):
    """The direction in which a metric improves; `same` where any other value is worse."""

    lower = "lower"
    higher = "higher"
    same = "same"


@dataclass(frozen=True)
class Metric:
    """A value, a direction and a tolerance.

    It may get worse by the part `relative` of the baseline or by `absolute`, whichever is more.
    """

    value: float | str
    better: Better = Better.lower
    relative: float = 0.0
    absolute: float = 0.0

    def asdict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def fromdict(cls, data: dict[str, Any]) -> "Metric":
        return cls(**{**data, "better": Better(data["better"])})

    def verdict(self, now: float | str) -> "Verdict":
        """What to say of the value `now`, where this is the baseline."""
        if self.better is Better.same or isinstance(self.value, str) or isinstance(now, str):
            return Verdict.within if now == self.value else Verdict.worse
        loss = now - self.value if self.better is Better.lower else self.value - now
        allowance = max(self.relative * abs(self.value), self.absolute)
        # NaN is worse than anything.
        if not loss <= allowance:
            return Verdict.worse
        return Verdict.better if loss < -allowance else Verdict.within


class Verdict(StrEnum):
    """What became of a metric."""

    within = "within"
    better = "better"
    worse = "WORSE"
    missing = "MISSING"  # in the baseline alone
    new = "new"  # not in the baseline
    skipped = "skipped"  # in the baseline, and said not to be measurable here

    @property
    def fails(self) -> bool:
        return self in (Verdict.worse, Verdict.missing)


Table = Mapping[str, Mapping[str, Metric]]  # metrics by row and name


@dataclass(frozen=True)
class Change:
    """One metric of one row: the baseline, now, and the verdict."""

    row: str
    name: str
    before: float | str | None
    now: float | str | None
    verdict: Verdict

    def __str__(self) -> str:
        before, now = shown(self.before), shown(self.now)
        return f"{self.verdict:8} {self.row}, {self.name}: {before} -> {now}"


def shown(value: float | str | None) -> str:
    """A value as it is printed."""
    return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def compare(baseline: Table, now: Table, skipped: frozenset[str] = frozenset()) -> list[Change]:
    """Every metric of either table, in the baseline's order; what is new comes last.

    `skipped`: rows of the baseline that cannot be measured here. No others may be missing.
    """
    changes = []
    for row, metrics in baseline.items():
        for name, metric in metrics.items():
            found = now.get(row, {}).get(name)
            if found is not None:
                verdict = metric.verdict(found.value)
            else:
                verdict = Verdict.skipped if row in skipped else Verdict.missing
            value = None if found is None else found.value
            changes.append(Change(row, name, metric.value, value, verdict))
    for row, metrics in now.items():
        for name, metric in metrics.items():
            if name not in baseline.get(row, {}):
                changes.append(Change(row, name, None, metric.value, Verdict.new))
    return changes
