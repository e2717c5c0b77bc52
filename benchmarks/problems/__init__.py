"""The benchmark problems by name."""

from ..harness.instance import Instance, Problem
from . import (
    exponential,
    interpolation,
    kernel,
    poisson,
    poisson_5d,
    rbf_network,
    rosenbrock,
    sinc,
    stencil,
)

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *interpolation.PROBLEMS,
        rosenbrock.PROBLEM,
        exponential.PROBLEM,
        *rbf_network.PROBLEMS,
        sinc.PROBLEM,
        poisson.PROBLEM,
        *kernel.PROBLEMS,
        stencil.PROBLEM,
        *poisson_5d.PROBLEMS,
    )
}

__all__ = ["PROBLEMS", "Instance", "Problem"]
