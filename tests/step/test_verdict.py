"""How a step ends a solve: each condition, and which of them goes before which."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import pytest

import gramlm
from gramlm import CRITERIA, RESULTS
from gramlm._step.verdict import Condition, Verdict, any_of, arrived, first_of, verdict
from support.points import made_point, made_trials

OFF = dict.fromkeys(["cost", "gradient", "step", "vanished"])
NOTHING = gramlm.Termination(**OFF)
YES, NO = jnp.asarray(True), jnp.asarray(False)
RUNNING = (RESULTS.running, CRITERIA.none)


def successful(criterion):
    return RESULTS.successful, criterion


def ends(termination, point, trials, first=False):
    found = verdict(termination, point, trials, jnp.asarray(first))
    return found.result, found.criterion


def as_said(found, expected):
    return bool(found[0] == expected[0]) and bool(found[1] == expected[1])


# The first that holds.


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ((YES, YES, YES), successful(CRITERIA.cost)),
        ((NO, YES, YES), (RESULTS.stalled, CRITERIA.none)),
        ((NO, NO, YES), successful(CRITERIA.step)),
        ((NO, NO, NO), RUNNING),
        ((None, None, YES), successful(CRITERIA.step)),
        ((None, None, NO), RUNNING),
        ((None, None, None), RUNNING),
    ],
)
def test_the_first_condition_that_holds_decides(holds, expected):
    kinds = [successful(CRITERIA.cost), (RESULTS.stalled,), successful(CRITERIA.step)]
    conditions = [Condition(h, *kind) for h, kind in zip(holds, kinds, strict=True)]
    found = first_of(conditions)
    assert isinstance(found, Verdict)
    assert as_said(found, expected)
    assert bool(any_of(conditions)) == (YES in [h for h in holds if h is not None])


def test_none_of_no_conditions_holds():
    assert as_said(first_of([]), RUNNING)
    assert not any_of([])


# Each condition alone: of one point and one trial, what is changed makes it hold.

ACCEPTED, REJECTED = made_trials(), made_trials(accepted=False)
HOPELESS = made_trials(accepted=False, hopeless=True)
NAN, INFINITE = float("nan"), float("inf")
# The gradient 1/2 is stationary for the tolerance 0.1: 30·√0.1 is 9.5.
SMALL_DECREASE = {"cost": 0.95, "promised": 0.05}


@pytest.mark.parametrize("changes", [{"residual": [1.0, NAN]}, {"residual": [INFINITE, 1.0]}])
def test_a_residual_that_is_not_finite_is_the_start_of_it(changes):
    for first in (True, False):
        for trials in (ACCEPTED, HOPELESS):
            found = ends(NOTHING, made_point(**changes), trials, first)
            assert as_said(found, (RESULTS.nonfinite_start, CRITERIA.none))


@pytest.mark.parametrize(
    "changes", [{"gradient": [1.0, NAN]}, {"gradient": [INFINITE, 1.0]}, {"largest": INFINITE}]
)
def test_a_derivative_that_is_not_finite(changes):
    point = made_point(**changes)
    at_start = ends(NOTHING, point, HOPELESS, first=True)
    assert as_said(at_start, (RESULTS.nonfinite_start, CRITERIA.none))
    later = ends(NOTHING, point, HOPELESS)
    assert as_said(later, (RESULTS.nonfinite_derivative, CRITERIA.none))


AT_A_POINT = {
    "zero": ({"vanished": 0.0}, {"residual": [0.0, 0.0], "cost": 0.0}, CRITERIA.vanished),
    "zero, scaled": (
        {"vanished": 0.0},
        {"residual": [0.0, 0.0], "cost": 0.0, "scale": 4.0},
        CRITERIA.vanished,
    ),
    "zero, for the absolute cost": (
        {"absolute_cost": 0.0},
        {"residual": [0.0, 0.0], "cost": 0.0},
        CRITERIA.absolute_cost,
    ),
    "underflow": ({"vanished": 0.0}, {"residual": [1e-200, 0.0], "cost": 0.0}, CRITERIA.vanished),
    "underflow of what was scaled up": (
        {"vanished": 0.0},
        {"residual": [1e-200, 0.0], "cost": 0.0, "scale": 0.5},
        CRITERIA.vanished,
    ),
    # Divided by more than 1, squares may underflow that were none.
    "underflow of what was scaled down": (
        {"vanished": 0.0},
        {"residual": [1e-200, 0.0], "cost": 0.0, "scale": 2.0},
        None,
    ),
    "vanished": ({"vanished": 0.5}, {"cost": 0.5, "creeping_from": 1e32}, CRITERIA.vanished),
    "not quite": ({"vanished": 0.5}, {"cost": 0.51, "creeping_from": 1e32}, None),
    # In the units of the user: 0.5·2² = 2, of a start of 8 that is above the tolerance 0.5.
    "vanished but for the scale": (
        {"vanished": 0.5},
        {"cost": 0.5, "creeping_from": 1e32, "scale": 2.0},
        None,
    ),
    "vanished in the units of the user": (
        {"vanished": 0.5},
        {"cost": 2.0, "creeping_from": 1e32, "scale": 0.5},
        CRITERIA.vanished,
    ),
    # The start of the creeping is scaled like the cost: both by 4, ε² is 4.93e-32.
    "creeping from far": (
        {"vanished": 4.0},
        {"cost": 0.25, "scale": 2.0, "creeping_from": 0.25 / 4.94e-32},
        None,
    ),
    "creeping from near enough": (
        {"vanished": 4.0},
        {"cost": 0.25, "scale": 2.0, "creeping_from": 0.25 / 4.92e-32},
        CRITERIA.vanished,
    ),
    "absolute cost": ({"absolute_cost": 1.0}, {}, CRITERIA.absolute_cost),
    "absolute cost exceeded": ({"absolute_cost": 0.99}, {}, None),
    "absolute cost in the units of the user": (
        {"absolute_cost": 1.0},
        {"cost": 4.0, "scale": 0.5},
        CRITERIA.absolute_cost,
    ),
    "absolute cost but for the scale": ({"absolute_cost": 1.0}, {"scale": 2.0}, None),
    "gradient": ({"gradient": 0.25}, {"relative": 0.25}, CRITERIA.gradient),
    "gradient exceeded": ({"gradient": 0.25}, {"relative": 0.26, "significant": 0.0}, None),
}


@pytest.mark.parametrize("name", AT_A_POINT)
def test_what_ends_a_solve_at_a_point(name):
    tolerances, changes, criterion = AT_A_POINT[name]
    termination, point = gramlm.Termination(**(OFF | tolerances)), made_point(**changes)
    expected = RUNNING if criterion is None else successful(criterion)
    assert as_said(ends(termination, point, REJECTED), expected)
    # Known before any step is tried.
    assert as_said(first_of(arrived(termination, point)), expected)
    assert bool(any_of(arrived(termination, point))) == (criterion is not None)


AFTER_A_STEP = {
    "absolute cost": ({"absolute_cost": 0.5}, {}, {}, CRITERIA.absolute_cost),
    "absolute cost exceeded": ({"absolute_cost": 0.49}, {}, {}, None),
    "absolute cost in the units of the user": (
        {"absolute_cost": 0.5},
        {"scale": 2.0},
        {"cost": 0.125},
        CRITERIA.absolute_cost,
    ),
    "absolute cost but for the scale": ({"absolute_cost": 0.5}, {"scale": 2.0}, {}, None),
    "cost": ({"cost": 0.1}, {}, SMALL_DECREASE, CRITERIA.cost),
    "cost, too much found": ({"cost": 0.1}, {}, {"cost": 0.89, "promised": 0.05}, None),
    "cost, too much promised": ({"cost": 0.1}, {}, {"cost": 0.95, "promised": 0.11}, None),
    # 16ε of the cost may be found where that is more than the tolerance.
    "cost, but for rounding": (
        {"cost": 1e-20},
        {"significant": 1e-6},
        {"cost": 1 - 2.0**-48, "promised": 1e-20},
        CRITERIA.cost,
    ),
    "cost, beyond rounding": (
        {"cost": 1e-20},
        {"significant": 1e-6},
        {"cost": 1 - 2.0**-47, "promised": 1e-20},
        None,
    ),
    # 30·√1e-4 = 0.3.
    "cost, stationary": (
        {"cost": 1e-4},
        {"significant": 0.29},
        {"cost": 1.0, "promised": 0.0},
        CRITERIA.cost,
    ),
    "cost, not stationary": (
        {"cost": 1e-4},
        {"significant": 0.31, "relative": 0.29},
        {"cost": 1.0, "promised": 0.0},
        None,
    ),
    "cost, held back": ({"cost": 0.1}, {}, SMALL_DECREASE | {"damping": 1.01}, None),
    "cost, just not held back": (
        {"cost": 0.1},
        {},
        SMALL_DECREASE | {"damping": 1.0},
        CRITERIA.cost,
    ),
    "step": ({"step": 0.1, "cost": 1e-4}, {"significant": 0.29}, {}, CRITERIA.step),
    "step, too long": ({"step": 0.09, "cost": 1e-4}, {"significant": 0.29}, {}, None),
    "step, not stationary": ({"step": 0.1, "cost": 1e-4}, {"significant": 0.31}, {}, None),
    # Without a `cost`, 30·ε^⅓ = 1.8167e-4.
    "step alone": ({"step": 0.1}, {"significant": 1.816e-4}, {}, CRITERIA.step),
    "step alone, not stationary": ({"step": 0.1}, {"significant": 1.817e-4}, {}, None),
    "step, held back": ({"step": 0.1}, {"significant": 0.0}, {"damping": 1.01}, None),
}


@pytest.mark.parametrize("name", AFTER_A_STEP)
def test_what_ends_a_solve_after_a_step(name):
    tolerances, at, step, criterion = AFTER_A_STEP[name]
    termination, point = gramlm.Termination(**(OFF | tolerances)), made_point(**at)
    expected = RUNNING if criterion is None else successful(criterion)
    assert as_said(ends(termination, point, made_trials(**step)), expected)
    # Only of one that is accepted.
    rejected = made_trials(**step, accepted=False)
    assert as_said(ends(termination, point, rejected), RUNNING)
    hopeless = made_trials(**step, accepted=False, hopeless=True)
    assert ends(termination, point, hopeless)[1] in (CRITERIA.rounding, CRITERIA.none)


# Where no step lowers the cost. The promise of the first is that of a gradient of 1/2, and r is
# curved.
NO_STEP = {
    "nothing explains it": ({}, {}, False),
    # 16ε = 2⁻⁴⁸ of the cost.
    "little left": ({"significant": 1e-4}, {"first_promised": 2.0**-48}, True),
    "a little more left": ({"significant": 1e-4}, {"first_promised": 2.0**-47}, False),
    "little left, held back": (
        {"significant": 1e-4},
        {"first_promised": 0.0, "first_damping": 1.01},
        False,
    ),
    "little left, not stationary": ({"significant": 2e-4}, {"first_promised": 0.0}, False),
    # Ten times ν, where r is linear: the ratio 0.1.
    "the parameters": ({"moved": 0.05}, {"curvature": 0.1}, True),
    "not quite the parameters": ({"moved": 0.049}, {"curvature": 0.1}, False),
    "the parameters, by what counts": (
        {"moved": 0.05, "relative": 0.9},
        {"curvature": 0.1},
        True,
    ),
    "the parameters, but curved": ({"moved": 0.05}, {"curvature": 0.11}, False),
    "unknown curvature": ({"moved": 0.05}, {"curvature": INFINITE}, False),
    "unknown curvature, all of r": ({"moved": 0.1}, {"curvature": INFINITE}, True),
    "unknown curvature, nearly all of r": ({"moved": 0.099}, {"curvature": INFINITE}, False),
    "curved, all of r": ({"moved": 0.1}, {"curvature": 0.11}, False),
    "as accurate as it gets": ({"accuracy": 0.5}, {}, True),
    "less accurate": ({"accuracy": 0.49}, {}, False),
}


@pytest.mark.parametrize("name", NO_STEP)
def test_what_rounding_explains_is_a_success(name):
    at, trials, explained = NO_STEP[name]
    point, trials = made_point(**at), {"accepted": False, "hopeless": True} | trials
    expected = successful(CRITERIA.rounding) if explained else (RESULTS.stalled, CRITERIA.none)
    assert as_said(ends(NOTHING, point, made_trials(**trials)), expected)
    # Not without a solution, and not while there is hope or where a step was accepted.
    unsolved = ends(NOTHING, point, made_trials(**trials, solved=False))
    assert as_said(unsolved, (RESULTS.linear_solver_failed, CRITERIA.none))
    hopeful = made_trials(**trials | {"hopeless": False})
    accepted = made_trials(**trials | {"accepted": True, "hopeless": False})
    assert as_said(ends(NOTHING, point, hopeful), RUNNING)
    assert as_said(ends(NOTHING, point, accepted), RUNNING)


@pytest.mark.parametrize(
    ("lowest", "moved", "curvature", "ended"),
    [
        (0.5, 0.1, 0.0, True),
        (0.51, 0.1, 0.0, False),
        (0.5, 0.099, 0.0, False),
        (0.5, 0.1, 1.0, False),
    ],
)
def test_steps_to_and_fro_where_all_of_r_is_rounding_are_an_end(lowest, moved, curvature, ended):
    point = made_point(moved=moved)
    past = dataclasses.replace(point.past, lowest_cost=jnp.asarray(lowest))
    point = dataclasses.replace(point, past=past)
    found = ends(NOTHING, point, made_trials(curvature=curvature))
    assert as_said(found, successful(CRITERIA.rounding) if ended else RUNNING)


def test_the_cost_tolerance_says_how_little_is_left():
    termination = gramlm.Termination(**OFF | {"cost": 0.1})
    for promised, result in [(0.1, RESULTS.successful), (0.11, RESULTS.stalled)]:
        trials = made_trials(accepted=False, hopeless=True, first_promised=promised)
        assert ends(termination, made_point(), trials)[0] == result


@pytest.mark.parametrize("cost", [0.0, INFINITE])
def test_a_cost_out_of_range_is_not_explained(cost):
    point = made_point(accuracy=1.0, cost=cost)
    assert ends(NOTHING, point, HOPELESS)[0] == RESULTS.stalled


def test_a_residual_of_zero_is_explained_however_it_was_solved():
    point = made_point(residual=[0.0, 0.0], cost=0.0, relative=0.0, significant=0.0)
    trials = made_trials(accepted=False, hopeless=True, solved=False, finite=False)
    assert as_said(ends(NOTHING, point, trials), successful(CRITERIA.rounding))


# All at once: of every condition that can hold together with those after it, the first decides.

LADDER = [
    ({"residual": [NAN, 1.0]}, {}, {}, (RESULTS.nonfinite_start, CRITERIA.none)),
    ({"largest": NAN}, {}, {}, (RESULTS.nonfinite_derivative, CRITERIA.none)),
    ({}, {}, {}, successful(CRITERIA.vanished)),
    ({}, {}, {"vanished": None}, successful(CRITERIA.absolute_cost)),
    ({}, {}, {"absolute_cost": None}, successful(CRITERIA.gradient)),
    (
        {"relative": 0.2, "cost": 0.2},
        {},
        {"absolute_cost": 0.19},
        successful(CRITERIA.absolute_cost),
    ),
    ({"cost": 0.1}, {}, {"absolute_cost": None}, successful(CRITERIA.cost)),
    ({}, {}, {"cost": None}, successful(CRITERIA.step)),
    ({}, {}, {"step": None}, RUNNING),
    ({}, {"accepted": False}, {}, successful(CRITERIA.rounding)),
    ({}, {"solved": False}, {}, (RESULTS.linear_solver_failed, CRITERIA.none)),
    (
        {"accuracy": 0.0, "moved": 0.0},
        {"solved": True},
        {},
        (RESULTS.nonfinite_trials, CRITERIA.none),
    ),
    ({}, {"finite": True}, {}, (RESULTS.stalled, CRITERIA.none)),
    ({}, {"hopeless": False}, {}, RUNNING),
]


def test_priority():
    """Each rung takes away what decided the one before it, and changes nothing else."""
    at = {"cost": 0.1, "creeping_from": 1e32, "relative": 0.1, "significant": 1e-4}
    at |= {"moved": 1.0, "accuracy": 1.0}
    step = {"cost": 0.1, "promised": 0.0, "relative_step": 0.1, "first_promised": 1.0}
    step |= {"curvature": 0.0, "hopeless": True, "finite": False}
    tolerances = {"cost": 0.1, "gradient": 0.1, "step": 0.1, "absolute_cost": 0.1, "vanished": 0.1}
    broken = {}
    for changes, of_step, of_tolerances, expected in LADDER:
        # What is not finite is mended for the next rung.
        broken = {k: v for k, v in changes.items() if k in ("residual", "largest")}
        at |= {k: v for k, v in changes.items() if k not in broken}
        step |= of_step
        tolerances |= of_tolerances
        point, trials = made_point(**at | broken), made_trials(**step)
        found = ends(gramlm.Termination(**tolerances), point, trials)
        assert as_said(found, expected), (expected, found)


def test_a_compiled_verdict_is_the_same():
    found = eqx.filter_jit(verdict)(NOTHING, made_point(accuracy=0.5), HOPELESS, NO)
    assert as_said(found, successful(CRITERIA.rounding))
