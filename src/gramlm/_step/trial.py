"""The trials made with one Jacobian."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from .._core.results import CRITERIA
from .faces import FaceSearch
from .point import Point
from .state import RuleStates


class FirstTrial(NamedTuple):
    """Of the trials of a step the one that is damped least."""

    predicted: Array
    damping: Array
    curvature: Array  # of r over what rounds the parameters, or over the step; infinite if unknown


class Trials(NamedTuple):
    """The last trial of a step, and sums over all of them."""

    made: Array
    params: Array
    cost: Array
    residual_size: Array  # its largest entry
    damping: Array
    accepted: Array
    hopeless: Array
    finite: Array  # of the last trial that moved
    solved: Array
    gain_ratio: Array
    predicted: Array
    first: FirstTrial
    step_norm: Array
    relative_step: Array  # the largest of a parameter
    acceleration_ratio: Array
    used_acceleration: Array
    evaluations: Array
    iterations: Array
    products: Array
    linear_residual: Array
    rules: RuleStates
    work: PyTree  # of the linear solver
    search: FaceSearch | None  # with bounds

    @classmethod
    def start(cls, point: Point, rules: RuleStates, finite: Bool[Array, ""]) -> "Trials":
        zero = jnp.zeros((), point.params.dtype)
        no, none = jnp.asarray(False), jnp.zeros((), jnp.int32)
        arrived = point.arrived()
        return cls(
            made=none,
            params=point.params,
            cost=point.cost,
            residual_size=zero,
            damping=zero,
            accepted=no,
            hopeless=(arrived != CRITERIA.none) | ~point.finite,
            finite=finite,
            solved=no,
            gain_ratio=zero,
            predicted=zero,
            first=FirstTrial(zero, zero, zero),
            step_norm=zero,
            relative_step=zero,
            acceleration_ratio=zero,
            used_acceleration=no,
            evaluations=none,
            iterations=none,
            products=none,
            linear_residual=zero,
            rules=rules,
            work=None,
            search=None if point.model.face is None else FaceSearch.start(point.model.face),
        )
