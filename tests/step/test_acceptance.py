"""Which trials are accepted, and that the best point is kept."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.problems import START, made_trial, rosenbrock

LM = gramlm.LevenbergMarquardt


def attempted(cost, after, step=(1.0, 0.0), gain=None):
    gain = (cost - after) / cost if gain is None else gain
    return made_trial(
        params=START,
        cost=cost,
        params_after=START + jnp.asarray(step),
        step=step,
        cost_after=after,
        gain_ratio=gain,
    )


def test_descent_takes_what_lowers_the_cost_enough():
    rule = gramlm.Monotone(0.1)
    assert rule.accepts(None, attempted(1.0, 0.5))
    assert not rule.accepts(None, attempted(1.0, 0.95))
    assert not rule.accepts(None, attempted(1.0, 2.0))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("angle", [0.1, 0.8, 1.5])
def test_bold_lets_the_cost_rise_by_what_the_angle_allows(power, angle):
    rule = gramlm.Nonmonotone(power)
    state = rule.accepted(rule.init(START), attempted(2.0, 1.0))
    step = (3 * np.cos(angle), 3 * np.sin(angle))
    highest = 1.0 / (1 - np.cos(angle)) ** power
    assert rule.accepts(state, attempted(1.0, 0.99 * highest, step, gain=-1.0))
    assert not rule.accepts(state, attempted(1.0, 1.01 * highest, step, gain=-1.0))


def test_bold_goes_uphill_only_in_the_direction_in_which_it_came():
    rule = gramlm.Nonmonotone(2)
    # Not at first, not backwards, not to where there is no cost.
    assert not rule.accepts(rule.init(START), attempted(1.0, 1.1))
    state = rule.accepted(rule.init(START), attempted(2.0, 1.0))
    assert not rule.accepts(state, attempted(1.0, 1.01, step=(-1.0, 0.0)))
    assert not rule.accepts(state, attempted(1.0, np.inf, gain=-np.inf))


def test_bold_measures_against_the_lowest_cost_and_not_the_last():
    rule, turned = gramlm.Nonmonotone(1), (np.cos(0.8), np.sin(0.8))
    state = rule.accepted(rule.init(START), attempted(2.0, 1.0))
    state = rule.accepted(state, attempted(1.0, 3.0, gain=-1.0))
    highest = 1.0 / (1 - np.cos(0.8))
    assert rule.accepts(state, attempted(3.0, 0.99 * highest, turned, gain=-1.0))
    assert not rule.accepts(state, attempted(3.0, 1.01 * highest, turned, gain=-1.0))


def test_the_best_point_is_kept():
    rule = gramlm.Nonmonotone()
    best, cost = rule.best(rule.init(START), START, jnp.asarray(7.0))
    np.testing.assert_array_equal(best, START)
    assert cost == 7
    state = rule.accepted(rule.init(START), attempted(2.0, 1.0))
    state = rule.accepted(state, attempted(1.5, 3.0, gain=-1.0))
    best, cost = rule.best(state, START + 9, jnp.asarray(3.0))
    np.testing.assert_array_equal(best, START + jnp.asarray([1.0, 0.0]))
    assert cost == 1


@pytest.mark.parametrize(
    "acceptance", [gramlm.Nonmonotone(1), gramlm.Nonmonotone(2), gramlm.Monotone()]
)
def test_every_rule_arrives(acceptance):
    solution = gramlm.solve(rosenbrock, START, solver=LM(acceptance=acceptance))
    np.testing.assert_allclose(solution.value, 1.0, rtol=1e-9)


class Upwards(gramlm.Nonmonotone):
    """Takes every step."""

    def accepts(self, state, trial):
        return jnp.asarray(True)


def test_what_is_returned_is_the_best_of_a_walk_that_goes_up_and_down():
    # Steps that are far too long, in a valley.
    solver = LM(acceptance=Upwards(), damping=gramlm.Constant(1e-6), correction=None)
    solution = gramlm.solve(rosenbrock, START, solver=solver, max_steps=3, throw=False)
    costs = solution.history.cost
    assert costs[1] > costs[0] or costs[2] > costs[1] or costs[3] > costs[2]
    np.testing.assert_allclose(solution.stats["cost"], jnp.min(costs), rtol=1e-9)
    residual = rosenbrock(solution.value)
    np.testing.assert_allclose(0.5 * residual @ residual, jnp.min(costs), rtol=1e-9)


def test_where_r_is_rounding_no_other_point_is_better():
    t, rng = jnp.linspace(0.0, 3.0, 40), np.random.default_rng(0)
    solver = LM(acceptance=gramlm.Nonmonotone())

    def exponentials(theta, data):
        return theta[0] * jnp.exp(-theta[1] * t) + theta[2] * jnp.exp(-theta[3] * t) - data

    for _ in range(20):
        truth = jnp.asarray(rng.uniform([1.0, 0.5, 0.5, 3.0], [3.0, 1.0, 1.5, 5.0]))
        data, start = exponentials(truth, 0.0), jnp.asarray([1.0, 0.1, 1.0, 20.0])
        solution = gramlm.solve(exponentials, start, data, solver=solver)  # raises otherwise
        assert solution.stats["cost"] < 1e-28


def test_in_a_loop_of_ones_own_the_best_point_is_at_hand():
    solver = LM(acceptance=Upwards(), damping=gramlm.Constant(1e-6), correction=None)
    params = {"x": START}

    def residual(params):
        return rosenbrock(params["x"])

    state = solver.init(residual, params)
    np.testing.assert_array_equal(solver.best(params, state)["x"], params["x"])
    seen = []
    step = eqx.filter_jit(solver.step)
    for _ in range(3):
        params, state, info = step(residual, params, state)
        seen += [(float(info.cost_before), None), (float(info.cost), params["x"])]
    lowest = min(seen, key=lambda pair: pair[0])
    best = residual(solver.best(params, state))
    np.testing.assert_allclose(0.5 * best @ best, lowest[0], rtol=1e-9)


def test_descent_knows_no_better_than_the_present():
    solver = LM()
    state = solver.init(rosenbrock, START)
    np.testing.assert_array_equal(solver.best(START, state), START)


def test_bold_steps_are_jitted_and_mapped():
    solver = LM(acceptance=gramlm.Nonmonotone(2))
    starts = jnp.stack([START, START + 0.5])
    solve = lambda start: gramlm.solve(rosenbrock, start, solver=solver, throw=False).value  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.vmap(solve))(starts), 1.0, rtol=1e-8)


@pytest.mark.parametrize("rule", [gramlm.Monotone, gramlm.Nonmonotone])
def test_bad_gains_are_refused(rule):
    for gain in (-0.1, 1.0):
        with pytest.raises(ValueError, match="`min_gain` must be at least 0 and below 1"):
            rule(min_gain=gain)


def test_bad_choices_are_refused():
    with pytest.raises(ValueError, match="`power` must be positive"):
        gramlm.Nonmonotone(0)
    with pytest.raises(TypeError, match="AbstractAcceptance"):
        LM(acceptance=0.1)
