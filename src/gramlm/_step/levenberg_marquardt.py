"""The Levenberg–Marquardt driver: one Jacobian, and trials until one is accepted."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from beartype import beartype
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree, jaxtyped

from .._core.arrays import Scalar, scattered_signs
from .._core.costs import ProductCosts
from .._core.flatten import as_parameters
from .._core.scale import largest_entry, next_scale, residual_scale
from .._linear.auto import (
    AbstractMemoryChoice,
    AbstractSolverChoice,
    AutoMemory,
    AutoSolver,
    Plan,
    ProblemSize,
    wants_measurement,
)
from .._linear.product_costs import measured
from .._linear.solver.base import AbstractFactorisation, AbstractGramSolver
from .._linear.solver.lineax_adapter import LineaxSolver
from .._model.form import Form
from .._model.linearisation import AbstractLinearisation
from .._model.memory import AbstractMemoryPolicy
from .._model.metric import AbstractMetric, PowerMetric, dual_norm
from .._model.model import Model
from .._model.power_iteration import largest_eigenvalue
from .._problem.build import flat_problem
from .._problem.flat import FlatProblem
from .._problem.residual.rows import RowResidual
from .attempt import Rules, attempts
from .info import StepInfo
from .point import Point
from .rules.acceptance import AbstractAcceptance, Descent
from .rules.correction import AbstractCorrection, Geodesic
from .rules.damping.base import AbstractDamping
from .rules.damping.trust_region import TrustRegion
from .rules.forcing import AbstractForcing, EisenstatWalker
from .rules.termination import Termination
from .state import RuleStates, State, either
from .stationarity import stationarity_at
from .trial import Trials
from .verdict import describe

Params = TypeVar("Params", bound=PyTree)


def _as_gram_solver(solver: Any) -> Any:
    return LineaxSolver(solver) if isinstance(solver, lx.AbstractLinearSolver) else solver


def _fitting(recycled: PyTree[Any], fresh: PyTree[Any]) -> PyTree[Any]:
    """What is recycled, or a new start where data of another size have made it worthless."""
    same = jax.tree.map(jnp.shape, recycled) == jax.tree.map(jnp.shape, fresh)
    return recycled if same else fresh


class LevenbergMarquardt(eqx.Module):
    """Levenberg–Marquardt: minimises `½‖r(θ)‖²` by steps `δ = −M⁻¹Jᵀ(JM⁻¹Jᵀ + λI)⁻¹ r`.

    Its fields are the choices, each with an abstract class to write one's own:

    - `linear_solver`: how the system is solved; a `gramlm.AbstractGramSolver`, or any
      `lineax.AbstractLinearSolver`. By size unless given.
    - `damping`: how λ is chosen. `metric`: the M in which steps are measured.
    - `correction`: what is added to the step beyond the linear model; None for the plain step.
    - `termination`: the tolerances.
    - `forcing`: how exactly an iterative solver has to solve for each step.
    - `memory`: what is stored between products with J: `Materialise`, `Keep`, `Recompute`,
      `RowBlocks`, or `AutoMemory`, by size.
    - `memory_limit`, in bytes, under which `AutoSolver` and `AutoMemory` choose; 2 GiB. What the
      residual itself takes, and the data, are not counted.
    - `form`: `Form.dual`, `Form.normal`, or the cheaper.
    - `acceptance`: which trials are accepted.
    - `max_trials`: values of λ tried with one Jacobian.
    - `damping_floor`: λ is at least this multiple of the rounding of K, `ε·λmax(K)`, or of
      what ε² is to the middle column where J is factorised without forming K, as small ones are.

    Use it through `gramlm.solve`, or write a loop:

    !!! Example

        ```python
        solver = gramlm.LevenbergMarquardt()
        state = solver.init(residual_fn, params, args)
        step = eqx.filter_jit(solver.step)
        for batch in batches:
            params, state, info = step(residual_fn, params, state, batch)
        ```
    """

    linear_solver: AbstractGramSolver | AbstractSolverChoice = eqx.field(
        default_factory=AutoSolver, converter=_as_gram_solver
    )
    damping: AbstractDamping = TrustRegion()
    metric: AbstractMetric = PowerMetric()
    correction: AbstractCorrection | None = Geodesic()
    termination: Termination = Termination()
    forcing: AbstractForcing = EisenstatWalker()
    memory: AbstractMemoryPolicy | AbstractMemoryChoice = AutoMemory()
    memory_limit: int = eqx.field(static=True, default=2**31)
    form: Form = eqx.field(static=True, default=Form.auto)
    acceptance: AbstractAcceptance = Descent()
    max_trials: int = eqx.field(static=True, default=16)
    damping_floor: Scalar = 64.0

    def __check_init__(self):
        for name, kinds in _FIELD_KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds):
                names = " or ".join(f"`gramlm.{kind.__name__}`" for kind in kinds)
                raise TypeError(f"`LevenbergMarquardt({name}=…)` must be a {names}; got {value!r}.")
        if isinstance(self.memory_limit, bool) or self.memory_limit < 1:
            raise ValueError(
                f"`memory_limit` is a positive number of bytes; got {self.memory_limit}."
            )
        if self.max_trials < 1:
            raise ValueError(f"`max_trials` must be at least 1; got {self.max_trials}.")
        if isinstance(self.damping_floor, float | int) and not self.damping_floor >= 0:
            raise ValueError(f"`damping_floor` must not be negative; got {self.damping_floor}.")

    @jaxtyped(typechecker=beartype)
    def init(
        self,
        residual_fn: Callable[..., Any],
        params: PyTree,
        args: PyTree = None,
        *,
        has_aux: bool = False,
    ) -> State:
        """The state before the first step."""
        return self.init_flat(*flat_problem(residual_fn, params, args, has_aux))

    @jaxtyped(typechecker=beartype)
    def plan(
        self,
        residual_fn: Callable[..., Any],
        params: PyTree,
        args: PyTree = None,
        *,
        has_aux: bool = False,
    ) -> Plan:
        """What is chosen for this problem: the linear solver, the memory policy, their sizes.

        Where much depends on it, and outside of a transformation, it is measured what a
        product with J costs, for one vector and for several. `solver.following(plan)` is the
        solver with these choices made; `gramlm.solve` plans by itself.
        """
        problem, flat = flat_problem(residual_fn, params, args, has_aux)
        plan = self.plan_flat(problem, flat)
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((problem, flat)))
        if traced or not wants_measurement(plan.size, self.linear_solver, self.memory):
            return plan
        costs = measured(residual_fn, plan.memory, problem.function, flat)
        return self.plan_flat(problem, flat, costs)

    def following(self, plan: Plan) -> "LevenbergMarquardt":
        """This solver with the choices of a plan."""
        return eqx.tree_at(
            lambda solver: (solver.linear_solver, solver.memory),
            self,
            (plan.linear_solver, plan.memory),
            is_leaf=lambda node: node is None,
        )

    def _rules(self) -> Rules:
        return Rules(
            damping=self.damping,
            forcing=self.forcing,
            acceptance=self.acceptance,
            correction=self.correction,
            damping_floor=self.damping_floor,
        )

    def best(self, params: Params, state: State, *, free: PyTree = None) -> Params:
        """The parameters of the lowest cost so far; those given, where no step goes uphill.

        `free` as in `gramlm.Problem`.
        """
        spec, flat = as_parameters(params, free)
        infinite = jnp.full((), jnp.inf, flat.dtype)
        return spec.unflatten(self.acceptance.best(state.rules.acceptance, flat, infinite)[0])

    def plan_flat(
        self,
        problem: FlatProblem,
        flat: Float[Array, " p"],
        costs: ProductCosts | None = None,
    ) -> Plan:
        """`plan` for a problem in flat vectors; measures nothing."""
        function = problem.function
        size = ProblemSize(
            residuals=function.size,
            params=flat.size,
            itemsize=flat.dtype.itemsize,
            cheap_rows=isinstance(function, RowResidual),
            accelerator=jax.default_backend() != "cpu",
            memory_limit=self.memory_limit,
            bounded=problem.box is not None,
            costs=costs,
        )
        memory, linear = self.memory, self.linear_solver
        if isinstance(memory, AbstractMemoryChoice):
            memory = memory.choose(size)
        if isinstance(linear, AbstractSolverChoice):
            linear = linear.choose(size)
        return Plan(size, linear, memory)

    def init_flat(self, problem: FlatProblem, flat: Float[Array, " p"]) -> State:
        """`init` for a problem in flat vectors."""
        plan = self.plan_flat(problem, flat)
        flat = problem.project(flat)
        residual = problem.prepared(plan.memory.prepare).residual(flat)
        infinite = jnp.full((), jnp.inf, flat.dtype)
        return State(
            step=jnp.zeros((), jnp.int32),
            rules=RuleStates(
                damping=self.damping.init(jnp.ones((), flat.dtype)),
                forcing=self.forcing.init(flat),
                acceptance=self.acceptance.init(flat),
            ),
            metric=self.metric.init(flat),
            recycled=plan.linear_solver.init(jnp.zeros_like(residual), flat, self.form),
            fresh=jnp.asarray(True),
            scale=residual_scale(largest_entry(residual)),
            probe=scattered_signs(flat.size, flat.dtype),
            columns=jnp.zeros_like(flat),
            creeping_from=infinite,
            least_predicted=infinite,
            lowest_cost=infinite,
            finite=jnp.asarray(True),
            initial_cost=infinite,
        )

    @jaxtyped(typechecker=beartype)
    def step(
        self,
        residual_fn: Callable[..., Any],
        params: Params,
        state: State,
        args: PyTree = None,
        *,
        has_aux: bool = False,
    ) -> tuple[Params, State, StepInfo]:
        """One Jacobian at `params`, and trials with it until one is accepted.

        Returns the new parameters (those given, bit for bit, if none was accepted and they are
        within their bounds), the new state, and a `StepInfo`. `args` may hold other data at each
        step.
        """
        problem, flat = flat_problem(residual_fn, params, args, has_aux)
        flat, state, info = self.step_flat(problem, flat, state)
        return problem.params_spec.unflatten(flat), state, info

    def step_flat(
        self, problem: FlatProblem, flat: Float[Array, " p"], state: State
    ) -> tuple[Float[Array, " p"], State, StepInfo]:
        """`step` for a problem in flat vectors."""
        plan = self.plan_flat(problem, flat)
        problem = problem.divided(state.scale).prepared(plan.memory.prepare)
        flat = problem.project(flat)
        at, products = plan.linear_solver.linearise(plan.memory, problem.function, flat)
        model = Model.of(problem, at)
        before = either(state.fresh, self.metric.init(flat), state.metric)
        metric, metric_state, used = self.metric.update(before, model.at, state.step)
        model, gradient = model.within(problem.box, flat)
        at = model.at
        first = state.step == 0
        largest, probe, power_products = largest_eigenvalue(
            at, metric, gradient, state.probe, first
        )
        gradient_norm = dual_norm(metric, gradient)
        stationarity = stationarity_at(
            at, flat, gradient, gradient_norm, largest, jnp.where(state.fresh, 0, state.columns)
        )
        point = Point(
            problem=problem,
            params=flat,
            model=model,
            metric=metric,
            gradient=gradient,
            gradient_norm=gradient_norm,
            largest=largest,
            stationarity=stationarity,
            termination=self.termination,
            noise=stationarity.noise,
            scale=state.scale,
            initial_cost=jnp.where(first, jnp.inf, state.initial_cost),
            lowest_cost=jnp.where(state.fresh, jnp.inf, state.lowest_cost),
            creeping_from=jnp.where(state.fresh, jnp.inf, state.creeping_from),
            least_predicted=jnp.where(state.fresh, jnp.inf, state.least_predicted),
        )
        recycled = _fitting(state.recycled, plan.linear_solver.init(at.residual, flat, self.form))

        def factorise(at: AbstractLinearisation, recycled: PyTree[Any]) -> AbstractFactorisation:
            return plan.linear_solver.factorise(at, metric, largest, self.form, recycled)

        states = state.rules
        damping = either(state.fresh, self.damping.init(largest), states.damping)
        states = dataclasses.replace(states, damping=damping)
        trials = Trials.start(point, states, state.finite)
        trials, recycled = attempts(
            self._rules(), point, factorise, trials, recycled, self.max_trials
        )
        # Beside the linear algebra: the gradient, and the product in `rounding`.
        info = describe(point, trials, products + used + power_products + 2, first)
        new = jnp.where(trials.accepted, trials.params, flat)
        following = next_scale(trials.residual_size, state.scale)
        scale = jnp.where(trials.accepted, following, state.scale)
        next_state = State(
            step=state.step + 1,
            rules=trials.rules,
            metric=either(point.finite, metric_state, before),
            recycled=recycled,
            fresh=scale != state.scale,
            scale=scale,
            probe=probe,
            columns=stationarity.longest,
            creeping_from=point.creeps_from(trials.accepted, trials.cost),
            least_predicted=jnp.where(
                trials.accepted,
                jnp.minimum(point.least_predicted, trials.predicted),
                point.least_predicted,
            ),
            lowest_cost=jnp.fmin(point.lowest_cost, point.cost),
            finite=trials.finite,
            initial_cost=point.first_cost,
        )
        return new, next_state, info


_FIELD_KINDS = {
    "linear_solver": (AbstractGramSolver, AbstractSolverChoice),
    "damping": (AbstractDamping,),
    "acceptance": (AbstractAcceptance,),
    "metric": (AbstractMetric,),
    "correction": (AbstractCorrection, type(None)),
    "forcing": (AbstractForcing,),
    "termination": (Termination,),
    "memory": (AbstractMemoryPolicy, AbstractMemoryChoice),
    "form": (Form,),
}
