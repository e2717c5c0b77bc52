"""What a solver carries from one Jacobian to the next."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.reductions import some
from .rules.damping.base import AbstractDamping

# In bytes (arbitrary). Two of a smaller state are no matter.
_LARGE = 2**26

# A step that leaves less of the cost does not approach a root where J is singular, where the cost
# falls by a factor of 16 at each step (arbitrary beyond that).
_LEAP = 1e-3


class RuleStates(eqx.Module):
    """The states of the rules that learn from every trial: `damping`, `forcing`, `acceptance`."""

    damping: PyTree[Any]
    forcing: PyTree[Any]
    acceptance: PyTree[Any]


class Past(eqx.Module):
    """What was seen at the Jacobians so far, in units of the scaled residual.

    - `columns`, (p,): the largest lengths so far of the columns of J, 0 where it is not stored.
    - `creeping_from`: the cost since when no step has removed nearly all of it.
    - `least_promised`: the least decrease that was predicted of an accepted step.
    - `lowest_cost`. The three are infinite at first.
    """

    columns: Float[Array, " p"]
    creeping_from: Float[Array, ""]
    least_promised: Float[Array, ""]
    lowest_cost: Float[Array, ""]

    @classmethod
    def nothing(cls, params: Float[Array, " p"]) -> "Past":
        """Before the first Jacobian."""
        infinite = jnp.full((), jnp.inf, params.dtype)
        return cls(jnp.zeros_like(params), infinite, infinite, infinite)

    def after(
        self,
        columns: Float[Array, " p"],
        cost_before: Float[Array, ""],
        accepted: Bool[Array, ""],
        cost: Float[Array, ""],
        promised: Float[Array, ""],
    ) -> "Past":
        """After a step from `cost_before`, and the cost and the promise of its last trial."""
        since = jnp.where(jnp.isinf(self.creeping_from), cost_before, self.creeping_from)
        leapt = accepted & (cost < _LEAP * cost_before)
        promise = jnp.where(accepted, promised, jnp.inf)
        lower = jnp.minimum(cost_before, cost)
        return Past(
            columns=columns,
            creeping_from=jnp.where(leapt, cost, since),
            least_promised=jnp.minimum(self.least_promised, promise),
            lowest_cost=jnp.fmin(self.lowest_cost, jnp.where(accepted, lower, cost_before)),
        )


class State(eqx.Module):
    """What a solver carries from one Jacobian to the next.

    **Attributes:**

    - `step`: Jacobians so far.
    - `rules`, `metric`, `recycled`: the states of the rules, and what the linear solver recycles.
    - `past`: what was seen at the Jacobians so far.
    - `fresh`: whether damping, metric and past start anew with the next Jacobian, at the start and
      when the scale has changed.
    - `scale`: a power of two by which residuals are divided, 1 unless their squares come near to
      overflow or underflow.
    - `probe`, (p,): the direction of the largest eigenvalue of K.
    - `finite`: whether the last trial was.
    - `initial_cost`: in the units of the user, infinite at first.

    Where `args` change from step to step, what is remembered of costs, decreases and columns is
    that of other data: the tests for `cost` and `vanished` then mean little.
    """

    step: Int[Array, ""]
    rules: RuleStates
    metric: PyTree[Any]
    recycled: PyTree[Any]
    past: Past
    fresh: Bool[Array, ""]
    scale: Float[Array, ""]
    probe: Float[Array, " p"]
    finite: Bool[Array, ""]
    initial_cost: Float[Array, ""]


def either(first: Bool[Array, ""], yes: PyTree[Any], no: PyTree[Any]) -> PyTree[Any]:
    """One of two states."""
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), yes, no)


def redamped(
    rule: AbstractDamping, state: State, wanted: Bool[Array, ""], damping: Float[Array, ""]
) -> State:
    """The state of a solver from which, if that is wanted, the next trial is made at `damping`."""
    before = state.rules.damping
    after = either(wanted, rule.with_damping(before, damping), before)
    after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, before)
    return dataclasses.replace(state, rules=dataclasses.replace(state.rules, damping=after))


def equal(a: PyTree[Any], b: PyTree[Any]) -> Bool[Array, ""]:
    """Whether two states are the same, of one entry or more."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    other = [some(x != y) for x, y in pairs]
    return ~jnp.any(jnp.stack(other)) if other else jnp.asarray(True)


def donated(state: State) -> bool:
    """Whether a state is so large that the next steps overwrite it, lest there be two."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state)) >= _LARGE
