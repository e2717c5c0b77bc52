"""Lengths of steps at the iterate, for the damping rules that ask for them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .._linear.algebra.secular import LengthBound
from .._linear.solver.base import AbstractFactorisation, FoundDamping
from .rules.damping.base import AbstractStepLengths


class StepLengths(AbstractStepLengths):
    """Those of the system at hand, for the residual as right-hand side."""

    factors: AbstractFactorisation
    residual: Float[Array, " n"]
    metric: lx.AbstractLinearOperator
    least: Float[Array, ""]
    work: PyTree[Any]
    tolerance: Float[Array, ""]

    def at(self, damping: Float[Array, ""]) -> FoundDamping:
        none = jnp.zeros((), jnp.int32)
        return FoundDamping(jnp.maximum(damping, self.least), self.work, none, none)

    def within(self, radius: Float[Array, ""], guess: Float[Array, ""]) -> FoundDamping:
        bound = LengthBound(self.residual, self.metric, radius, guess, self.least, self.tolerance)
        found = self.factors.damping_within(bound, self.work)
        # The search differentiates to nonsense; a λ that is taken for fixed is what it is worth.
        return dataclasses.replace(found, damping=jax.lax.stop_gradient(found.damping))
