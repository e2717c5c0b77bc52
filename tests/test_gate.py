"""The comparison of the benchmark gate: it fails on what is worse, and on nothing else."""

import dataclasses
import math

import pytest
from benchmarks.harness.baseline import Baseline
from benchmarks.harness.metric import Better, Metric, Verdict, compare
from benchmarks.suites.gate.main import report
from benchmarks.suites.gate.rows import ROWS
from benchmarks.suites.gate.times import RATIOS

COUNT = Metric(40, relative=0.1, absolute=1)
FEW = Metric(3, relative=0.1, absolute=1)
RATIO = Metric(2.0, relative=0.3)


def verdicts(before, now, **options):
    return {(c.row, c.name): c.verdict for c in compare(before, now, **options)}


@pytest.mark.parametrize(
    ("metric", "now", "verdict"),
    [
        (COUNT, 40, Verdict.within),
        (COUNT, 44, Verdict.within),
        (COUNT, 45, Verdict.worse),
        (COUNT, 36, Verdict.within),
        (COUNT, 35, Verdict.better),
        # A tenth of a few is nothing: one more is allowed.
        (FEW, 4, Verdict.within),
        (FEW, 5, Verdict.worse),
        (FEW, 1, Verdict.better),
        (Metric(0, relative=0.1, absolute=1), 2, Verdict.worse),
        (RATIO, 2.5, Verdict.within),
        (RATIO, 2.7, Verdict.worse),
        (RATIO, 1.3, Verdict.better),
        (RATIO, math.nan, Verdict.worse),
        (RATIO, math.inf, Verdict.worse),
        (Metric(0.9, Better.higher, relative=0.1), 0.8, Verdict.worse),
        (Metric(0.9, Better.higher, relative=0.1), 0.85, Verdict.within),
        (Metric(0.9, Better.higher, relative=0.1), 1.0, Verdict.better),
        (Metric("gradient", Better.same), "gradient", Verdict.within),
        (Metric("gradient", Better.same), "none", Verdict.worse),
    ],
)
def test_a_metric_may_get_worse_by_its_tolerance_and_no_more(metric, now, verdict):
    assert metric.verdict(now) is verdict
    assert verdict.fails == (verdict is Verdict.worse)


def test_each_metric_is_compared_with_its_own_baseline():
    before = {"a": {"steps": COUNT, "bytes": COUNT}, "b": {"steps": FEW}}
    now = {
        "a": {"steps": dataclasses.replace(COUNT, value=80), "bytes": COUNT},
        "b": {"steps": dataclasses.replace(FEW, value=1)},
    }
    assert verdicts(before, now) == {
        ("a", "steps"): Verdict.worse,
        ("a", "bytes"): Verdict.within,
        ("b", "steps"): Verdict.better,
    }


def test_the_tolerance_is_that_of_the_baseline():
    now = {"a": {"steps": Metric(80, relative=10.0)}}
    assert verdicts({"a": {"steps": COUNT}}, now) == {("a", "steps"): Verdict.worse}


def test_a_row_or_metric_that_is_gone_fails_unless_it_was_skipped():
    before = {"a": {"steps": COUNT, "bytes": COUNT}, "b": {"steps": COUNT}}
    now = {"a": {"steps": COUNT}}
    assert verdicts(before, now) == {
        ("a", "steps"): Verdict.within,
        ("a", "bytes"): Verdict.missing,
        ("b", "steps"): Verdict.missing,
    }
    assert Verdict.missing.fails
    skipped = verdicts(before, now, skipped=frozenset({"b"}))
    assert skipped["b", "steps"] is Verdict.skipped
    assert skipped["a", "bytes"] is Verdict.missing


def test_what_is_new_is_told_and_does_not_fail():
    changes = compare({}, {"a": {"steps": COUNT}})
    assert [change.verdict for change in changes] == [Verdict.new]
    text, worse = report(changes, {})
    assert "a, steps: - -> 40" in text
    assert not worse


def test_the_report_names_the_metric_its_baseline_and_its_value_now():
    before = {"a": {"steps": COUNT, "bytes": COUNT}, "b": {"steps": FEW, "bytes": FEW}}
    now = {
        "a": {"steps": dataclasses.replace(COUNT, value=80), "bytes": COUNT},
        "b": {"steps": dataclasses.replace(FEW, value=1)},
    }
    text, worse = report(compare(before, now), {"c": "its peer is not installed"})
    assert worse
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "skipped c: its peer is not installed",
        "better b, steps: 3 -> 1",
        "WORSE a, steps: 40 -> 80",
        "MISSING b, bytes: 3 -> -",
        "4 metrics: 2 got worse or are missing, 1 better",
    ]


def test_a_baseline_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "baseline.json"
    sections = {"counts": {"a": {"steps": COUNT, "end": Metric("cost", Better.same)}}}
    written = Baseline(sections)
    written.write(path)
    assert Baseline.read(path) == written
    assert Baseline.read(path).differences() == []
    other = dataclasses.replace(written, versions={**written.versions, "jax": "0.0.1"})
    assert len(other.differences()) == 1


def test_the_baseline_at_hand_has_the_rows_that_are_measured():
    sections = Baseline.read().sections
    assert list(sections["counts"]) == list(ROWS)
    names = {ratio.name for ratio in RATIOS}
    assert set(sections["times"]) <= names
    assert all(metrics for table in sections.values() for metrics in table.values())
