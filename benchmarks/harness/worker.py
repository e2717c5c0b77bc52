"""Runs one case and writes its record: a process of its own, so that peak memory is its own."""

import argparse
import importlib
import json
import resource
import traceback
from pathlib import Path


def peak_mib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="a case as JSON")
    parser.add_argument("output", type=Path, help="where the record goes, as JSON")
    arguments = parser.parse_args()
    case = json.loads(arguments.case)

    import jax

    jax.config.update("jax_enable_x64", case["dtype"] == "float64")

    from ..problems import PROBLEMS
    from .drive import Budget
    from .record import Record

    record = Record()
    instance = PROBLEMS[case["problem"]].build(jax.numpy.dtype(case["dtype"]))
    jax.block_until_ready((instance.params, instance.args))
    start = peak_mib()
    try:
        adapter = importlib.import_module(f"benchmarks.{case['adapter']}")
        record, _ = adapter.run(instance, Budget(**case["budget"]), **case["settings"])
    except Exception as error:
        traceback.print_exc()
        record.error = f"{type(error).__name__}: {error}"[:300]
    record.problem, record.solver, record.dtype = case["problem"], case["solver"], case["dtype"]
    record.start_mib, record.peak_mib = start, peak_mib()
    arguments.output.write_text(json.dumps(record.asdict()))


if __name__ == "__main__":
    main()
