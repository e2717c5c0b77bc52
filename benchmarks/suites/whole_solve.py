"""`python -m benchmarks.suites.whole_solve`: the first and the later calls of a small whole solve.

The exponential fit, from call to answer, as a user meets it: the first call compiles. Process
seconds; every library at its defaults, except for tolerances of 1e-10 where it has any.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

CALLS = 50


def _solvers() -> dict[str, Callable[[], Any]]:
    """Functions of no arguments that solve the fit once and return the parameters."""
    import jaxopt
    import nlls_gram
    import optimistix as optx
    from scipy.optimize import least_squares

    import gramlm

    from ..problems import PROBLEMS

    instance = PROBLEMS["exponential"].build(np.dtype("float64"))
    residual_fn, params, args = instance.residual_fn, instance.params, instance.args
    peer = nlls_gram.LevenbergMarquardt(residual_fn, geodesic_acceleration=True)
    plain = nlls_gram.LevenbergMarquardt(residual_fn, geodesic_acceleration=False)
    lm = optx.LevenbergMarquardt(rtol=1e-10, atol=1e-10)
    third = jaxopt.LevenbergMarquardt(residual_fn, tol=1e-10, jit=True)
    x, y = np.asarray(args[0]), np.asarray(args[1])

    def by_scipy() -> Any:
        def residual(q: Any) -> Any:
            return q[0] * np.exp(q[1] * x) - y

        return least_squares(residual, np.asarray(params), method="lm", xtol=1e-10).x

    bare = gramlm.LevenbergMarquardt(correction=None)
    return {
        "gramlm": lambda: gramlm.solve(residual_fn, params, args).value,
        "gramlm no geodesic": lambda: gramlm.solve(residual_fn, params, args, solver=bare).value,
        "nlls-gram geodesic": lambda: peer.solve(params, args, gtol=1e-10).x,
        "nlls-gram": lambda: plain.solve(params, args, gtol=1e-10).x,
        "Optimistix": lambda: optx.least_squares(residual_fn, lm, params, args).value,
        "JAXopt": lambda: third.run(params, args).params,
        "SciPy lm, finite differences": by_scipy,
    }


def measure() -> list[tuple[str, float, float, float]]:
    """For each library: seconds of the first call, of a later one, and the error of the answer."""
    jax.config.update("jax_enable_x64", True)
    truth = np.array([2.5, -1.3])
    rows = []
    for name, solve in _solvers().items():
        start = time.process_time()
        answer = jax.block_until_ready(solve())
        first = time.process_time() - start
        later = []
        for _ in range(CALLS):
            start = time.process_time()
            jax.block_until_ready(solve())
            later.append(time.process_time() - start)
        error = float(np.max(np.abs(np.asarray(answer) - truth)))
        rows.append((name, first, statistics.median(later), error))
    return rows


def table() -> str:
    """The measurement as Markdown."""
    lines = ["| solver | first call, s | later call, ms | error |", "| --- | --- | --- | --- |"]
    for name, first, later, error in measure():
        lines.append(f"| {name} | {first:.2f} | {1e3 * later:.2f} | {error:.0e} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table())
