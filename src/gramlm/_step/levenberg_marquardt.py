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
from .._core.scale import largest_entry, residual_scale
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
from .._model.metric import AbstractMetric, PowerMetric
from .._problem.build import flat_problem
from .._problem.flat import FlatProblem
from .corrected import stepper_of
from .info import StepInfo
from .phases import Linearised, concluded, linearised
from .rules.acceptance import AbstractAcceptance, Monotone
from .rules.correction import AbstractCorrection, Geodesic
from .rules.damping.base import AbstractDamping
from .rules.damping.trust_region import TrustRegion
from .rules.forcing import AbstractForcing, EisenstatWalker
from .rules.rules import Rules
from .rules.termination import Termination
from .search import Search
from .state import Past, State, either
from .trial import Trials
from .verdict import any_of, arrived

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

    - `linear_solver`: how the system is solved; a `gramlm.extend.AbstractGramSolver`, or any
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
        import equinox as eqx
        import jax.numpy as jnp
        import gramlm


        def residual(params, data):
            x, y = data
            return jnp.tanh(params[0] * x) + params[1] - y


        x = jnp.linspace(-1.0, 1.0, 10)
        batches = [(x[i::2], jnp.tanh(2 * x[i::2]) + 1) for i in (0, 1, 0, 1)]
        params = jnp.ones(2)
        solver = gramlm.LevenbergMarquardt(damping=gramlm.Nielsen())
        state = solver.init(residual, params, batches[0])
        step = eqx.filter_jit(solver.step)
        for batch in batches:
            params, state, info = step(residual, params, state, batch)
        assert info.cost < 1e-6
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
    acceptance: AbstractAcceptance = Monotone()
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

    @property
    def rules(self) -> Rules:
        """What decides on a trial."""
        return Rules(
            damping=self.damping,
            forcing=self.forcing,
            acceptance=self.acceptance,
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
            cheap_rows=function.cheap_rows,
            accelerator=jax.default_backend() != "cpu",
            memory_limit=self.memory_limit,
            bounded=problem.box.bounded,
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
        flat = problem.box.project(flat)
        residual = problem.prepared(plan.memory.prepare).residual(flat)
        one = jnp.ones((), flat.dtype)
        return State(
            step=jnp.zeros((), jnp.int32),
            rules=self.rules.init(flat, one),
            metric=self.metric.init(flat),
            recycled=plan.linear_solver.init(jnp.zeros_like(residual), flat, self.form),
            past=Past.nothing(flat),
            fresh=jnp.asarray(True),
            scale=residual_scale(largest_entry(residual)),
            probe=scattered_signs(flat.size, flat.dtype),
            finite=jnp.asarray(True),
            initial_cost=jnp.inf * one,
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
        """`step` for a problem in flat vectors: linearise, try, conclude."""
        plan = self.plan_flat(problem, flat)
        problem = problem.divided(state.scale).prepared(plan.memory.prepare)
        at = linearised(plan, self.metric, problem, problem.box.project(flat), state)
        trials, recycled = self._tried(plan, at, state)
        return concluded(self.termination, at, trials, recycled, state)

    def _tried(self, plan: Plan, at: Linearised, state: State) -> tuple[Trials, PyTree[Any]]:
        """Trials from a point, and what the linear solver recycles."""
        point, linear, form = at.point, plan.linear_solver, self.form

        def factorise(here: AbstractLinearisation, recycled: PyTree[Any]) -> AbstractFactorisation:
            return linear.factorise(here, point.metric, point.largest, form, recycled)

        damping = either(state.fresh, self.damping.init(point.largest), state.rules.damping)
        start = Trials.start(
            point.params,
            point.cost,
            rules=dataclasses.replace(state.rules, damping=damping),
            hopeless=any_of(arrived(self.termination, point)) | ~point.finite,
            finite=state.finite,
            search=point.region.start(),
        )
        stepper = stepper_of(self.correction)
        search = Search(point, self.rules, stepper, factorise, self.max_trials)
        fresh = linear.init(point.model.at.residual, point.params, form)
        return search.from_start(start, _fitting(state.recycled, fresh))


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
