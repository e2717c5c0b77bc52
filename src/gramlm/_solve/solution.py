"""What a solve gives back."""

from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.costs import ProductCosts
from .._core.results import RESULTS
from .._step.state import State
from .carry import PackedCarry

Params = TypeVar("Params")


class History(eqx.Module):
    """What happened at each step.

    Outside of a transformation the arrays are NumPy's and have one entry a step made (`k`), and
    `cost` has one more: `cost[0]` is the cost at the start and `cost[i + 1]` the cost after step
    `i`. Under `jit` or `vmap` of a caller's own the lengths are those of `max_steps`, filled up
    with NaN.

    **Attributes:**

    - `cost`: squared residual units. `damping`: λ of the step's last trial.
    - `gradient_norm`: `‖Jᵀr‖_{M⁻¹}` at the start of the step.
    - `seconds`: since the solve began, at the end of the step. Where nobody watches, several steps
      are made at a time, half a second's worth, and theirs is interpolated. NaN inside of a
      transformation.
    - `params`: the parameters after steps 0, `every`, 2·`every`, …, each leaf with that axis in
      front, with `history=gramlm.Saving(params=True, every=…)`; otherwise None.
    """

    cost: Float[Array | np.ndarray, "..."]
    damping: Float[Array | np.ndarray, "..."]
    gradient_norm: Float[Array | np.ndarray, "..."]
    seconds: Float[Array | np.ndarray, "..."]
    params: PyTree[Any] = None


class Solution(eqx.Module, Generic[Params]):
    """The outcome of `gramlm.solve`.

    **Attributes:**

    - `value`: the best parameters found, with the structure and dtype of those given.
    - `result`: a member of `gramlm.RESULTS`.
    - `stats`: a dictionary of numbers, NumPy's outside of a transformation: `cost`,
      `initial_cost`, `num_steps` (= Jacobians), `num_accepted`, `num_evaluations` (residual
      evaluations at trial points), `num_products` (vectors multiplied by J or Jᵀ),
      `inner_iterations`, `linear_residual`, `relative_gradient`, and `criterion`, a member of
      `gramlm.CRITERIA`.
    - `history`: a `gramlm.History`.
    - `aux`: what the residual returned beside its value at `value`, with `has_aux=True`.
    - `carry`: all that it takes to go on, with `resume=solution`; None where Ctrl-C left a step in
      the middle that had overwritten it.
    - `state`: the solver's state after the last step, and `flat`, (p,), the flat parameters then:
      those of `value` unless steps went uphill. None without `carry`.
    - `plan`: the choices that were made for this problem, in words. `costs`: what products with J
      were measured to cost, where the choices depend on it.
    - `reason`: why a callback stopped the solve, in its own words.
    """

    value: Params
    result: RESULTS
    stats: dict[str, Any]
    history: History
    aux: PyTree[Any]
    carry: PackedCarry | None
    plan: str = eqx.field(static=True, default="")
    costs: ProductCosts | None = eqx.field(static=True, default=None)
    reason: str = eqx.field(static=True, default="")

    @property
    def state(self) -> State | None:
        """The solver's state after the last step."""
        return None if self.carry is None else self.carry.state.tree()

    @property
    def flat(self) -> Float[Array, "..."] | None:
        """The flat parameters after the last step."""
        return None if self.carry is None else self.carry.told.tree().flat


# Arbitrary; of programs JAX keeps 4096.
_MOST_STRUCTURES = 256
_structures: dict[Any, Any] = {}


class Parts(NamedTuple):
    """The fields of a `Solution` that hold arrays, in their order; `history` as those of its own.

    A module checks its fields when it is made, which for a solution takes a tenth of a
    millisecond, a third of a small solve. So they are checked once for each structure.
    """

    value: PyTree
    result: RESULTS
    stats: dict[str, Any]
    history: tuple[Any, ...]
    aux: PyTree
    carry: PackedCarry | None

    def solution(self, plan: str, costs: ProductCosts | None, reason: str) -> Solution:
        """The solution that has these fields."""
        leaves, structure = jax.tree.flatten(self)
        key = (structure, plan, costs, reason)
        if key not in _structures:
            if len(_structures) >= _MOST_STRUCTURES:
                _structures.clear()
            made = Solution(
                **self._replace(history=History(*self.history))._asdict(),
                plan=plan,
                costs=costs,
                reason=reason,
            )
            _structures[key] = jax.tree.structure(made)
        return jax.tree.unflatten(_structures[key], leaves)


class SolveError(RuntimeError):
    """Raised by `gramlm.solve(..., throw=True)` when no tolerance was met, or a callback failed.

    Nothing is lost: `error.solution` is the whole `Solution`, with the best parameters found.
    """

    solution: Solution

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution


class SolveInterrupted(KeyboardInterrupt):
    """Raised by `gramlm.solve(..., throw=True)` after Ctrl-C.

    `interrupt.solution` is the whole `Solution`; `resume=interrupt.solution` continues. Where
    Ctrl-C was pressed twice, so that a step was left in the middle, its `state` may be None: then
    go on from `solution.value`.
    """

    solution: Solution

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution
