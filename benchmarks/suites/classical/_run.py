"""Runs one solver over one collection, in a process of its own, a JSON line a solve."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ._problem import Classical
from .networks import NAMES, Network, network
from .regression import CERTIFIED, Certified

FACTORS = (1, 10, 100)
# Compiled programs are dropped after so many problems, which bounds memory.
_KEPT = 20


@dataclass(frozen=True)
class Instance:
    """A problem with its labelled starts; `known` says what its answer is."""

    name: str
    residual: Callable[[Any], Any]
    starts: dict[str, np.ndarray]
    known: Classical | Certified | Network

    @property
    def size(self) -> int:
        return next(iter(self.starts.values())).size


@dataclass
class Record:
    """One solve. `verdict` is filled in by the judge."""

    problem: str
    start: str
    theta: list[float] = field(default_factory=list)
    claimed: bool = False
    status: str = ""
    jacobians: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    verdict: dict[str, Any] = field(default_factory=dict)


def _scaled(problem: Classical) -> Instance:
    starts = {f"×{factor}": problem.scaled_start(factor) for factor in FACTORS}
    return Instance(problem.name, problem.residual, starts, problem)


def _fitted(data: Certified) -> Instance:
    far, near = map(np.array, data.starts)
    return Instance(data.name, data.residual, {"far": far, "near": near}, data)


def _network(name: str) -> Instance:
    residual, starts = network(name)
    return Instance(name, residual, starts, residual)


def instances(collection: str) -> list[Instance]:
    """The problems of "mgh", "schittkowski", "regression" or "networks"."""
    from .mgh_fixed import FIXED
    from .mgh_scalable import SCALABLE
    from .schittkowski_200 import TP200
    from .schittkowski_250 import TP250
    from .schittkowski_300 import TP300
    from .schittkowski_hs import HS

    if collection == "regression":
        return [_fitted(data) for data in CERTIFIED]
    if collection == "networks":
        return [_network(name) for name in NAMES]
    problems = FIXED + SCALABLE if collection == "mgh" else HS + TP200 + TP250 + TP300
    return [_scaled(problem) for problem in problems]


def _solved(name: str, instance: Instance, dtype: Any, budget: int) -> Iterator[Record]:
    """The records of a problem; what raises is a failure without a claim."""
    import jax.numpy as jnp

    from ._peers import SOLVERS

    solve = None
    for label, start in instance.starts.items():
        record = Record(instance.name, label)
        begun = time.perf_counter()
        try:
            solve = solve or SOLVERS[name](instance.residual, dtype, budget)
            outcome = solve(jnp.asarray(start, dtype))
            record.theta = np.asarray(outcome.theta, np.float64).ravel().tolist()
            record.claimed, record.status = outcome.claimed, outcome.status
            record.jacobians, record.evaluations = outcome.jacobians, outcome.evaluations
        except Exception as error:
            record.status = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        record.seconds = time.perf_counter() - begun
        yield record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("solver")
    parser.add_argument("collection")
    parser.add_argument("dtype")
    parser.add_argument("budget", type=int)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()

    import jax

    jax.config.update("jax_enable_x64", options.dtype == "float64")
    dtype = np.dtype(options.dtype)
    with options.output.open("w") as output:
        for index, instance in enumerate(instances(options.collection)):
            if index % _KEPT == _KEPT - 1:
                jax.clear_caches()
            for record in _solved(options.solver, instance, dtype, options.budget):
                output.write(json.dumps(asdict(record)) + "\n")
                output.flush()


if __name__ == "__main__":
    main()
