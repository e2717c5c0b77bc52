"""Each damping rule yields exactly the sequence that its formula says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.problems import made_trial

# Trials as (accepted?, gain ratio), and the λ that follow, from λmax = 200.
SEQUENCES = {
    "constant": (
        gramlm.Constant(0.5),
        [(True, 1.0), (False, -1.0), (True, 0.1)],
        [100, 100, 100, 100],
    ),
    "multiplicative": (
        gramlm.Multiplicative(0.25, 8.0, 0.5),
        [(True, 1.0), (True, 0.01), (False, -jnp.inf), (False, 0.0), (True, 0.5)],
        [100, 25, 6.25, 50, 400, 100],
    ),
    "delayed gratification": (
        gramlm.DelayedGratification(5.0, 1.5, 0.5),
        [(True, 1.0), (False, -2.0), (False, -jnp.inf), (True, 0.3)],
        [100, 20, 30, 45, 9],
    ),
    # max(1/3, 1 − (2ρ − 1)³): 1/3 at ρ = 1, 7/8 at 3/4, 1 at 1/2, 9/8 at 1/4, 2 at 0.
    "nielsen, accepted": (
        gramlm.Nielsen(0.48, 1 / 3),
        [(True, 1.0), (True, 0.75), (True, 0.5), (True, 0.25), (True, 0.0), (True, 7.0)],
        [96, 32, 28, 28, 31.5, 63, 21],
    ),
    # × 2, × 4, × 8, and from × 2 again after a success.
    "nielsen, rejected": (
        gramlm.Nielsen(0.005),
        [(False, -1.0), (False, -jnp.inf), (False, 0.0), (True, 0.5), (False, -1.0)],
        [1, 2, 8, 64, 64, 128],
    ),
    "nielsen, bounded decrease": (gramlm.Nielsen(0.5, 0.1), [(True, 1.0)], [100, 10]),
}


class Lengths(gramlm.extend.AbstractStepLengths):
    """`‖δ(λ)‖ = 1/λ`."""

    def at(self, damping):
        none = jnp.zeros((), jnp.int32)
        return gramlm.extend.FoundDamping(damping, None, none, none)

    def within(self, radius, guess):
        return self.at(jnp.where(jnp.isinf(radius), guess, 1 / radius))


def value(rule, state):
    return rule.propose(state, Lengths()).damping


def trial(damping, gain_ratio, **changes):
    """A trial in a model of cost 1 − t at a step of the length 1/λ, of predicted decrease ½."""
    known = {"length": 1 / damping, "gain_ratio": gain_ratio, "decrease": 0.5 * gain_ratio}
    return made_trial(damping=damping, **(known | changes))


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_sequences(name, dtype):
    rule, trials, expected = SEQUENCES[name]
    state = rule.init(jnp.asarray(200.0, dtype))
    found = [value(rule, state)]
    for accepted, gain in trials:
        learn = rule.accepted if accepted else rule.rejected
        state = learn(state, trial(found[-1], gain))
        found.append(value(rule, state))
    assert all(value.dtype == dtype for value in found)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == jnp.float32 else 1e-14)


@pytest.mark.parametrize(
    "rule", [gramlm.Multiplicative(), gramlm.DelayedGratification(), gramlm.Nielsen()]
)
def test_rules_continue_from_the_damping_that_was_used(rule):
    # The driver may have raised λ to its floor.
    state, gain = rule.init(jnp.asarray(1.0)), 0.5
    for learn in (rule.accepted, rule.rejected):
        once = value(rule, learn(state, trial(3.0, gain)))
        np.testing.assert_allclose(value(rule, learn(state, trial(6.0, gain))), 2 * once)


def test_the_first_damping_in_a_solve_is_relative_to_the_largest_eigenvalue():
    for scale in (1e-3, 1e3):
        solver = gramlm.LevenbergMarquardt(
            damping=gramlm.Constant(0.25), metric=gramlm.IdentityMetric()
        )
        scales = jnp.asarray([1.0, 2.0]) * scale
        solution = gramlm.solve(
            lambda t, s: s * t - s, jnp.zeros(2), scales, solver=solver, max_steps=1, throw=False
        )
        np.testing.assert_allclose(solution.history.damping[0], scale**2, rtol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["constant", "multiplicative", "delayed gratification", "nielsen, rejected", "trust region"],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_next_trial_is_made_at_a_damping_that_is_asked_for(name, dtype):
    rule = SEQUENCES[name][0] if name in SEQUENCES else gramlm.TrustRegion()
    fresh = rule.init(jnp.asarray(200.0, dtype))
    later = rule.accepted(fresh, trial(jnp.asarray(2.0, dtype), 0.9))
    failed = rule.rejected(later, trial(jnp.asarray(2.0, dtype), -1.0))
    asked = [rule.with_damping(state, jnp.asarray(7.0, dtype)) for state in (fresh, later, failed)]
    for state in asked:
        assert value(rule, state) == 7.0
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, fresh)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(state))
        # From there on it goes its own way, whatever there was before.
        assert jax.tree.all(jax.tree.map(jnp.array_equal, state, asked[0]))
    learnt = rule.rejected(asked[0], trial(jnp.asarray(7.0, dtype), -1.0))
    assert name == "constant" or value(rule, learnt) > 7.0


RULES = [
    gramlm.Constant,
    gramlm.Multiplicative,
    gramlm.DelayedGratification,
    gramlm.Nielsen,
    gramlm.TrustRegion,
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("initial", [0.0, -1.0, float("nan")])
def test_the_first_damping_must_be_positive(rule, initial):
    with pytest.raises(ValueError, match="`initial` must be positive"):
        rule(initial=initial)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        (gramlm.Multiplicative, {"decrease": 0.0}),
        (gramlm.Multiplicative, {"decrease": 1.5}),
        (gramlm.Multiplicative, {"increase": 1.0}),
        (gramlm.Multiplicative, {"increase": 0.5}),
        (gramlm.DelayedGratification, {"decrease": 0.5}),
        (gramlm.DelayedGratification, {"decrease": 0.0}),
        (gramlm.DelayedGratification, {"increase": 1.0}),
        (gramlm.Nielsen, {"decrease": 0.0}),
        (gramlm.Nielsen, {"decrease": 2.0}),
    ],
)
def test_factors_must_lower_on_success_and_raise_on_failure(rule, changes):
    with pytest.raises(ValueError, match="must be"):
        rule(**changes)


# The first Δ is from the first step, of the length 1/λ = 1/2: Δ = L/√max(1/growth², 1 − (2ρ − 1)³).
TRUST_REGIONS = {
    "very good": (1.0, {}, 1.5 * 0.5),
    "good": (0.75, {}, 0.5 / (7 / 8) ** 0.5),
    "poor": (0.25, {}, 0.5 / (9 / 8) ** 0.5),
    "hardly any gain": (0.0, {}, 0.5 / 2**0.5),
}


@pytest.mark.parametrize("name", TRUST_REGIONS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_radius_after_a_success(name, dtype):
    gain, changes, expected = TRUST_REGIONS[name]
    rule = gramlm.TrustRegion(initial=0.01, growth=1.5)
    state = rule.init(jnp.asarray(200.0, dtype))
    assert value(rule, state) == 2.0
    state = rule.accepted(state, trial(jnp.asarray(2.0, dtype), gain, **changes))
    assert state.radius.dtype == dtype
    np.testing.assert_allclose(1 / value(rule, state), expected, rtol=1e-6)


def test_very_good_steps_in_a_row_grow_the_radius_faster_and_faster():
    rule = gramlm.TrustRegion(growth=1.5, fastest=2.5)
    state, radii = rule.init(jnp.asarray(100.0)), [1.0]
    for _ in range(4):
        state = rule.accepted(state, trial(1 / radii[-1], 1.0))
        radii.append(float(state.radius))
    np.testing.assert_allclose(np.divide(radii[1:], radii[:-1]), [1.5, 2.0, 2.5, 2.5], rtol=1e-12)
    state = rule.rejected(state, trial(1 / radii[-1], -1.0))
    after = rule.accepted(state, trial(1 / state.radius, 1.0))
    np.testing.assert_allclose(after.radius, 1.5 * state.radius, rtol=1e-12)


def test_a_good_step_inside_of_the_region_does_not_shrink_it():
    rule = gramlm.TrustRegion()
    state = rule.accepted(rule.init(jnp.asarray(100.0)), trial(1.0, 1.0))
    assert state.radius == 1.5
    after = rule.accepted(state, trial(10.0, 0.8))  # of the length 1/10
    assert after.radius == 1.5
    assert rule.accepted(state, trial(10.0, 0.2)).radius < 0.1


@pytest.mark.parametrize(
    ("decrease", "factor"),
    # cost(t) = −t + (1 − decrease)·t² has its minimum at ½/(1 − decrease).
    [(-1.0, 0.25), (-0.5, 1 / 3), (-100.0, 0.1), (0.0, 0.5), (3.0, 0.5), (-jnp.inf, 0.1)],
)
def test_the_radius_after_a_failure_is_where_a_parabola_has_its_minimum(decrease, factor):
    rule = gramlm.TrustRegion(least=0.1, most=0.5)
    state = rule.accepted(rule.init(jnp.asarray(100.0)), trial(1.0, 0.75))
    state = rule.rejected(state, trial(2.0, -1.0, decrease=decrease))
    np.testing.assert_allclose(state.radius, 0.5 * factor, rtol=1e-12)


def test_a_failed_linear_solve_leads_to_more_damping():
    rule = gramlm.TrustRegion()
    state = rule.rejected(rule.init(jnp.asarray(100.0)), trial(1.0, -jnp.inf, length=jnp.nan))
    assert value(rule, state) == 10.0
    state = rule.accepted(state, trial(10.0, 1.0))
    after = rule.rejected(state, trial(10.0, -jnp.inf, length=jnp.nan))
    assert after.radius < state.radius


@pytest.mark.parametrize(
    "changes", [{"growth": 1.0}, {"fastest": 0.9}, {"least": 0.0}, {"most": 1.0}, {"least": 0.9}]
)
def test_a_trust_region_must_grow_on_success_and_shrink_on_failure(changes):
    with pytest.raises(ValueError, match="must"):
        gramlm.TrustRegion(**changes)
