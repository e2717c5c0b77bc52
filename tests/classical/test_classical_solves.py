"""Some of the classical problems, solved: to the digits that are certified, and none claimed that
is not. The benchmark solves all of them.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks.suites.classical._run import instances
from benchmarks.suites.classical.regression import CERTIFIED, correct_digits, standard_errors

import gramlm

FITS = {case.name: case for case in CERTIFIED}


# Large residuals (BoxBOD, Thurber, ENSO: linear convergence), a valley (MGH09, Bennett5), and
# parameters of 1e-9 beside others of 1 (Nelson).
@pytest.mark.parametrize("start", [0, 1], ids=["far", "near"])
@pytest.mark.parametrize("name", ["BoxBOD", "Thurber", "ENSO", "MGH09", "Bennett5", "Nelson"])
def test_parameters_and_errors_have_nine_digits(name, start):
    case = FITS[name]
    solution = gramlm.solve(case.residual, jnp.asarray(case.starts[start]))
    assert correct_digits(solution.value, case.certified) > 9
    errors = standard_errors(case.residual, solution.value)
    assert correct_digits(errors, case.standard_deviations) > 8


def solved(collection, name, start, dtype=jnp.float64):
    instance = next(i for i in instances(collection) if i.name == name)
    theta = jnp.asarray(instance.starts[start], dtype)
    solution = gramlm.solve(instance.residual, theta, throw=False, max_steps=1000)
    r = np.asarray(instance.residual(jnp.asarray(solution.value, jnp.float64)))
    tolerances = (1e-6, 1e-10) if dtype == jnp.float64 else (1e-3, 1e-5)
    return solution, instance.known.solved(0.5 * r @ r, *tolerances)


@pytest.mark.parametrize(
    ("collection", "name", "start"),
    [
        ("mgh", "mgh10", "×100"),  # columns of 1e22 and 7 on the way
        ("mgh", "mgh06", "×10"),
        ("mgh", "mgh35-10", "×100"),
        ("mgh", "mgh16", "×1"),
        ("schittkowski", "tp373", "×100"),
        ("schittkowski", "hs46", "×1"),  # J is singular at the root
        ("schittkowski", "tp291", "×10"),
    ],
)
def test_hard_ones_are_solved_and_claimed(collection, name, start):
    solution, arrived = solved(collection, name, start)
    assert arrived
    assert solution.result == gramlm.RESULTS.successful


@pytest.mark.parametrize("name", ["mgh10", "mgh15", "mgh18"])
def test_in_single_precision(name):
    solution, arrived = solved("mgh", name, "×1", jnp.float32)
    assert arrived
    assert solution.result == gramlm.RESULTS.successful


def test_where_rounding_of_the_parameters_holds_it_up_is_no_success():
    # A difference of two parameters of 1e28, to the third power: a cost of 1e79.
    solution, arrived = solved("schittkowski", "tp261", "×100")
    assert not arrived
    assert solution.result != gramlm.RESULTS.successful
