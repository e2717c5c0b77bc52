"""Each damping rule yields exactly the sequence that its formula says."""

import jax.numpy as jnp
import numpy as np
import pytest

import gramlm

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


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_sequences(name, dtype):
    rule, trials, expected = SEQUENCES[name]
    state = rule.init(jnp.asarray(200.0, dtype))
    found = [rule.value(state)]
    for accepted, gain in trials:
        learn = rule.accepted if accepted else rule.rejected
        state = learn(state, rule.value(state), jnp.asarray(gain, dtype))
        found.append(rule.value(state))
    assert all(value.dtype == dtype for value in found)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == jnp.float32 else 1e-14)


@pytest.mark.parametrize(
    "rule", [gramlm.Multiplicative(), gramlm.DelayedGratification(), gramlm.Nielsen()]
)
def test_rules_continue_from_the_damping_that_was_used(rule):
    # The driver may have raised λ to its floor.
    state, gain = rule.init(jnp.asarray(1.0)), jnp.asarray(0.5)
    for learn in (rule.accepted, rule.rejected):
        once = rule.value(learn(state, jnp.asarray(3.0), gain))
        np.testing.assert_allclose(rule.value(learn(state, jnp.asarray(6.0), gain)), 2 * once)


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


RULES = [gramlm.Constant, gramlm.Multiplicative, gramlm.DelayedGratification, gramlm.Nielsen]


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
