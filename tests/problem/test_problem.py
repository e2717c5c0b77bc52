"""Whatever goes for a residual function is one kind of problem."""

import jax.numpy as jnp
import pytest

import gramlm
from gramlm._problem.build import flat_problem
from gramlm._problem.problem import Problem


def residual(params):
    return params - 1.0


@pytest.mark.parametrize(
    "declared", [residual, gramlm.Rows(lambda params, x: params[0] - x), Problem(residual)]
)
def test_a_function_rows_and_a_problem_become_a_problem(declared):
    problem = Problem.of(declared)
    assert isinstance(problem, Problem)
    assert (problem is declared) == isinstance(declared, Problem)
    assert problem.loss is problem.weights is problem.lower is problem.upper is problem.free is None


def test_parts_that_are_none_do_not_count():
    problem = Problem.of(residual, lower=0.0, upper=None)
    assert problem.lower == 0.0
    assert Problem.of(problem, loss=None) is problem
    with pytest.raises(TypeError, match="`loss`, `free` came beside a `Problem`"):
        Problem.of(problem, loss=gramlm.Huber(), free=True)


def test_a_function_is_minimised_as_the_problem_of_it_is():
    params = jnp.asarray([3.0, -1.0])
    of_function, flat = flat_problem(residual, params)
    of_problem, _ = flat_problem(Problem(residual), params)
    for problem in (of_function, of_problem):
        assert problem.cost(problem.residual(flat)) == 0.5 * (2.0**2 + 2.0**2)
