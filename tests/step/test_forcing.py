"""Forcing rules say what their formulas say, and a solve is as exact as they ask for."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.problems import sine, sine_problem

LM = gramlm.LevenbergMarquardt
Walker = gramlm.EisenstatWalker

# A rule, the costs of a solve from its start, and η before the first step and after each.
SEQUENCES = {
    # 0.9·(½)^α, and never below 0.9·η^α as long as that exceeds 0.1.
    "the safeguard holds η up": (
        Walker(largest=0.5, smallest=0.01),
        [1.0, 0.25, 0.0025, 0.000025, 1e-12],
        [0.5, 0.9 * 0.5**1.618, 0.9 * (0.9 * 0.5**1.618) ** 1.618, 0.9 * 0.1**1.618, 0.01],
    ),
    "above 0.1 only": (
        Walker(largest=0.4, smallest=0.02, gamma=0.5, alpha=2.0),
        [4.0, 1.0, 0.25, 0.09 * 0.25],
        [0.4, 0.125, 0.125, 0.5 * 0.09],
    ),
    "bounds": (Walker(), [1.0, 1e-20, 0.9e-20, 1e-20], [0.1, 0.01, 0.1, 0.1]),
    "a cost of zero": (Walker(), [1.0, 0.0, 0.0], [0.1, 0.01, 0.01]),
    "gamma and alpha of one": (
        Walker(largest=0.9, smallest=0.001, gamma=1.0, alpha=1.0),
        [1.0, 0.49, 0.48],
        [0.9, 0.9, 0.9],
    ),
    "fixed": (gramlm.FixedForcing(0.07), [1.0, 1e-9, 0.0], [0.07, 0.07, 0.07]),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_by_hand(name, dtype):
    rule, costs, expected = SEQUENCES[name]
    costs = [jnp.asarray(cost, dtype) for cost in costs]
    state = rule.init(jnp.zeros((), dtype))
    found = [rule.velocity(state)]
    for before, after in itertools.pairwise(costs):
        state = rule.accepted(state, before, after)
        found.append(rule.velocity(state))
    assert all(value.dtype == dtype for value in found)
    assert rule.acceleration(state).dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == jnp.float32 else 1e-12)


def test_the_acceleration_is_solved_more_crudely_but_never_without_care():
    state = jnp.asarray(0.1)
    np.testing.assert_allclose(Walker().acceleration(state), 0.3)
    np.testing.assert_allclose(Walker(acceleration_factor=4.0).acceleration(0.02 * state), 0.008)
    np.testing.assert_allclose(Walker().acceleration(5 * state), 0.5)
    np.testing.assert_allclose(gramlm.FixedForcing(0.01, 0.2).acceleration(state), 0.2)


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        (Walker, {"largest": 0.0}, "`largest` must be positive and below 1"),
        (Walker, {"largest": 1.0}, "`largest` must be positive and below 1"),
        (Walker, {"smallest": -0.1}, "`smallest` must be positive"),
        (Walker, {"smallest": float("nan")}, "`smallest` must be positive"),
        (Walker, {"largest": 0.01, "smallest": 0.1}, "`smallest`"),
        (Walker, {"gamma": 1.1}, "`gamma` must be positive and at most 1"),
        (Walker, {"alpha": 2.5}, "`alpha` must be positive and at most 2"),
        (Walker, {"acceleration_factor": 0.0}, "`acceleration_factor` must be positive"),
        (gramlm.FixedForcing, {"velocity_term": 1.0}, "`velocity_term` must be positive and below"),
        (gramlm.FixedForcing, {"acceleration_term": 0.0}, "`acceleration_term` must be positive"),
    ],
)
def test_bad_values_are_named(rule, changes, message):
    with pytest.raises(ValueError, match=message):
        rule(**changes)


def test_what_is_no_forcing_rule_is_named():
    with pytest.raises(TypeError, match="forcing"):
        LM(forcing=0.1)


def stiff(t, args):
    """A residual whose Jacobian has singular values from 1 to 1e-3."""
    matrix, target = args
    return jnp.sinh(matrix @ t) - target


def stiff_problem(n, p):
    rng = np.random.default_rng(6)
    u, v = (np.linalg.qr(rng.normal(size=(size, n)))[0] for size in (n, p))
    matrix = jnp.asarray(u * np.geomspace(1, 1e-3, n) @ v.T)
    return jnp.zeros(p), (matrix, jnp.asarray(rng.normal(size=n)))


@eqx.filter_jit
def one_step(solver, params, args):
    return solver.step(stiff, params, solver.init(stiff, params, args), args)


def test_a_tighter_forcing_term_costs_more_products_and_gains_more():
    params, args = stiff_problem(60, 80)
    matrix, target = (np.asarray(x) for x in args)
    products, missed = [], []
    terms = (0.5, 0.1, 0.01, 1e-4, 1e-8)
    for term in terms:
        solver = LM(
            linear_solver=gramlm.KrylovSolver(block_size=4),
            forcing=gramlm.FixedForcing(jnp.asarray(term)),
            damping=gramlm.Constant(1e-4),
            metric=gramlm.IdentityMetric(),
            correction=None,
            max_trials=1,
            acceptance=gramlm.Monotone(0.0),
        )
        new, _, info = one_step(solver, params, args)
        # At the start J is the matrix. The exact minimum of the damped model, and that found:
        step, damping = np.asarray(new - params), float(info.damping)
        shifted = matrix @ matrix.T + damping * np.eye(60)
        best = 0.5 * damping * target @ np.linalg.solve(shifted, target)
        found = 0.5 * np.sum((matrix @ step - target) ** 2) + 0.5 * damping * step @ step
        products.append(int(info.products))
        missed.append((found - best) / (0.5 * target @ target - best))
    assert products == sorted(products)
    assert products[0] < products[2] < products[-1]
    assert missed == sorted(missed, reverse=True)
    assert all(part <= term**2 + 1e-12 for part, term in zip(missed, terms, strict=True))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_state_follows_accepted_steps_alone(dtype):
    problem = sine_problem(12, 20, dtype)
    rule = Walker(largest=0.5)
    # A damping that is too small at first: some trials are rejected on the way.
    solver = LM(forcing=rule, damping=gramlm.Multiplicative(initial=1e-8))
    params, state = problem.params * 3, solver.init(sine, problem.params, problem.args)
    step = eqx.filter_jit(solver.step)
    expected, rejected = rule.init(jnp.zeros((), dtype)), 0
    for _ in range(4):
        params, state, info = step(sine, params, state, problem.args)
        rejected += info.trials - info.accepted
        if info.accepted:
            expected = rule.accepted(expected, info.cost_before, info.cost)
        assert state.rules.forcing.dtype == dtype
        np.testing.assert_allclose(state.rules.forcing, expected, rtol=1e-4)
    assert rejected > 0


class Tightening(gramlm.extend.AbstractForcing[jax.Array]):
    """η = 0.5, 0.25, …: a rule of one's own, with a state that is no float."""

    def init(self, like):
        return jnp.ones((), jnp.int32)

    def velocity(self, state):
        return 0.5**state

    def acceleration(self, state):
        return jnp.minimum(2 * 0.5**state, 0.5)

    def accepted(self, state, cost_before, cost):
        return state + 1


def test_a_rule_of_ones_own():
    problem = sine_problem(6, 9)
    solution = gramlm.solve(sine, problem.params, problem.args, solver=LM(forcing=Tightening()))
    assert solution.state.rules.forcing == 1 + solution.stats["num_accepted"]
