"""The benchmark problems by name."""

from .._instance import Instance, Problem
from . import exponential, interpolation, poisson, rbf_network, rosenbrock, sinc

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *interpolation.PROBLEMS,
        rosenbrock.PROBLEM,
        exponential.PROBLEM,
        *rbf_network.PROBLEMS,
        sinc.PROBLEM,
        poisson.PROBLEM,
    )
}

__all__ = ["PROBLEMS", "Instance", "Problem"]
