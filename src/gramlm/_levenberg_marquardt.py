"""The Levenberg–Marquardt driver: one Jacobian, and trials until one is accepted."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from beartype import beartype
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PyTree, jaxtyped

from ._correction import AbstractCorrection, Geodesic, corrected_step
from ._damping.base import AbstractDamping, Trial
from ._damping.trust_region import TrustRegion
from ._diagnosis import describe
from ._forcing import AbstractForcing, EisenstatWalker
from ._gram_solver.base import AbstractFactorisation, AbstractGramSolver, Form
from ._gram_solver.lineax_adapter import LineaxSolver
from ._linearisation import AbstractMemoryPolicy
from ._metric import AbstractMetric, PowerMetric
from ._misc import Scalar, dot, norm, scattered_signs
from ._plan import (
    AbstractMemoryChoice,
    AbstractSolverChoice,
    AutoMemory,
    AutoSolver,
    Plan,
    ProblemSize,
    wants_measurement,
)
from ._product_costs import ProductCosts, measured
from ._residual.base import AbstractResidual
from ._residual.canonical import canonical
from ._residual.rows import RowResidual
from ._scale import largest_entry, next_scale, residual_scale
from ._solution import StepInfo
from ._spectrum import largest_eigenvalue
from ._step_lengths import StepLengths
from ._termination import Termination
from ._trial import Point, Trials, best_candidate, column_lengths

Params = TypeVar("Params", bound=PyTree)


class State(eqx.Module):
    """What a solver carries from one Jacobian to the next.

    **Attributes:** `step`, Jacobians so far; `damping` and `metric`, the states of those rules;
    `probe`, (p,), the direction of the largest eigenvalue of K; `scale`, a power of two by which
    residuals are divided, 1 unless their squares come near to overflow or underflow; `fresh`,
    whether the rules start anew with the next Jacobian, at the start and when the scale has
    changed; `columns`, (p,), the largest lengths so far of the columns of J, 0 where it is not
    stored.
    """

    step: Int[Array, ""]
    scale: Float[Array, ""]
    fresh: Bool[Array, ""]
    columns: Float[Array, " p"]
    damping: PyTree[Any]
    metric: PyTree[Any]
    probe: Float[Array, " p"]
    forcing: PyTree[Any]
    recycled: PyTree[Any]


def _as_gram_solver(solver: Any) -> Any:
    return LineaxSolver(solver) if isinstance(solver, lx.AbstractLinearSolver) else solver


def _fitting(recycled: PyTree[Any], fresh: PyTree[Any]) -> PyTree[Any]:
    """What is recycled, or a new start where data of another size have made it worthless."""
    same = jax.tree.map(jnp.shape, recycled) == jax.tree.map(jnp.shape, fresh)
    return recycled if same else fresh


def _either(first: Bool[Array, ""], yes: PyTree[Any], no: PyTree[Any]) -> PyTree[Any]:
    """One of two states."""
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), yes, no)


def _equal(a: PyTree[Any], b: PyTree[Any]) -> Bool[Array, ""]:
    """Whether two states are the same, of one entry or more."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    same = [jnp.all(x == y) for x, y in pairs]
    return jnp.all(jnp.stack(same)) if same else jnp.asarray(True)


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
    - `min_gain`: a trial is accepted if its gain ratio exceeds this.
    - `max_trials`: values of λ tried with one Jacobian.
    - `damping_floor`: λ is at least this multiple of the rounding of K, `ε·λmax(K)`, or of
      `ε²·λmax(K)` for the small systems whose J is factorised without forming K.

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
    min_gain: Scalar = 1e-4
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
        if isinstance(self.min_gain, float | int) and not 0 <= self.min_gain < 1:
            raise ValueError(f"`min_gain` must be at least 0 and below 1; got {self.min_gain}.")
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
        return self.init_flat(*canonical(residual_fn, params, args, has_aux))

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
        function, flat = canonical(residual_fn, params, args, has_aux)
        plan = self.plan_flat(function, flat)
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((function, flat)))
        if traced or not wants_measurement(plan.size, self.linear_solver, self.memory):
            return plan
        return self.plan_flat(function, flat, measured(residual_fn, plan.memory, function, flat))

    def following(self, plan: Plan) -> "LevenbergMarquardt":
        """This solver with the choices of a plan."""
        return eqx.tree_at(
            lambda solver: (solver.linear_solver, solver.memory),
            self,
            (plan.linear_solver, plan.memory),
            is_leaf=lambda node: node is None,
        )

    def plan_flat(
        self,
        function: AbstractResidual,
        flat: Float[Array, " p"],
        costs: ProductCosts | None = None,
    ) -> Plan:
        """`plan` for a canonical residual and a flat parameter vector; measures nothing."""
        size = ProblemSize(
            residuals=function.size,
            params=flat.size,
            itemsize=flat.dtype.itemsize,
            cheap_rows=isinstance(function, RowResidual),
            accelerator=jax.default_backend() != "cpu",
            memory_limit=self.memory_limit,
            costs=costs,
        )
        memory, linear = self.memory, self.linear_solver
        if isinstance(memory, AbstractMemoryChoice):
            memory = memory.choose(size)
        if isinstance(linear, AbstractSolverChoice):
            linear = linear.choose(size)
        return Plan(size, linear, memory)

    def init_flat(self, function: AbstractResidual, flat: Float[Array, " p"]) -> State:
        """`init` for a canonical residual and a flat parameter vector."""
        plan = self.plan_flat(function, flat)
        residual = plan.memory.prepare(function)(flat)
        return State(
            step=jnp.zeros((), jnp.int32),
            scale=residual_scale(largest_entry(residual)),
            fresh=jnp.asarray(True),
            columns=jnp.zeros_like(flat),
            damping=self.damping.init(jnp.ones((), flat.dtype)),
            metric=self.metric.init(flat),
            probe=scattered_signs(flat.size, flat.dtype),
            forcing=self.forcing.init(flat),
            recycled=plan.linear_solver.init(jnp.zeros_like(residual), flat, self.form),
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

        Returns the new parameters (those given, bit for bit, if none was accepted), the new
        state, and a `StepInfo`. `args` may hold other data at each step.
        """
        function, flat = canonical(residual_fn, params, args, has_aux)
        flat, state, info = self.step_flat(function, flat, state)
        return function.params_spec.unflatten(flat), state, info

    def step_flat(
        self, function: AbstractResidual, flat: Float[Array, " p"], state: State
    ) -> tuple[Float[Array, " p"], State, StepInfo]:
        """`step` for a canonical residual and a flat parameter vector."""
        plan = self.plan_flat(function, flat)
        function = plan.memory.prepare(function.divided(state.scale))
        at, products = plan.linear_solver.linearise(plan.memory, function, flat)
        before = _either(state.fresh, self.metric.init(flat), state.metric)
        metric, metric_state, used = self.metric.update(before, at, state.step)
        gradient = at.vjp(at.residual)
        first = state.step == 0
        largest, probe, power_products = largest_eigenvalue(
            at, metric, gradient, state.probe, first
        )
        columns = column_lengths(at)
        longest = jnp.maximum(jnp.where(state.fresh, 0, state.columns), columns)
        point = Point(
            function, flat, at, metric, gradient, largest, self.termination, state.scale,
            columns, jnp.where(jnp.isfinite(longest), longest, state.columns),
        )  # fmt: skip
        recycled = _fitting(state.recycled, plan.linear_solver.init(at.residual, flat, self.form))
        factors = plan.linear_solver.factorise(at, metric, largest, self.form, recycled)

        damping = _either(state.fresh, self.damping.init(largest), state.damping)
        trials = self._trials(point, factors, damping, state.forcing)
        # Beside the linear algebra: the gradient, and the product in `rounding_cost`.
        info = describe(point, trials, products + used + power_products + 2, first)
        new = jnp.where(trials.accepted, trials.params, flat)
        following = next_scale(trials.residual_size, state.scale)
        scale = jnp.where(trials.accepted, following, state.scale)
        rescaled = scale != state.scale
        next_state = State(
            step=state.step + 1,
            scale=scale,
            fresh=rescaled,
            columns=point.longest_columns,
            damping=trials.damping_state,
            metric=_either(point.finite, metric_state, before),
            probe=probe,
            forcing=trials.forcing_state,
            recycled=factors.recycle(trials.work),
        )
        return new, next_state, info

    def _trials(
        self, point: Point, factors: AbstractFactorisation, damping: PyTree, forcing: PyTree
    ) -> Trials:
        """Tries values of λ until a trial is accepted, or until there is no hope."""

        def unfinished(trials: Trials):
            return ~trials.accepted & ~trials.hopeless & (trials.made < self.max_trials)

        def attempt(trials: Trials) -> Trials:
            return self._attempt(point, factors, trials)

        start = Trials.start(point, damping, forcing, factors.work)
        return jax.lax.while_loop(unfinished, attempt, start)

    def _attempt(self, point: Point, factors: AbstractFactorisation, trials: Trials) -> Trials:
        """One trial: λ, the step, its correction, the cost there, and the verdict."""
        residual = point.at.residual
        velocity_tolerance = self.forcing.velocity(trials.forcing_state)
        floor = jnp.asarray(self.damping_floor) * factors.rounding
        lengths = StepLengths(
            factors, residual, point.metric, floor, trials.work, velocity_tolerance
        )
        found = self.damping.propose(trials.damping_state, lengths)
        value = jnp.maximum(found.damping, floor)
        system = factors.at(value)
        corrected = corrected_step(
            self.correction,
            point.function,
            point.params,
            residual,
            point.metric,
            system,
            found.work,
            velocity_tolerance,
            self.forcing.acceleration(trials.forcing_state),
        )
        velocity = corrected.velocity
        candidate = best_candidate(point, corrected)

        predicted = velocity.predicted_decrease(residual)
        gain_ratio = jnp.where(
            candidate.finite & (predicted > 0), candidate.decrease / predicted, -jnp.inf
        )
        # Another program may round another way, so that standing still seems to gain.
        moved = jnp.any(candidate.params != point.params)
        accepted = velocity.solved & moved & (gain_ratio > self.min_gain)
        trial = Trial(
            damping=value,
            length=corrected.length,
            gain_ratio=gain_ratio,
            decrease=candidate.decrease,
            slope=dot(residual, velocity.image),
        )
        rejected_state = self.damping.rejected(trials.damping_state, trial)
        damping_state = _either(
            accepted, self.damping.accepted(trials.damping_state, trial), rejected_state
        )
        forcing_state = _either(
            accepted,
            self.forcing.accepted(trials.forcing_state, point.cost, candidate.cost),
            trials.forcing_state,
        )

        step_norm = norm(candidate.step)
        vanishing = jnp.finfo(step_norm.dtype).eps * norm(point.params)
        repeated = _equal(rejected_state, trials.damping_state)  # the rule has nothing else to try
        # Nor is there anything to gain from more damping where the rounding of the cost is more
        # than a step with little of it promises. One that promises an increase is a bad solution.
        noise = point.termination.noise(point.cost)
        predicted = jnp.where(velocity.solved & (predicted >= -noise), predicted, jnp.inf)
        nothing_left = (predicted <= noise) & (value <= point.largest)
        return Trials(
            made=trials.made + 1,
            params=candidate.params,
            cost=candidate.cost,
            residual_size=candidate.size,
            damping_state=damping_state,
            damping=value,
            accepted=accepted,
            hopeless=~accepted & ((step_norm <= vanishing) | ~moved | repeated | nothing_left),
            finite=trials.finite | (candidate.finite & moved),
            solved=trials.solved | velocity.solved,
            gain_ratio=gain_ratio,
            predicted=predicted,
            least_predicted=jnp.where(trials.made == 0, predicted, trials.least_predicted),
            least_damping=jnp.where(trials.made == 0, value, trials.least_damping),
            step_norm=step_norm,
            acceleration_ratio=corrected.ratio,
            used_acceleration=candidate.corrected,
            evaluations=trials.evaluations + candidate.evaluations,
            iterations=trials.iterations + found.iterations + corrected.iterations,
            products=trials.products + found.products + system.setup_products + corrected.products,
            linear_residual=velocity.relative_residual,
            forcing_state=forcing_state,
            work=corrected.work,
        )


_FIELD_KINDS = {
    "linear_solver": (AbstractGramSolver, AbstractSolverChoice),
    "damping": (AbstractDamping,),
    "metric": (AbstractMetric,),
    "correction": (AbstractCorrection, type(None)),
    "forcing": (AbstractForcing,),
    "termination": (Termination,),
    "memory": (AbstractMemoryPolicy, AbstractMemoryChoice),
    "form": (Form,),
}
