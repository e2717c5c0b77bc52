"""What a solver carries from one Jacobian to the next."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree


class RuleStates(eqx.Module):
    """The states of the rules that learn from every trial: `damping`, `forcing`, `acceptance`."""

    damping: PyTree[Any]
    forcing: PyTree[Any]
    acceptance: PyTree[Any]


class State(eqx.Module):
    """What a solver carries from one Jacobian to the next.

    **Attributes:**

    - `step`: Jacobians so far.
    - `rules`, `metric`, `recycled`: the states of the rules, and what the linear solver recycles.
    - `fresh`: whether the rules start anew with the next Jacobian, at the start and when the scale
      has changed.
    - `scale`: a power of two by which residuals are divided, 1 unless their squares come near to
      overflow or underflow.
    - `probe`, (p,): the direction of the largest eigenvalue of K.
    - `columns`, (p,): the largest lengths so far of the columns of J, 0 where it is not stored.
    - `predicted`: the decrease that was predicted of the last accepted step, infinite at first.
    - `finite`: whether the last trial was.
    - `initial_cost`: infinite at first.
    """

    step: Int[Array, ""]
    rules: RuleStates
    metric: PyTree[Any]
    recycled: PyTree[Any]
    fresh: Bool[Array, ""]
    scale: Float[Array, ""]
    probe: Float[Array, " p"]
    columns: Float[Array, " p"]
    predicted: Float[Array, ""]
    finite: Bool[Array, ""]
    initial_cost: Float[Array, ""]


def either(first: Bool[Array, ""], yes: PyTree[Any], no: PyTree[Any]) -> PyTree[Any]:
    """One of two states."""
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), yes, no)


def equal(a: PyTree[Any], b: PyTree[Any]) -> Bool[Array, ""]:
    """Whether two states are the same, of one entry or more."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    same = [jnp.all(x == y) for x, y in pairs]
    return jnp.all(jnp.stack(same)) if same else jnp.asarray(True)
