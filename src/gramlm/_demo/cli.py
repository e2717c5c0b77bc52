"""`python -m gramlm`: fits real terrain by a trained RBF network, beside SciPy's interpolant."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from .._core.results import CRITERIA, RESULTS
from .._solve.callback.base import AbstractCallback, Beginning, Ending, Event
from . import terrain as terrain_job

_MISSING = (
    '{name} is not installed. The main job needs matplotlib and SciPy: pip install "gramlm[plots]"'
)


class _Metres(AbstractCallback):
    """One line a step: the RMSE at the samples in metres, and how the step went."""

    def __init__(self, samples: int, scale: float):
        self._samples, self._scale = samples, scale

    def start(self, beginning: Beginning) -> None:
        print(beginning.plan)
        print(f"{'step':>6} {'RMSE [m]':>10} {'damping':>10} {'gain':>7} {'trials':>7} {'time':>8}")

    def __call__(self, event: Event) -> None:
        info = event.info
        rmse = self._scale * float(np.sqrt(2 * float(info.cost) / self._samples))
        mark = "" if info.accepted else "  rejected"
        print(
            f"{event.step:6d} {rmse:10.3f} {float(info.damping):10.2e} "
            f"{float(info.gain_ratio):7.3f} {int(info.trials):7d} {event.seconds:6.1f} s{mark}",
            flush=True,
        )

    def end(self, ending: Ending | None) -> None:
        pass


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the main job; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
    except ModuleNotFoundError as error:
        print(f"gramlm: {_MISSING.format(name=error.name)}", file=sys.stderr)
        return 1
    terrain = terrain_job.load_terrain()
    _check(parser, options, terrain)
    with _precision(options.dtype):
        _run(terrain, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gramlm",
        description=(
            "Fits the Jacksboro digital elevation model from scattered samples by a Gaussian RBF "
            "network whose centres, widths, skews and weights are all trained, and compares it "
            "with SciPy's RBFInterpolator at all other grid points."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--samples", type=int, default=2000, help="grid points to fit, drawn at random")
    add("--centres", type=int, default=3500, help="Gaussians, of six parameters each")
    add("--dtype", choices=("float32", "float64"), default="float32", help="precision of the fit")
    add("--seed", type=int, default=0, help="seed of the samples, 0 or more")
    add("--max-steps", type=int, default=20, help="most Jacobians to take")
    add("--output", type=Path, default=Path("terrain.png"), help="the picture to write")
    add("--no-progress", action="store_true", help="print no line for each step")
    return parser


def _check(
    parser: argparse.ArgumentParser, options: argparse.Namespace, terrain: terrain_job.Terrain
) -> None:
    """Ends with a message and exit code 2 on options that cannot work."""
    size = terrain.elevation.size
    if options.samples < 10:
        parser.error(f"--samples must be at least 10; got {options.samples}")
    if options.samples >= size:
        parser.error(
            f"--samples must be less than the {size} points of the terrain, so that some are "
            f"held out; got {options.samples}"
        )
    if options.centres < 1:
        parser.error(f"--centres must be at least 1; got {options.centres}")
    if options.max_steps < 1:
        parser.error(f"--max-steps must be at least 1; got {options.max_steps}")
    if options.seed < 0:
        parser.error(f"--seed must not be negative; got {options.seed}")
    output: Path = options.output
    if not output.parent.is_dir():
        parser.error(f"--output: there is no directory {output.parent}")
    if output.is_dir():
        parser.error(f"--output must name a file; {output} is a directory")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        parser.error(f"--output: no permission to write {output}")
    if output.suffix.lower() not in (".png", ".pdf", ".svg"):
        parser.error(f"--output must end in .png, .pdf or .svg; got {output.name}")


@contextmanager
def _precision(dtype: str) -> Iterator[None]:
    """64-bit arrays within the block if `dtype` needs them."""
    before = bool(jax.config.read("jax_enable_x64"))
    jax.config.update("jax_enable_x64", before or dtype == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _run(terrain: terrain_job.Terrain, options: argparse.Namespace) -> None:
    samples = terrain_job.draw_samples(terrain, options.samples, options.seed)
    truth = terrain.elevation.ravel()
    held_out = np.ones(truth.size, bool)
    held_out[samples.positions] = False
    spread = float(samples.elevation.std())

    n, p = options.samples, terrain_job.PARAMETERS_PER_CENTRE * options.centres
    rows, columns = terrain.elevation.shape
    print(
        f"terrain: {rows} x {columns} points, {truth.min():.0f} to {truth.max():.0f} m; "
        f"{n} samples, {held_out.sum()} points held out"
    )
    print(f"network: {options.centres} Gaussians, {p} parameters, {options.dtype}", flush=True)

    fit = terrain_job.fit_terrain(
        samples,
        options.centres,
        dtype=options.dtype,
        max_steps=options.max_steps,
        verbose=False if options.no_progress else _Metres(n, spread or 1.0),
    )
    begin = time.perf_counter()
    fitted = fit.predict(terrain.points)
    predict_seconds = time.perf_counter() - begin
    interpolant, interpolant_seconds = terrain_job.interpolate(samples, terrain.points)

    stats = fit.solution.stats
    reached = bool(fit.solution.result == RESULTS.successful)
    ending = CRITERIA[stats["criterion"]] if reached else RESULTS[fit.solution.result]
    print(
        f"gramlm: {int(stats['num_steps'])} steps in {fit.seconds:.1f} s (with compilation), "
        f"linear start {fit.start_seconds:.1f} s, evaluation {predict_seconds:.1f} s"
    )
    print(f"        {ending}")
    print(f"RBFInterpolator: {interpolant_seconds:.1f} s (fit and evaluation)")
    print(f"{'RMSE [m]':<22}{'at samples':>12}{'held out':>12}")
    mean = np.full_like(truth, samples.elevation.mean())
    for name, values in (("mean", mean), ("gramlm", fitted), ("RBFInterpolator", interpolant)):
        error = values - truth
        print(f"{name:<22}{_rms(error[samples.positions]):12.3f}{_rms(error[held_out]):12.3f}")

    rmse = spread * np.sqrt(2 * np.asarray(fit.solution.history.cost, float) / n)
    _draw(terrain, samples, fitted, held_out, rmse, options.output)
    print(f"picture: {options.output}")


def _rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))


def _draw(
    terrain: terrain_job.Terrain,
    samples: terrain_job.Samples,
    fitted: np.ndarray,
    held_out: np.ndarray,
    rmse: np.ndarray,
    output: Path,
) -> None:
    """The terrain, the fit, its error, and the RMSE at the samples after each step."""
    # A figure with its own canvas leaves the caller's backend alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LightSource
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 10), layout="constrained")
    FigureCanvasAgg(figure)
    (true_axes, fit_axes), (error_axes, history_axes) = figure.subplots(2, 2)

    truth = terrain.elevation
    image = fitted.reshape(truth.shape)
    low, high = float(truth.min()), float(truth.max())
    dx, dy = terrain.x[1] - terrain.x[0], terrain.y[0] - terrain.y[1]
    extent = (
        float(terrain.x[0] - dx / 2), float(terrain.x[-1] + dx / 2),
        float(terrain.y[-1] - dy / 2), float(terrain.y[0] + dy / 2),
    )  # fmt: skip
    light = LightSource(azdeg=315, altdeg=45)

    from matplotlib import colormaps

    for axes, values, title in (
        (true_axes, truth, "True elevation, and the samples"),
        (fit_axes, image, "Fitted by the trained network"),
    ):
        shaded = light.shade(
            values, colormaps["gist_earth"], blend_mode="soft", vert_exag=2,
            dx=1000 * dx, dy=1000 * dy, vmin=low, vmax=high,
        )  # fmt: skip
        # The colours of the shaded picture are ready; this one below it feeds the colour bar.
        scale = axes.imshow(values, cmap="gist_earth", vmin=low, vmax=high, extent=extent)
        axes.imshow(shaded, extent=extent)
        axes.set_title(title)
        figure.colorbar(scale, ax=axes, label="elevation [m]", shrink=0.85)
    true_axes.plot(*samples.points.T, ".", color="black", markersize=1.2, alpha=0.7)

    error = image - truth
    limit = float(np.percentile(np.abs(error), 99))
    shown = error_axes.imshow(error, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent)
    error_axes.set_title(f"Fitted minus true: RMSE {_rms(error.ravel()[held_out]):.1f} m held out")
    figure.colorbar(shown, ax=error_axes, label="error [m]", extend="both", shrink=0.85)
    for axes in (true_axes, fit_axes, error_axes):
        axes.set(xlabel="east [km]", ylabel="north [km]")

    history_axes.semilogy(np.arange(len(rmse)), rmse, "o-", color="tab:blue")
    history_axes.set(xlabel="step (Jacobian)", ylabel="RMSE at the samples [m]")
    history_axes.set_title("Cost history, as RMSE")
    history_axes.grid(True, which="both", alpha=0.3)
    history_axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
