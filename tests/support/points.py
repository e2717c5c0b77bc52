"""Points, trials and regions made from plain numbers, for tests that solve nothing."""

import dataclasses

import jax.numpy as jnp
import lineax as lx
import numpy as np

import gramlm
from gramlm._core.spent import Spent
from gramlm._model.model import Model
from gramlm._problem.flat import FlatProblem
from gramlm._problem.residual.canonical import canonical
from gramlm._problem.row_factor import Unweighted
from gramlm._step.anywhere import Anywhere
from gramlm._step.point import Point
from gramlm._step.rounding import Rounding
from gramlm._step.state import Past, RuleStates
from gramlm._step.stationarity import AbstractStationarity
from gramlm._step.trial import FirstTrial, Trials, Tried
from support.problems import F32, F64

EPS = {F32: 2.0**-23, F64: 2.0**-52}


class KnownStationarity(AbstractStationarity):
    """What it is told."""

    relative: object
    significant: object
    known_rounding: Rounding
    longest: object

    @property
    def relative_gradient(self):
        return self.relative

    @property
    def significant_gradient(self):
        return self.significant

    def rounding(self, cost):
        return self.known_rounding

    def negligible(self, step):
        return jnp.asarray(False)


def stored(residual, jacobian, dtype=F64):
    """A linearisation with a given r and J."""
    return gramlm.extend.MaterialisedLinearisation(
        jnp.asarray(residual, dtype), jnp.asarray(jacobian, dtype)
    )


def either_side(bound, dtype=F64):
    """The bound itself, and the next number above it."""
    bound = np.asarray(bound, dtype)
    return jnp.asarray(bound), jnp.asarray(np.nextafter(bound, np.asarray(np.inf, dtype)))


def made_point(**known):
    """θ = (1, 1) with r = (1, 1) and J = I, far from any end; all but what is known.

    The cost is 1, that at the start 8, both relative gradients are 1/2, λmax(K) is 1, and rounding
    the parameters moves nothing. `relative`, `significant`, `moved` and `accuracy` go to the
    stationarity and the rounding, `creeping_from` to the past.
    """
    numbers = {
        "params": [1.0, 1.0],
        "residual": [1.0, 1.0],
        "gradient": [1.0, 1.0],
        "gradient_norm": 1.0,
        "largest": 1.0,
        "cost": 1.0,
        "scale": 1.0,
        "initial_cost": 8.0,
        "relative": 0.5,
        "significant": 0.5,
        "moved": 0.0,
        "creeping_from": 8.0,
    }
    accuracy = known.pop("accuracy", 0.0)
    assert known.keys() <= numbers.keys()
    at = {name: jnp.asarray(x, F64) for name, x in (numbers | known).items()}
    residual, params = at.pop("residual"), at["params"]
    rounding = Rounding(at["cost"], at.pop("moved"), accuracy)
    linearisation = stored(residual, jnp.eye(2))
    stationarity = KnownStationarity(
        at.pop("relative"), at.pop("significant"), rounding, jnp.ones_like(params)
    )
    past = dataclasses.replace(Past.nothing(params), creeping_from=at.pop("creeping_from"))
    function, _ = canonical(lambda t: t, params, None)
    return Point(
        problem=FlatProblem(function),
        model=Model(residual, linearisation, Unweighted()),
        region=Anywhere(linearisation),
        metric=lx.IdentityLinearOperator(jnp.zeros(2)),
        stationarity=stationarity,
        rounding=rounding,
        past=past,
        **at,
    )


def made_trials(search=None, **known):
    """One trial, accepted, that halves a cost of 1 as promised; all but what is known.

    Every parameter moves by a tenth, at λ = 1/2. `first_promised`, `first_damping` and
    `curvature` are those of the first trial.
    """
    flags = {"accepted": True, "hopeless": False, "finite": True, "solved": True}
    numbers = {
        "params": [0.9, 0.9],
        "cost": 0.5,
        "residual_size": 1.0,
        "damping": 0.5,
        "gain_ratio": 1.0,
        "promised": 0.5,
        "step_norm": 0.1,
        "relative_step": 0.1,
        "acceleration_ratio": 0.0,
        "linear_residual": 0.0,
        "first_promised": 0.5,
        "first_damping": 0.5,
        "curvature": 1.0,
    }
    assert known.keys() <= flags.keys() | numbers.keys()
    flag = {name: jnp.asarray(known.get(name, x)) for name, x in flags.items()}
    number = {name: jnp.asarray(known.get(name, x), F64) for name, x in numbers.items()}
    first = FirstTrial(
        number.pop("first_promised"), number.pop("first_damping"), number.pop("curvature")
    )
    return Trials(
        made=jnp.asarray(1, jnp.int32),
        last=Tried(accepted=flag.pop("accepted"), used_acceleration=jnp.asarray(False), **number),
        first=first,
        spent=Spent(evaluations=1),
        rules=RuleStates(None, None, None),
        work=None,
        search=search,
        **flag,
    )
