"""What a solve carries from step to step beside the solver's state, and what it makes of a step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core.results import RESULTS
from .._problem.flat import FlatProblem
from .._step.info import StepInfo
from .._step.levenberg_marquardt import LevenbergMarquardt
from .._step.state import State

TOTALS = ("num_steps", "num_accepted", "num_evaluations", "num_products", "inner_iterations")


class Account(eqx.Module):
    """Where a solve has come to.

    - `flat`, (p,): the flat parameters. `info`: of the last step.
    - `totals`: sums over all steps. `initial_cost`: `½‖r‖²` at the start.
    """

    flat: Float[Array, " p"]
    info: StepInfo
    totals: dict[str, Int[Array, ""]]
    initial_cost: Float[Array, ""]


class Outcome(eqx.Module):
    """What a solve has found so far.

    - `leaves`: of the best parameters; None for those that are fixed. `cost`: theirs.
    - `result`: whether it has ended.
    """

    leaves: list[Array | None]
    cost: Float[Array, ""]
    result: RESULTS


class Records(eqx.Module):
    """One column a step, NaN where none was made: the cost before it, and the damping and the
    gradient norm of `History`. In one array, which is one transfer to the host.
    """

    values: Float[Array, "3 k"]

    @classmethod
    def empty(cls, size: int, dtype) -> "Records":
        return cls(jnp.full((3, size), jnp.nan, dtype))

    def with_step(self, index: Int[Array, ""], info: StepInfo) -> "Records":
        column = jnp.stack([info.cost_before, info.damping, info.gradient_norm])
        return Records(self.values.at[:, index].set(column))


def at_start(
    solver: LevenbergMarquardt, problem: FlatProblem, flat: Float[Array, " p"]
) -> tuple[Account, State]:
    """Before the first step."""
    flat = problem.box.project(flat)
    cost = problem.cost(problem.residual(flat))
    totals = {name: jnp.zeros((), jnp.int32) for name in TOTALS}
    account = Account(flat, StepInfo.before_any(cost), totals, cost)
    return account, solver.init_flat(problem, flat)


def stepped(
    solver: LevenbergMarquardt, problem: FlatProblem, account: Account, state: State
) -> tuple[Account, State]:
    """After one more step."""
    first = state.step == 0
    flat, state, info = solver.step_flat(problem, account.flat, state)
    before = account.totals  # with the steps, which outlive a state that is given away
    totals = {
        "num_steps": state.step,
        "num_accepted": before["num_accepted"] + info.accepted,
        "num_evaluations": before["num_evaluations"] + info.evaluations,
        "num_products": before["num_products"] + info.products,
        "inner_iterations": before["inner_iterations"] + info.inner_iterations,
    }
    initial_cost = jnp.where(first, info.cost_before, account.initial_cost)
    return Account(flat, info, totals, initial_cost), state


def outcome(
    solver: LevenbergMarquardt, problem: FlatProblem, account: Account, state: State
) -> Outcome:
    """What was found so far."""
    end, dtype = account.info.cost, account.flat.dtype
    flat, cost = solver.acceptance.best(state.rules.acceptance, account.flat, end)
    result = account.info.result
    passed = (result == RESULTS.successful) & (cost < (1 - jnp.finfo(dtype).eps ** 0.5) * end)
    result = RESULTS.where(passed, RESULTS.passed_better, result)
    spec = problem.params_spec
    leaves = zip(jax.tree.leaves(spec.unflatten(flat)), spec.slots, strict=True)
    return Outcome([None if slot is None else leaf for leaf, slot in leaves], cost, result)
