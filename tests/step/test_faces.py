"""Steps within bounds, by hand: `½‖r + Jδ‖² + ½λ‖δ‖²` of two parameters, one of them bounded.

With `J = [[1, 1], [0, 1]]`, `r = (−2, −9)` and λ = 1 the system `(JᵀJ + I) δ = −Jᵀr` is
`[[2, 1], [1, 3]] δ = (2, 11)`, so that `δ = (−1, 4)` with `Jδ = (3, 4)` and a promise of
`42 − 12.5 = 29.5`. For `δ₂ ≤ 1`:

- cut off it is `(−1, 1)` with `Jδ = (0, 1)`, and promises `9 − ½ = 8.5`;
- with `δ₂ = 1` held `(1 + 1) δ₁ = 2 − 1`, so that it is `(½, 1)` with `Jδ = (1.5, 1)`, and promises
  `12 − 1.625 = 10.375`. The gradient of δ₂ there is `−0.5 − 8 + 1 < 0`: this is the minimum.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._model.model import Model
from gramlm._problem.box import AbstractBox, Box, Unbounded
from gramlm._problem.row_factor import Unweighted
from gramlm._step.anywhere import Anywhere, Unconstrained
from gramlm._step.faces import FaceSearch, OnFace, Within
from gramlm._step.regions import region_around
from gramlm._step.state import RuleStates
from gramlm._step.trial import Trials
from support.points import made_trials, stored

START = jnp.zeros(2)
JACOBIAN = np.array([[1.0, 1.0], [0.0, 1.0]])
RESIDUAL = np.array([-2.0, -9.0])
GRADIENT = jnp.asarray([-2.0, -11.0])
WHOLE, CUT, BOUNDED = (-1.0, 4.0), (-1.0, 1.0), (0.5, 1.0)
LAMBDA = 1.0


def model():
    at = stored(RESIDUAL, JACOBIAN)
    return Model(at.residual, at, Unweighted())


def below(upper, params=START):
    """The region with a bound on the second parameter."""
    box = Box(jnp.full(2, -jnp.inf), jnp.asarray([jnp.inf, upper]))
    region, _, _ = region_around(box, model(), params, GRADIENT)
    return region


def solution(step, image, solved=True):
    """Of a linear system, with three products."""
    return gramlm.extend.LinearStep(
        step=jnp.asarray(step),
        image=jnp.asarray(image),
        relative_residual=jnp.asarray(0.0),
        iterations=jnp.asarray(0, jnp.int32),
        products=jnp.asarray(3, jnp.int32),
        solved=jnp.asarray(solved),
    )


UNBOUNDED = solution(WHOLE, (3.0, 4.0))


def started(region, **changes):
    return dataclasses.replace(region.start(), **changes)


def test_a_step_that_stays_inside_is_left_alone():
    region = below(4.0)
    problem = OnFace.of(region, region.start())
    np.testing.assert_array_equal(problem.rhs, RESIDUAL)
    step, demand = problem.completed(UNBOUNDED, True)
    np.testing.assert_array_equal(step.step, WHOLE)
    np.testing.assert_array_equal(step.image, [3, 4])
    assert step.products == 3
    assert not demand.refine
    assert demand.promise == 29.5
    assert problem.tried(demand)


def test_a_step_that_leaves_is_cut_off_and_another_face_asked_for():
    region = below(1.0)
    problem = OnFace.of(region, region.start())
    step, demand = problem.completed(UNBOUNDED, True)
    np.testing.assert_array_equal(step.step, CUT)
    np.testing.assert_array_equal(step.image, [0, 1])
    assert step.products == 4  # one more, for the image of what is cut off
    assert step.predicted_decrease(jnp.asarray(RESIDUAL)) == 8.5
    assert demand.refine
    assert demand.promise == 29.5
    np.testing.assert_array_equal(demand.face.free, [True, False])
    np.testing.assert_array_equal(demand.face.shift, [0, 1])
    assert not problem.tried(demand)


@pytest.mark.parametrize(
    ("upper", "rounds", "solved", "refined"),
    [
        # Cut off at u it promises 12u − u² − 2.5, and that is nine tenths of 29.5 at u = 3.3637.
        (3.363, 0, True, True),
        (3.365, 0, True, False),
        (1.0, 7, True, True),
        (1.0, 8, True, False),
        (1.0, 0, False, False),
        (4.0, 0, True, False),
    ],
)
def test_when_a_face_is_refined(upper, rounds, solved, refined):
    region = below(upper)
    problem = OnFace.of(region, started(region, rounds=jnp.asarray(rounds, jnp.int32)))
    step, demand = problem.completed(solution(WHOLE, (3.0, 4.0), solved), True)
    assert demand.refine == refined
    np.testing.assert_array_equal(step.step, [-1, upper])  # tried if it is not refined


def test_the_problem_of_a_smaller_face():
    region = below(1.0)
    problem = OnFace.of(region, region.start())
    _, demand = problem.completed(UNBOUNDED, True)
    search = region.start().held_at(demand, jnp.asarray(LAMBDA))
    smaller = OnFace.of(region, search)
    np.testing.assert_array_equal(smaller.image, [1, 1])
    np.testing.assert_array_equal(smaller.rhs, [-1, -8])
    np.testing.assert_array_equal(smaller.at.jacobian, [[1, 0], [0, 0]])
    # Of the free parameter alone: (1 + 1) δ₁ = 1. The other is zero, whatever a solver says.
    step, demand = smaller.completed(solution((0.5, 7.0), (0.5, 0.0)), True)
    np.testing.assert_array_equal(step.step, BOUNDED)
    np.testing.assert_array_equal(step.image, [1.5, 1])
    assert step.predicted_decrease(jnp.asarray(RESIDUAL)) == 10.375
    assert not demand.refine
    # Hope is measured by the step without the bound.
    assert smaller.promise(demand, jnp.asarray(10.375)) == 29.5


def test_the_damping_of_a_smaller_face_is_settled():
    region = below(1.0)
    problem = OnFace.of(region, region.start())
    none = jnp.zeros((), jnp.int32)

    def proposed():
        return gramlm.extend.FoundDamping(jnp.asarray(8.0), None, none, none)

    def at(damping):
        return gramlm.extend.FoundDamping(damping, None, none, none)

    assert problem.damping(proposed, at).damping == 8
    _, demand = problem.completed(UNBOUNDED, True)
    search = region.start().held_at(demand, jnp.asarray(0.25))
    assert search.rounds == 1
    assert search.wanted
    assert OnFace.of(region, search).damping(proposed, at).damping == 0.25
    # For another λ, the face of the iterate again, which is factorised anew.
    again = search.after_rejected(region.face)
    assert again.wanted
    assert jnp.isnan(again.damping)
    np.testing.assert_array_equal(again.face.free, [True, True])
    assert not region.start().after_rejected(region.face).wanted  # it is the one factorised


def test_a_correction_moves_the_free_parameters_alone():
    region = below(1.0)
    face = dataclasses.replace(region.face, free=jnp.asarray([True, False]), shift=jnp.ones(2))
    problem = OnFace.of(region, started(region, face=face))
    step, demand = problem.completed(solution((0.25, 0.25), (0.25, 0.0)), False)
    np.testing.assert_array_equal(step.step, [0.25, 0])
    assert not demand.refine


def test_within_bounds_a_system_is_solved_to_a_thousandth_at_least():
    region = below(1.0)
    within = OnFace.of(region, region.start())
    anywhere = Unconstrained(within.at, within.rhs)
    for forcing, expected in [(0.1, 1e-3), (1e-5, 1e-5)]:
        assert within.tolerance(jnp.asarray(forcing)) == expected
        assert anywhere.tolerance(jnp.asarray(forcing)) == forcing


def explored(region):
    """The step that a region leads to for λ, and how many systems were solved for it."""

    def on(problem, trials):
        at, spent = problem.at, trials.spent
        system = at.jacobian.T @ at.jacobian + LAMBDA * jnp.eye(2)
        found = jnp.linalg.solve(system, -at.jacobian.T @ problem.rhs)
        step, demand = problem.completed(solution(found, at.jacobian @ found), True)
        last = dataclasses.replace(
            trials.last, params=step.step, accepted=jnp.asarray(True), damping=jnp.asarray(LAMBDA)
        )
        spent = dataclasses.replace(spent, evaluations=spent.evaluations + 1)
        after = dataclasses.replace(trials, last=last, spent=spent)
        return problem.concluded(trials, after, demand)

    trials = Trials.start(
        params=START,
        cost=jnp.asarray(42.5),
        rules=RuleStates(None, None, None),
        hopeless=jnp.asarray(False),
        finite=jnp.asarray(True),
        search=region.start(),
    )
    going = True
    while going:
        search = region.taken_up(trials.search)
        trials = on(region.subproblem(search), dataclasses.replace(trials, search=search))
        assert region.several or trials.accepted
        going = not trials.accepted and bool(region.another(trials))
    return trials.last.params, trials.spent.evaluations


@pytest.mark.parametrize(
    ("upper", "expected", "rounds"), [(9.0, WHOLE, 1), (3.5, (-1.0, 3.5), 1), (1.0, BOUNDED, 2)]
)
def test_faces_are_explored_until_the_bounded_step_is_found(upper, expected, rounds):
    step, spent = explored(below(upper))
    np.testing.assert_allclose(step, expected, rtol=1e-14)
    assert spent == rounds


def test_one_that_is_held_at_the_iterate_has_no_column_and_no_gradient():
    box = Box(jnp.full(2, -jnp.inf), jnp.asarray([jnp.inf, 0.0]))
    region, held, gradient = region_around(box, model(), START, GRADIENT)
    assert isinstance(region, Within)
    np.testing.assert_array_equal(region.face.free, [True, False])
    np.testing.assert_array_equal(held.at.jacobian, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(held.at.residual, RESIDUAL)
    np.testing.assert_array_equal(gradient, [-2, 0])
    # (1 + 1) δ₁ = 2.
    np.testing.assert_allclose(explored(region)[0], [1, 0], rtol=1e-14)


def test_without_bounds_the_step_is_the_solution():
    whole = model()
    region, same, gradient = region_around(Unbounded(), whole, START, GRADIENT)
    assert isinstance(region, Anywhere)
    assert same is whole
    assert gradient is GRADIENT
    assert region.start() is None
    step, spent = explored(region)
    np.testing.assert_allclose(step, WHOLE, rtol=1e-14)
    assert spent == 1
    trials = made_trials()
    problem = Unconstrained(whole.at, whole.at.residual)
    assert problem.completed(UNBOUNDED, True) == (UNBOUNDED, None)
    assert problem.serves(trials)
    assert problem.tried(None)
    assert problem.promise(None, jnp.asarray(3.0)) == 3
    assert problem.concluded(trials, made_trials(cost=0.25), None).last.cost == 0.25


class Ball(AbstractBox):
    """A set that nobody has registered."""

    bounded: bool = True

    @property
    def empty(self):
        return jnp.asarray(False)

    def contains(self, params):
        return params == params

    def project(self, params):
        return params

    def land(self, params, steps):
        return params + steps

    def taken(self, params, step, place):
        return step


def test_a_box_of_an_unknown_kind_is_refused():
    with pytest.raises(TypeError, match="There is no region for a Ball"):
        region_around(Ball(), model(), START, GRADIENT)


def test_a_face_is_factorised_once():
    region = below(1.0)
    search = FaceSearch.start(region.face)
    problem = OnFace.of(region, search)
    assert not problem.serves(made_trials(search=search))
    assert problem.serves(made_trials(search=started(region, wanted=jnp.asarray(False))))
