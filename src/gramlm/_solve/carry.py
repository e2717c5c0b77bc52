"""What a solve carries from step to step, and what it makes of a step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._core.results import RESULTS
from .._problem.flat import FlatProblem
from .._step.info import StepInfo
from .._step.levenberg_marquardt import LevenbergMarquardt
from .._step.state import State
from .packed import Packed


class Totals(NamedTuple):
    """Sums over all steps: Jacobians, accepted trials, residuals at trials, products with J."""

    num_steps: Int[Array, ""]
    num_accepted: Int[Array, ""]
    num_evaluations: Int[Array, ""]
    num_products: Int[Array, ""]
    inner_iterations: Int[Array, ""]

    def after(self, info: StepInfo) -> "Totals":
        """With one step more."""
        return Totals(
            num_steps=self.num_steps + 1,
            num_accepted=self.num_accepted + info.accepted,
            num_evaluations=self.num_evaluations + info.evaluations,
            num_products=self.num_products + info.products,
            inner_iterations=self.inner_iterations + info.inner_iterations,
        )


class Told(NamedTuple):
    """What is told of a solve between two steps: all of its carry but the state.

    - `flat`, (p,): the flat parameters. `info`: of the last step.
    - `initial_cost`: `½‖r‖²` at the start, or the loss.
    """

    flat: Float[Array, " p"]
    info: StepInfo
    totals: Totals
    initial_cost: Float[Array, ""]


class Carry(NamedTuple):
    """A solve between two steps, all that it takes to go on: what is told, and the state."""

    told: Told
    state: State

    @classmethod
    def start(
        cls, solver: LevenbergMarquardt, problem: FlatProblem, flat: Float[Array, " p"]
    ) -> "Carry":
        """Before the first step."""
        cost = problem.cost(problem.residual(flat))
        totals = Totals(*[jnp.zeros((), jnp.int32) for _ in Totals._fields])
        told = Told(flat, StepInfo.before_any(cost), totals, cost)
        return cls(told, solver.init_flat(problem, flat))

    def stepped(self, solver: LevenbergMarquardt, problem: FlatProblem) -> "Carry":
        """After one more step."""
        told, first = self.told, self.state.step == 0
        flat, state, info = solver.step_flat(problem, told.flat, self.state)
        initial_cost = jnp.where(first, info.cost_before, told.initial_cost)
        return Carry(Told(flat, info, told.totals.after(info), initial_cost), state)

    @property
    def running(self) -> Bool[Array, ""]:
        """Whether the last step did not end it."""
        return self.told.info.result == RESULTS.running


class PackedCarry(NamedTuple):
    """A carry in few arrays: between two programs, two steps of one, or two solves."""

    told: Packed
    state: Packed

    @classmethod
    def of(cls, carry: Carry) -> "PackedCarry":
        return cls(Packed.of(carry.told), Packed.of(carry.state))

    @property
    def carry(self) -> Carry:
        """Outside of a program with NumPy's scalars, which are waited for."""
        return Carry(self.told.tree(), self.state.tree())


class Best(NamedTuple):
    """The best point so far.

    - `leaves`: of the parameters; None for those that are fixed. `cost`: theirs.
    - `result`: whether the solve has ended by itself.
    """

    leaves: list[Array | None]
    cost: Float[Array, ""]
    result: RESULTS

    @classmethod
    def of(cls, solver: LevenbergMarquardt, problem: FlatProblem, carry: Carry) -> "Best":
        """What was found so far."""
        told, acceptance = carry.told, carry.state.rules.acceptance
        end, dtype = told.info.cost, told.flat.dtype
        flat, cost = solver.acceptance.best(acceptance, told.flat, end)
        result = told.info.result
        # Residuals of ten ε of those at the start may be rounding: which is lowest is chance.
        eps = float(jnp.finfo(dtype).eps)
        rounding = eps**0.5 * end + (10 * eps) ** 2 * told.initial_cost
        passed = (result == RESULTS.successful) & (end - cost > rounding)
        result = RESULTS.where(passed, RESULTS.passed_better, result)
        spec = problem.params_spec
        leaves = zip(jax.tree.leaves(spec.unflatten(flat)), spec.slots, strict=True)
        return cls([None if slot is None else leaf for leaf, slot in leaves], cost, result)


def stats_of(told: Told, best: Best) -> dict[str, Any]:
    """The statistics of a solution."""
    info = told.info
    numbers = {
        "cost": best.cost,
        "initial_cost": told.initial_cost,
        **told.totals._asdict(),
        "linear_residual": info.linear_residual,
        "relative_gradient": info.relative_gradient,
    }
    # NumPy's as numbers, which can be formatted.
    known = {name: x[()] if isinstance(x, np.ndarray) else x for name, x in numbers.items()}
    return {**known, "criterion": info.criterion}
