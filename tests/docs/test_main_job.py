"""The main job: `python -m gramlm`, small."""

import builtins
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import gramlm._demo.terrain as terrain_job
from gramlm.__main__ import main

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

SMALL = ["--samples", "200", "--centres", "60", "--max-steps", "4"]


def rmse_lines(text: str) -> dict[str, tuple[float, float]]:
    """The printed table: name -> RMSE at the samples and held out, metres."""
    lines = re.findall(r"^(mean|gramlm|RBFInterpolator) +(\S+) +(\S+)$", text, re.MULTILINE)
    return {name: (float(train), float(test)) for name, train, test in lines}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fits_and_draws(tmp_path, capsys, dtype):
    before = jax.config.read("jax_enable_x64")
    picture = tmp_path / "picture.png"
    assert main([*SMALL, "--dtype", dtype, "--output", str(picture)]) == 0
    output = capsys.readouterr().out

    rmse = rmse_lines(output)
    assert set(rmse) == {"mean", "gramlm", "RBFInterpolator"}
    assert np.all(np.isfinite(list(rmse.values())))
    assert rmse["gramlm"][0] < 0.5 * rmse["mean"][0]
    assert rmse["gramlm"][1] < rmse["mean"][1]
    assert re.search(r"^ +1 +\d", output, re.MULTILINE)  # one line a step
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert jax.config.read("jax_enable_x64") == before


def test_more_parameters_than_samples_fits_all(tmp_path, capsys):
    picture = tmp_path / "picture.png"
    arguments = ["--samples", "100", "--centres", "150", "--no-progress", "--output", str(picture)]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert rmse_lines(output)["gramlm"][0] <= 1.1  # metres: the target, which ends the solve
    assert not re.search(r"^ +1 +\d", output, re.MULTILINE)


def test_same_seed_same_samples():
    terrain = terrain_job.load_terrain()
    first, again, other = (terrain_job.draw_samples(terrain, 50, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.positions, again.positions)
    assert not np.array_equal(first.positions, other.positions)
    assert len(np.unique(first.positions)) == 50
    assert np.array_equal(terrain.points[first.positions], first.points)


@pytest.mark.parametrize("centres", [1, 2, 7, 60, 400])
def test_layout_has_the_centres_asked_for(centres):
    terrain = terrain_job.load_terrain()
    samples = terrain_job.draw_samples(terrain, 40, 0)
    centre, width, amplitude = terrain_job._layout(samples.points, centres)
    assert centre.shape == (centres, 2)
    assert width.shape == amplitude.shape == (centres,)
    assert np.all(width > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "9"], "--samples must be at least 10; got 9"),
        (["--samples", "138632"], "less than the 138632 points"),
        (["--samples", "many"], "invalid int value"),
        (["--centres", "0"], "--centres must be at least 1; got 0"),
        (["--max-steps", "0"], "--max-steps must be at least 1; got 0"),
        (["--seed", "-1"], "--seed must not be negative"),
        (["--dtype", "float16"], "invalid choice"),
        (["--output", "no/such/directory/a.png"], "there is no directory"),
        (["--output", "terrain.txt"], "must end in .png"),
    ],
)
def test_bad_options_end_before_the_fit(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(terrain_job, "fit_terrain", _never)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_output_must_not_be_a_directory(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(terrain_job, "fit_terrain", _never)
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path)])
    assert "is a directory" in capsys.readouterr().err


def test_says_which_extra_is_missing(monkeypatch, capsys):
    real = builtins.__import__

    def without_scipy(name, *rest):
        if name == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    assert main([]) == 1
    error = capsys.readouterr().err
    assert "scipy is not installed" in error
    assert 'pip install "gramlm[plots]"' in error


def test_runs_as_a_module():
    command = [sys.executable, "-m", "gramlm", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--centres" in result.stdout


def _never(*_args, **_kwargs):
    raise AssertionError("the fit was started")
