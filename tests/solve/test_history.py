"""What is kept of the steps, and the picture of it."""

import builtins
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm

START = {"a": jnp.asarray([[-1.2]]), "b": jnp.asarray(1.0)}


def residual(t):
    a, b = t["a"][0, 0], t["b"]
    return jnp.stack([10 * (b - a**2), 1 - a])


@pytest.fixture(scope="module")
def solution():
    return gramlm.solve(residual, START)


@pytest.mark.parametrize("every", [1, 3])
def test_parameters_are_kept_after_every_so_many_steps(every, solution):
    seen = [START]
    gramlm.solve(residual, START, callback=lambda event: seen.append(event.params))
    recording = gramlm.Saving(params=True, every=every)
    kept = gramlm.solve(residual, START, history=recording).history
    wanted = jax.tree.map(lambda *leaves: np.stack(leaves), *seen[::every])
    assert kept.params["a"].shape == (1 + len(kept.damping) // every, 1, 1)
    for x, y in zip(jax.tree.leaves(kept.params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(kept.cost, solution.history.cost)
    assert solution.history.params is None


def test_parameters_are_kept_within_a_program(solution):
    recording = gramlm.Saving(params=True, every=3)
    run = eqx.filter_jit(
        lambda start: gramlm.solve(residual, start, history=recording, max_steps=30)
    )
    history = run(START).history
    eager = gramlm.solve(residual, START, history=recording).history
    rows = len(eager.params["b"])
    assert history.params["a"].shape == (11, 1, 1)
    np.testing.assert_allclose(history.params["b"][:rows], eager.params["b"], atol=1e-9)
    assert np.all(np.isnan(history.params["b"][rows:]))
    assert np.all(np.isnan(history.seconds))


def test_time_goes_on(solution):
    seconds = solution.history.seconds
    assert seconds.shape == solution.history.damping.shape
    assert seconds.dtype == solution.history.cost.dtype
    assert seconds[0] > 0
    assert np.all(np.diff(seconds) >= 0)


@pytest.mark.parametrize("changes", [{"every": 0}, {"every": -2}, {"every": True}, {"params": 1}])
def test_an_impossible_recording_is_named(changes):
    with pytest.raises((TypeError, ValueError), match=r"Saving|Type-check"):
        gramlm.Saving(**changes)


@pytest.mark.parametrize("over_time", [False, True])
def test_a_picture_shows_what_the_history_holds(solution, over_time):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    history = solution.history
    axes = gramlm.diagnostics.plot_history(solution, over_time=over_time)
    lines = [axis.lines[0] for axis in axes]
    ends = np.append(0, history.seconds if over_time else np.arange(1, len(history.damping) + 1))
    positive = history.cost > 0
    np.testing.assert_array_equal(lines[0].get_ydata()[positive], history.cost[positive])
    assert np.all(np.isnan(lines[0].get_ydata()[~positive]))
    for line, moments in zip(lines, (ends, ends[:-1], ends[1:]), strict=True):
        np.testing.assert_allclose(line.get_xdata(), moments)
    again = gramlm.diagnostics.plot_history(history, axes=axes)
    assert [len(axis.lines) for axis in again] == [2, 2, 2]
    assert all(axis.get_yscale() == "log" for axis in again)
    plt.close("all")


def test_a_picture_of_something_else_is_refused(solution):
    pytest.importorskip("matplotlib")
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), solution.history)
    for bad in (batch, solution.value):
        with pytest.raises(Exception, match="plot_history"):
            gramlm.diagnostics.plot_history(bad)
    with pytest.raises(ValueError, match="three"):
        gramlm.diagnostics.plot_history(solution, axes=[1, 2])


def test_without_matplotlib_it_is_said_what_to_install(solution, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"gramlm\[plots\]"):
        gramlm.diagnostics.plot_history(solution)
