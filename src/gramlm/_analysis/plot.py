"""A picture of a history."""

from typing import Any

import numpy as np

from .._solve.solution import History, Solution

_MISSING = (
    "`plot_history` draws with matplotlib, which is not installed: "
    'pip install matplotlib, or pip install "gramlm[plots]".'
)


def plot_history(history: Solution | History, *, axes: Any = None, over_time: bool = False) -> Any:
    """Draws cost, gradient norm and damping of a solve, on logarithmic scales.

    **Arguments:**

    - `history`: a `gramlm.Solution`, or its `history`. What is not positive or not finite is left
      out.
    - `axes`: three matplotlib axes to draw on, so that several solves can be compared; a new figure
      unless given.
    - `over_time`: over the seconds instead of the steps.

    **Returns:** the three axes; `axes[0].figure` is the figure.

    **Raises:** `ModuleNotFoundError` without matplotlib, which the extra `gramlm[plots]` brings.

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm


        def residual(params):
            return jnp.array([10 * (params[1] - params[0] ** 2), 1 - params[0]])


        solution = gramlm.solve(residual, jnp.array([-1.2, 1.0]))
        axes = gramlm.diagnostics.plot_history(solution)
        axes[0].figure.savefig("history.png")
        ```
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_MISSING, name=error.name) from error
    if isinstance(history, Solution):
        history = history.history
    if not isinstance(history, History) or np.ndim(history.cost) != 1:
        raise TypeError(
            "`plot_history` takes the `gramlm.Solution` of one solve, or its `history`; got "
            f"{type(history).__name__}. Of a batch take one: `jax.tree.map(lambda x: x[i], …)`."
        )
    if axes is None:
        _, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    axes = np.ravel(axes)
    if len(axes) != 3:
        raise ValueError(f"`axes` must be three matplotlib axes; got {len(axes)}.")
    cost, gradient, damping, seconds = (
        np.asarray(values, float)
        for values in (history.cost, history.gradient_norm, history.damping, history.seconds)
    )
    ends = np.append(0.0, seconds if over_time else np.arange(1.0, len(damping) + 1))
    curves = (
        ("cost ½‖r‖²", ends, cost),
        ("gradient norm", ends[:-1], gradient),
        ("damping λ", ends[1:], damping),
    )
    for axis, (name, moments, values) in zip(axes, curves, strict=True):
        shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        axis.plot(moments, shown, ".-")
        axis.set_yscale("log")
        axis.set(xlabel="seconds" if over_time else "step", title=name)
        axis.grid(True, alpha=0.3)
        if not over_time:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes
