"""The first and the later calls of one solver on one row: a process of its own.

`python -m benchmarks.suites.gate.calls ROW SOLVER` prints process seconds as JSON. Imports and the
problem's data are made before the clock starts; the first call compiles. Every library is at its
defaults, except for tolerances of 1e-10 where it has no others.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .posed import Posed

# Process seconds, so that a busy machine makes as many calls.
LATER_SECONDS, LATER_CALLS = 1.0, 1000

Call = Callable[[], Any]


def by_gramlm(posed: Posed) -> Call:
    import gramlm

    solve = partial(gramlm.solve, solver=posed.solver, max_steps=posed.max_steps, throw=False)
    residual, params, args = posed.residual, posed.instance.params, posed.args
    return lambda: solve(residual, params, args).value


def by_optimistix(posed: Posed) -> Call:
    """Its whole solve jitted, as is best for small problems."""
    import equinox as eqx
    import optimistix as optx

    solver = optx.LevenbergMarquardt(rtol=1e-10, atol=1e-10)

    @eqx.filter_jit
    def solve(params: Any, args: Any) -> Any:
        residual = posed.instance.residual_fn
        found = optx.least_squares(
            residual, solver, params, args, max_steps=posed.max_steps, throw=False
        )
        return found.value

    return lambda: solve(posed.instance.params, posed.instance.args)


def by_nlls_gram(posed: Posed, residual: Any = None) -> Call:
    import nlls_gram

    solver = nlls_gram.LevenbergMarquardt(residual or posed.instance.residual_fn)
    params, args = posed.instance.params, posed.instance.args
    return lambda: solver.solve(params, args, max_steps=posed.max_steps, gtol=1e-10).x


def by_nlls_gram_rows(posed: Posed) -> Call:
    """With its rows declared, which releases from 2.13 on know."""
    import jax.numpy as jnp
    import nlls_gram

    assert posed.instance.rows is not None
    functions, data = posed.instance.rows
    mapped = [nlls_gram.vmap_rows(function, in_axes=(None, 0)) for function in functions]

    def residual(params: Any, _: Any) -> Any:
        blocks = data if len(mapped) > 1 else (data,)
        return jnp.concatenate([f(params, block) for f, block in zip(mapped, blocks, strict=True)])

    return by_nlls_gram(posed, residual)


SOLVERS: Mapping[str, Callable[[Posed], Call]] = {
    "gramlm": by_gramlm,
    "optimistix": by_optimistix,
    "nlls-gram": by_nlls_gram,
    "nlls-gram vmap_rows": by_nlls_gram_rows,
}


def measure(row: str, solver: str) -> dict[str, float]:
    """Process seconds of the first call, and of the fastest of later ones."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from .rows import ROWS

    posed = ROWS[row]()
    call = SOLVERS[solver](posed)
    jax.block_until_ready((posed.instance.params, posed.args))
    start = time.process_time()
    jax.block_until_ready(call())
    first = time.process_time() - start
    later, begun = [], time.process_time()
    while not later or (len(later) < LATER_CALLS and time.process_time() - begun < LATER_SECONDS):
        start = time.process_time()
        jax.block_until_ready(call())
        later.append(time.process_time() - start)
    return {"first": first, "later": min(later)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row")
    parser.add_argument("solver", choices=SOLVERS)
    options = parser.parse_args()
    print(json.dumps(measure(options.row, options.solver)))


if __name__ == "__main__":
    main()
