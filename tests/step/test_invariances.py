"""What whole solves do not depend on."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import gramlm
from support.nasty import F64, SEEDS, SHAPES, STRUCTURES, examples, model, problem


@st.composite
def solvable(draw):
    n, p = draw(st.sampled_from(SHAPES))
    return n, p, draw(SEEDS), draw(st.sampled_from([0.0, 0.5]))


@examples(25)
@given(solvable(), st.integers(-20, 20))
def test_a_residual_times_a_power_of_four_has_the_same_iterates_to_the_last_bit(case, power):
    n, p, seed, curve = case
    # The default metric takes fourth roots of squares: exact for powers of four.
    power = 2 * power
    args, rng = problem("full", "none", n, p, 0, F64, seed, curve)
    scaled = (args[0], args[1] * 2.0**power, *args[2:])
    start = jnp.asarray(rng.normal(size=p))
    one, other = (gramlm.solve(model, start, a, throw=False) for a in (args, scaled))
    np.testing.assert_array_equal(other.value, one.value)
    np.testing.assert_array_equal(other.history.cost, one.history.cost * 4.0**power)
    np.testing.assert_array_equal(other.history.damping, one.history.damping * 2.0**power)
    assert other.result == one.result
    assert other.stats["criterion"] == one.stats["criterion"]


@examples(25)
@given(solvable())
def test_the_order_of_residuals_does_not_matter(case):
    n, p, seed, curve = case
    args, rng = problem("full", "none", n, p, 0, F64, seed, curve)
    order = rng.permutation(n)
    permuted = (args[0][order], args[1], args[2], args[3][order], args[4])
    start = jnp.asarray(rng.normal(size=p))
    one, other = (gramlm.solve(model, start, a, throw=False) for a in (args, permuted))
    costs = [solution.history.cost[:3] for solution in (one, other)]
    np.testing.assert_allclose(costs[1], costs[0], rtol=1e-8, atol=1e-25)
    np.testing.assert_allclose(other.stats["cost"], one.stats["cost"], rtol=1e-8, atol=1e-25)


@examples(30)
@given(solvable(), st.sampled_from(STRUCTURES), st.sampled_from([0.0, 1.0, 1e-3, 1e3]))
def test_the_minimum_of_a_linear_problem_is_found_from_any_start(case, kind, size):
    n, p, seed, _ = case
    args, rng = problem(kind, "none", n, p, 0, F64, seed)
    solution = gramlm.solve(model, jnp.asarray(size * rng.normal(size=p)), args)
    features, target = np.asarray(args[0]), np.asarray(args[3])
    best = np.linalg.lstsq(features, target, rcond=1e-12)[0]
    least = 0.5 * np.sum((features @ best - target) ** 2)
    np.testing.assert_allclose(solution.stats["cost"], least, rtol=1e-8, atol=1e-20)
