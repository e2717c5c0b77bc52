"""Solves that are interrupted by Ctrl-C; run by test_callbacks.py in a process of its own."""

import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
import gramlm._solve.planned
import gramlm._step.state

jax.config.update("jax_enable_x64", True)
START = jnp.asarray([-1.2, 1.0])


def residual(t, loops):
    """Rosenbrock's, after idle loops, so that one program serves quick and slow solves."""
    # Of many numbers at a time: what looks cheap to it, XLA runs before it returns.
    many = jnp.full(2000, jax.lax.stop_gradient(t[0]))
    idle = jax.lax.fori_loop(0, loops, lambda _, y: jnp.sin(y + 1), many)
    return jnp.stack([10 * (t[1] - t[0] ** 2), 1 - t[0]]) + 0 * idle[0]


def solve(loops=0, **options):
    return gramlm.solve(residual, START, jnp.asarray(loops), **options)


def told(solution):
    history = solution.history
    numbers = (history.cost, history.damping, history.gradient_norm)
    return solution.value, solution.stats, solution.state, numbers


def check_resumed(solution, reference):
    """Bit for bit the uninterrupted one, all but the time."""
    resumed = jax.tree.leaves(told(solve(resume=solution)))
    for x, y in zip(resumed, jax.tree.leaves(told(reference)), strict=True):
        np.testing.assert_array_equal(x, y)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def loops_of_a_second():
    few, times = 5000, []
    compiled = jax.jit(residual).lower(START, jnp.asarray(few)).compile()
    for _ in range(5):  # the quickest, on a machine that may have other things to do
        begin = time.perf_counter()
        jax.block_until_ready(compiled(START, jnp.asarray(few)))
        times.append(time.perf_counter() - begin)
    return int(few / min(times))


def in_a_callback(reference):
    """At once."""

    def slow(event):
        if event.step == 2:
            interrupt()
            time.sleep(300)

    with pytest.raises(gramlm.SolveInterrupted) as caught:
        solve(callback=slow)
    assert caught.value.solution.stats["num_steps"] == 2
    check_resumed(caught.value.solution, reference)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def between_steps(reference, second):
    """The solution is returned."""
    solve(second // 16, max_steps=2, throw=False)  # how long a step takes is known from then on
    timer = threading.Timer(1.0, interrupt)
    timer.start()
    solution = solve(second // 16, throw=False)
    timer.join()
    assert solution.result == gramlm.RESULTS.interrupted, gramlm.RESULTS[solution.result]
    assert 0 < solution.stats["num_steps"] < reference.stats["num_steps"]
    check_resumed(solution, reference)


def within_a_step(reference, second, donated):
    """The second one gets out."""
    if donated:
        gramlm._step.state._LARGE = 0
        gramlm._solve.planned._planned.clear()
        solve(max_steps=1, throw=False)
    timers = [threading.Timer(seconds, interrupt) for seconds in (0.4, 0.9)]

    def start(event=None):
        if event is None or event.step == 1:
            for timer in timers:
                timer.start()

    # The first steps, which the start precedes, or the second, which overwrites the first.
    if not donated:
        start()
    with pytest.raises(gramlm.SolveInterrupted) as caught:
        solve(second, callback=start if donated else None)
    solution = caught.value.solution
    assert solution.result == gramlm.RESULTS.interrupted
    assert solution.stats["num_steps"] < reference.stats["num_steps"]
    if not donated:
        check_resumed(solution, reference)
        return
    assert solution.state is None
    with pytest.raises(gramlm.CheckpointError, match="start from its `value`"):
        solve(resume=solution)


if __name__ == "__main__":
    whole, second = solve(), loops_of_a_second()
    in_a_callback(whole)
    between_steps(whole, second)
    within_a_step(whole, second, donated=False)
    within_a_step(whole, second, donated=True)
