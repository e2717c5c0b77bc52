"""An error in a residual is found at the end of a short traceback."""

import traceback
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import pytest

import gramlm

PACKAGE = str(Path(gramlm.__file__).parent)
CASES = {
    "plain": {},
    "bounded": {"upper": 1.5},
    "Krylov": {"solver": gramlm.LevenbergMarquardt(linear_solver=gramlm.KrylovSolver())},
}


def frames_of(call: int, **options) -> list[str] | None:
    """The files of the package between `solve` and the residual that fails when it is called for
    the `call`-th time; None if it is not called as often.
    """
    calls = 0

    def residual(t):
        nonlocal calls
        calls += 1
        if calls == call:
            raise LookupError("no such thing")
        return jnp.exp(t) - 2

    try:
        gramlm.solve(residual, jnp.ones(2), **options)
    except LookupError as error:
        found = traceback.extract_tb(error.__traceback__)
        return [frame.filename for frame in found if frame.filename.startswith(PACKAGE)]
    return None


@pytest.mark.parametrize("name", CASES)
def test_a_traceback_from_solve_to_the_residual_is_short(name):
    call = 1
    while (files := frames_of(call, **CASES[name])) is not None:
        changes = 1 + sum(a != b for a, b in pairwise(files))
        assert len(files) <= 26
        assert changes <= 11
        call += 1
    assert call > 5  # at the start, under derivatives, at a trial


@pytest.mark.parametrize("call", [1, 5])
def test_from_solve_to_a_step_it_goes_through_five_files(call):
    files = frames_of(call)
    assert files is not None
    own = [file for file in files if f"{PACKAGE}/_solve" in file]
    assert len(own) <= 10
    assert 1 + sum(a != b for a, b in pairwise(own)) <= 5
