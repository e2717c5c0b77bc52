"""What a row takes in Jacobians, evaluations, products, iterations and memory, and where it ends.

Steps are made by `LevenbergMarquardt.step` compiled once, of which XLA says what memory it takes
beside its arguments. Counts are those of `StepInfo`, added up. All of it is the same from run to
run; another processor or another release of JAX rounds differently.
"""

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from ...harness.metric import Better, Metric

PROCESSES = 2
RELATIVE = 0.1
ENDS = ("none", "cost", "gradient", "step", "absolute_cost", "vanished", "rounding")


def counts(names: Iterable[str]) -> dict[str, dict[str, Metric]]:
    """The metrics of these rows, measured side by side: the machine's load changes none."""
    names = list(names)
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        return dict(zip(names, pool.map(counted, names), strict=True))


def counted(name: str) -> dict[str, Metric]:
    """The metrics of one row."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import equinox as eqx

    import gramlm

    from .rows import ROWS

    posed = ROWS[name]()
    residual, params, args = posed.residual, posed.instance.params, posed.args
    solver = posed.solver.following(posed.solver.plan(residual, params, args))
    state = solver.init(residual, params, args)
    step = eqx.filter_jit(solver.step).lower(residual, params, state, args).compile()
    memory = step.compiled.memory_analysis()

    names = ("evaluations", "products", "inner_iterations")
    total, steps, ended = dict.fromkeys(names, 0), 0, False
    while not ended and steps < posed.max_steps:
        params, state, info = step(residual, params, state, args)
        steps += 1
        for count in names:
            total[count] += int(getattr(info, count))
        ended = bool(info.result != gramlm.RESULTS.running)
    # Of the members of an enumeration only comparisons are public.
    end = next(n for n in ENDS if bool(info.criterion == getattr(gramlm.CRITERIA, n)))
    if ended and not bool(info.result == gramlm.RESULTS.successful):
        end = gramlm.RESULTS[info.result]
    cost = max(float(info.cost), posed.level)
    taken = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return {
        "end": Metric(end, Better.same),
        "cost": Metric(cost, relative=RELATIVE),
        "jacobians": Metric(steps, relative=RELATIVE, absolute=1),
        **{count: Metric(total[count], relative=RELATIVE, absolute=1) for count in names},
        "step bytes": Metric(taken, relative=RELATIVE),
    }
