"""The trials that are made with one Jacobian."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.spent import Spent
from .state import RuleStates


class Tried(eqx.Module):
    """One trial: a λ, the point that its step leads to, and what was found there.

    - `params`, (p,), `cost` and `residual_size`, the largest `|r|`: at that point.
    - `promised`: the decrease that the linear model predicts, infinite where it is not known.
    - `step_norm`: Euclidean length of the step; `relative_step`: the largest of a parameter.
    """

    params: Float[Array, " p"]
    cost: Float[Array, ""]
    residual_size: Float[Array, ""]
    damping: Float[Array, ""]
    accepted: Bool[Array, ""]
    gain_ratio: Float[Array, ""]
    promised: Float[Array, ""]
    step_norm: Float[Array, ""]
    relative_step: Float[Array, ""]
    acceleration_ratio: Float[Array, ""]
    used_acceleration: Bool[Array, ""]
    linear_residual: Float[Array, ""]


class FirstTrial(eqx.Module):
    """Of the trials of a step the one that is damped least, but for those that rounding spoilt:
    theirs says nothing of what there is to gain.

    - `promised`: NaN before there is such a trial.
    - `curvature`: of r over what rounds the parameters, or over the step; infinite if unknown.
    """

    promised: Float[Array, ""]
    damping: Float[Array, ""]
    curvature: Float[Array, ""]


class Trials(eqx.Module):
    """The last trial of a step, and what all of them together have come to.

    - `made`: how many. `spent`: on all of them.
    - `hopeless`: whether another λ can do no better. `solved`: whether any linear system was.
    - `finite`: of the last trial that moved.
    - `rules`: the states of the rules. `work`: of the linear solver. `search`: of the region.
    """

    made: Int[Array, ""]
    last: Tried
    first: FirstTrial
    spent: Spent
    hopeless: Bool[Array, ""]
    finite: Bool[Array, ""]
    solved: Bool[Array, ""]
    rules: RuleStates
    work: PyTree[Any]
    search: PyTree[Any]

    @classmethod
    def start(
        cls,
        params: Float[Array, " p"],
        cost: Float[Array, ""],
        rules: RuleStates,
        hopeless: Bool[Array, ""],
        finite: Bool[Array, ""],
        search: PyTree[Any],
    ) -> "Trials":
        """None, at an iterate."""
        zero, no = jnp.zeros((), params.dtype), jnp.asarray(False)
        nothing = Tried(
            params=params,
            cost=cost,
            residual_size=zero,
            damping=zero,
            accepted=no,
            gain_ratio=zero,
            promised=zero,
            step_norm=zero,
            relative_step=zero,
            acceleration_ratio=zero,
            used_acceleration=no,
            linear_residual=zero,
        )
        return cls(
            made=jnp.zeros((), jnp.int32),
            last=nothing,
            first=FirstTrial(jnp.full_like(zero, jnp.nan), zero, zero),
            spent=Spent(),
            hopeless=hopeless,
            finite=finite,
            solved=no,
            rules=rules,
            work=None,
            search=search,
        )

    @property
    def accepted(self) -> Bool[Array, ""]:
        """Whether the last trial was."""
        return self.last.accepted
