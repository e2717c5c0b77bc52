"""The Levenberg–Marquardt driver: one Jacobian, and trials until one is accepted."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._correction import AbstractCorrection, Geodesic
from ._damping import AbstractDamping, Nielsen
from ._gram_solver.auto import AutoSolver
from ._gram_solver.base import AbstractFactorisation, AbstractGramSolver, Form
from ._gram_solver.lineax_adapter import LineaxSolver
from ._linearisation import AbstractLinearisation, AbstractMemoryPolicy, AutoMemory
from ._metric import AbstractMetric, PowerMetric, dual_norm, metric_inverse, metric_norm
from ._misc import (
    Scalar,
    all_finite,
    dot,
    norm,
    safe_divide,
    scattered_signs,
    sum_squares,
)
from ._residual import AbstractResidual, canonical
from ._solution import CRITERIA, RESULTS, StepInfo
from ._termination import Termination

Params = TypeVar("Params", bound=PyTree)

# Power iterations for λmax(K): from scratch, and from the vector of the last Jacobian.
_FIRST_POWER_ITERATIONS = 10
_POWER_ITERATIONS = 2


class State(eqx.Module):
    """What a solver carries from one Jacobian to the next.

    **Attributes:** `step`, Jacobians so far; `damping` and `metric`, the states of those rules;
    `probe`, (p,), the direction of the largest eigenvalue of K.
    """

    step: Int[Array, ""]
    damping: PyTree[Any]
    metric: PyTree[Any]
    probe: Float[Array, " p"]


def _as_gram_solver(solver: Any) -> Any:
    return LineaxSolver(solver) if isinstance(solver, lx.AbstractLinearSolver) else solver


class LevenbergMarquardt(eqx.Module):
    """Levenberg–Marquardt: minimises `½‖r(θ)‖²` by steps `δ = −M⁻¹Jᵀ(JM⁻¹Jᵀ + λI)⁻¹ r`.

    Its fields are the choices, each with an abstract class to write one's own:

    - `linear_solver`: how the system is solved; a `gramlm.AbstractGramSolver`, or any
      `lineax.AbstractLinearSolver`. By size unless given.
    - `damping`: how λ is chosen. `metric`: the M in which steps are measured.
    - `correction`: what is added to the step beyond the linear model.
    - `termination`: the tolerances.
    - `memory`: what is stored between products with J: `Keep`, `Recompute`, `RowBlocks`, or
      `AutoMemory`, by size.
    - `form`: `Form.dual`, `Form.normal`, or the cheaper.
    - `min_gain`: a trial is accepted if its gain ratio exceeds this.
    - `max_trials`: values of λ tried with one Jacobian.
    - `damping_floor`: λ is at least this multiple of `ε·λmax(K)`. Much below 1 a step from K is
      rounding; `DenseSolver` changes to an orthogonal factorisation of J there.

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

    linear_solver: AbstractGramSolver = eqx.field(
        default_factory=AutoSolver, converter=_as_gram_solver
    )
    damping: AbstractDamping = Nielsen()
    metric: AbstractMetric = PowerMetric(0.5)
    correction: AbstractCorrection = Geodesic()
    termination: Termination = Termination()
    memory: AbstractMemoryPolicy = AutoMemory()
    form: Form = eqx.field(static=True, default=Form.auto)
    min_gain: Scalar = 1e-4
    max_trials: int = eqx.field(static=True, default=16)
    damping_floor: Scalar = 64.0

    def __check_init__(self):
        for name, kind in _FIELD_KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(
                    f"`LevenbergMarquardt({name}=…)` must be a `gramlm.{kind.__name__}`; got "
                    f"{value!r}."
                )
        if self.max_trials < 1:
            raise ValueError(f"`max_trials` must be at least 1; got {self.max_trials}.")
        if isinstance(self.min_gain, float | int) and not 0 <= self.min_gain < 1:
            raise ValueError(f"`min_gain` must be at least 0 and below 1; got {self.min_gain}.")
        if isinstance(self.damping_floor, float | int) and not self.damping_floor >= 0:
            raise ValueError(f"`damping_floor` must not be negative; got {self.damping_floor}.")

    def init(
        self,
        residual_fn: Callable[..., Any],
        params: PyTree,
        args: PyTree = None,
        *,
        has_aux: bool = False,
    ) -> State:
        """The state before the first step."""
        _, flat = canonical(residual_fn, params, args, has_aux)
        return self.init_flat(flat)

    def init_flat(self, flat: Float[Array, " p"]) -> State:
        """`init` for a flat parameter vector."""
        return State(
            step=_zero(),
            damping=self.damping.init(jnp.ones((), flat.dtype)),
            metric=self.metric.init(flat),
            probe=scattered_signs(flat.size, flat.dtype),
        )

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
        function = self.memory.prepare(function)
        at, products = self.linear_solver.linearise(self.memory, function, flat)
        metric, metric_state, used = self.metric.update(state.metric, at, state.step)
        gradient = at.vjp(at.residual)
        largest, probe, power_products = _largest_eigenvalue(at, metric, gradient, state)
        point = _Point(function, flat, at, metric, gradient, largest, self.termination)
        factors = self.linear_solver.factorise(at, metric, largest, self.form)

        first = state.step == 0
        damping = jax.tree.map(
            lambda new, old: jnp.where(first, new, old), self.damping.init(largest), state.damping
        )
        trials = self._trials(point, factors, damping)
        # Beside the linear algebra: the gradient, and the product in `rounding_cost`.
        info = _describe(point, trials, products + used + power_products + 2, first)
        new = jnp.where(trials.accepted, trials.params, flat)
        next_state = State(
            step=state.step + 1,
            damping=trials.damping_state,
            metric=jax.tree.map(
                lambda a, b: jnp.where(point.finite, a, b), metric_state, state.metric
            ),
            probe=jnp.where(all_finite(probe), probe, state.probe),
        )
        return new, next_state, info

    def _trials(
        self, point: "_Point", factors: AbstractFactorisation, damping: PyTree
    ) -> "_Trials":
        """Tries values of λ until a trial is accepted, or until there is no hope."""

        def unfinished(trials: _Trials):
            return ~trials.accepted & ~trials.hopeless & (trials.made < self.max_trials)

        def attempt(trials: _Trials) -> _Trials:
            return self._attempt(point, factors, trials)

        start = _Trials.start(point, damping)
        return jax.lax.while_loop(unfinished, attempt, start)

    def _attempt(
        self, point: "_Point", factors: AbstractFactorisation, trials: "_Trials"
    ) -> "_Trials":
        """One trial: λ, the step, its correction, the cost there, and the verdict."""
        floor = self.damping_floor * jnp.finfo(point.params.dtype).eps * point.largest
        value = jnp.maximum(self.damping.value(trials.damping_state), floor)
        system = factors.at(value)
        velocity = system.solve(point.at.residual)
        correction = self.correction.correct(
            point.function, point.params, point.metric, system, velocity
        )
        candidate = _best_candidate(point, velocity.step, correction)

        predicted = velocity.predicted_decrease(point.at.residual)
        gain_ratio = jnp.where(
            candidate.finite & (predicted > 0), candidate.decrease / predicted, -jnp.inf
        )
        accepted = velocity.solved & (gain_ratio > self.min_gain)
        damping_state = jax.tree.map(
            lambda yes, no: jnp.where(accepted, yes, no),
            self.damping.accepted(trials.damping_state, value, gain_ratio),
            self.damping.rejected(trials.damping_state, value, gain_ratio),
        )
        following = self.damping.value(damping_state)

        step_norm = norm(candidate.step)
        vanishing = jnp.finfo(step_norm.dtype).eps * norm(point.params)
        repeated = jnp.maximum(following, floor) == value  # the rule has nothing else to try
        predicted = jnp.where(velocity.solved, predicted, jnp.inf)
        return _Trials(
            made=trials.made + 1,
            params=candidate.params,
            cost=candidate.cost,
            damping_state=damping_state,
            damping=value,
            damping_factor=following / value,
            accepted=accepted,
            hopeless=~accepted & ((step_norm <= vanishing) | repeated),
            finite=trials.finite | (candidate.finite & jnp.any(candidate.params != point.params)),
            solved=trials.solved | velocity.solved,
            gain_ratio=gain_ratio,
            predicted=predicted,
            least_predicted=jnp.where(trials.made == 0, predicted, trials.least_predicted),
            least_damping=jnp.where(trials.made == 0, value, trials.least_damping),
            step_norm=step_norm,
            acceleration_ratio=candidate.ratio,
            used_acceleration=candidate.corrected,
            evaluations=trials.evaluations + candidate.evaluations,
            iterations=trials.iterations + velocity.iterations + candidate.iterations,
            products=trials.products
            + system.setup_products
            + velocity.products
            + candidate.products,
            linear_residual=velocity.relative_residual,
        )


_FIELD_KINDS = {
    "linear_solver": AbstractGramSolver,
    "damping": AbstractDamping,
    "metric": AbstractMetric,
    "correction": AbstractCorrection,
    "termination": Termination,
    "memory": AbstractMemoryPolicy,
    "form": Form,
}


def _zero() -> Int[Array, ""]:
    return jnp.zeros((), jnp.int32)


class _Point(eqx.Module):
    """Everything known at the iterate before a step is tried."""

    function: AbstractResidual
    params: Float[Array, " p"]
    at: AbstractLinearisation
    metric: lx.AbstractLinearOperator
    gradient: Float[Array, " p"]
    largest: Float[Array, ""]
    termination: Termination

    @property
    def cost(self) -> Float[Array, ""]:
        return 0.5 * sum_squares(self.at.residual)

    @property
    def finite(self) -> Bool[Array, ""]:
        return all_finite(self.at.residual) & all_finite(self.gradient) & jnp.isfinite(self.largest)

    @property
    def gradient_norm(self) -> Float[Array, ""]:
        return dual_norm(self.metric, self.gradient)

    @property
    def relative_gradient(self) -> Float[Array, ""]:
        return safe_divide(self.gradient_norm, jnp.sqrt(self.largest) * norm(self.at.residual))

    def arrived(self) -> CRITERIA:
        """The tolerance that the point itself meets, if any."""
        vanished = jnp.all(self.at.residual == 0)
        return self.termination.at_iterate(self.cost, vanished, self.relative_gradient)

    def rounding_cost(self) -> Float[Array, ""]:
        """`½‖ε J(θ ∘ z)‖²` for scattered signs z: the cost of rounding the parameters once."""
        signs = scattered_signs(self.params.size, self.params.dtype)
        eps = jnp.finfo(self.params.dtype).eps
        return 0.5 * sum_squares(self.at.jvp(eps * signs * self.params))


class _Trials(NamedTuple):
    """The last trial of a step, and sums over all of them."""

    made: Array
    params: Array
    cost: Array
    damping_state: PyTree
    damping: Array
    damping_factor: Array
    accepted: Array
    hopeless: Array
    finite: Array
    solved: Array
    gain_ratio: Array
    predicted: Array
    least_predicted: Array  # of the first trial, which is the least damped
    least_damping: Array
    step_norm: Array
    acceleration_ratio: Array
    used_acceleration: Array
    evaluations: Array
    iterations: Array
    products: Array
    linear_residual: Array

    @classmethod
    def start(cls, point: _Point, damping: PyTree) -> "_Trials":
        zero = jnp.zeros((), point.params.dtype)
        no, none = jnp.asarray(False), _zero()
        arrived = point.arrived()
        return cls(
            made=none,
            params=point.params,
            cost=point.cost,
            damping_state=damping,
            damping=zero,
            damping_factor=jnp.ones_like(zero),
            accepted=no,
            hopeless=(arrived != CRITERIA.none) | ~point.finite,
            finite=no,
            solved=no,
            gain_ratio=zero,
            predicted=zero,
            least_predicted=zero,
            least_damping=zero,
            step_norm=zero,
            acceleration_ratio=zero,
            used_acceleration=no,
            evaluations=none,
            iterations=none,
            products=none,
            linear_residual=zero,
        )


class _Candidate(NamedTuple):
    params: Array
    step: Array
    cost: Array
    decrease: Array
    finite: Array
    corrected: Array
    ratio: Array
    evaluations: Array
    iterations: Array
    products: Array


def _best_candidate(point: _Point, velocity, correction) -> _Candidate:
    """The plain step, or the corrected one if it is usable and no worse."""
    residual = point.at.residual

    def evaluate(params):
        r = point.function(params)
        # (½‖r‖² − ½‖r'‖²) without the cancellation of nearly equal sums.
        decrease = 0.5 * dot(residual - r, residual + r)
        finite = all_finite(r)
        return 0.5 * sum_squares(r), jnp.where(finite, decrease, -jnp.inf)

    none = _zero()
    if correction is None:
        params = point.params + velocity
        cost, decrease = evaluate(params)
        return _Candidate(
            params, velocity, cost, decrease, jnp.isfinite(cost),
            jnp.asarray(False), jnp.zeros_like(cost), none + 1, none, none,
        )  # fmt: skip

    steps = jnp.stack([velocity, velocity + correction.step])
    wanted = jnp.stack([jnp.asarray(True), correction.usable])
    minus_infinity = jnp.full((), -jnp.inf, residual.dtype)

    # One after another under a condition, so that the residual is compiled once and an unusable
    # correction is not evaluated.
    def maybe(candidate):
        params, want = candidate
        skipped = (jnp.full((), jnp.inf, residual.dtype), minus_infinity)
        return jax.lax.cond(want, evaluate, lambda _: skipped, params)

    costs, decreases = jax.lax.map(maybe, (point.params + steps, wanted))
    corrected = correction.usable & (decreases[1] >= decreases[0]) & jnp.isfinite(costs[1])
    pick = jnp.where(corrected, 1, 0)
    return _Candidate(
        point.params + steps[pick], steps[pick], costs[pick], decreases[pick],
        jnp.isfinite(costs[pick]), corrected, correction.ratio,
        1 + correction.usable.astype(none.dtype), correction.iterations, correction.products,
    )  # fmt: skip


def _largest_eigenvalue(
    at: AbstractLinearisation,
    metric: lx.AbstractLinearOperator,
    gradient: Float[Array, " p"],
    state: State,
) -> tuple[Float[Array, ""], Float[Array, " p"], Int[Array, ""]]:
    """λmax(JM⁻¹Jᵀ) by power iteration on `M⁻¹JᵀJ`, continued from the last Jacobian's vector.

    `‖Jᵀr‖²_{M⁻¹}/‖r‖²` is a lower bound on it, so that the relative gradient is at most 1, and
    zero only where the gradient is.
    """
    iterations = jnp.where(state.step == 0, _FIRST_POWER_ITERATIONS, _POWER_ITERATIONS)

    def normalised(x):
        return safe_divide(x, metric_norm(metric, x))

    def iterate(_, carry):
        x, _ = carry
        image = at.jvp(x)
        return normalised(metric_inverse(metric, at.vjp(image))), sum_squares(image)

    # No vector alone is safe: J may annihilate the one, and a small gradient be all rounding.
    downhill = normalised(metric_inverse(metric, gradient))
    aligned = jnp.where(dot(state.probe, gradient) < 0, -1, 1)  # lest the two cancel
    mixed = normalised(state.probe) + aligned * downhill
    start = (normalised(mixed), jnp.zeros((), state.probe.dtype))
    probe, largest = jax.lax.fori_loop(0, iterations, iterate, start)
    bound = safe_divide(dual_norm(metric, gradient), norm(at.residual)) ** 2
    largest = jnp.maximum(largest, bound)
    # J = 0 leaves no direction to continue from.
    probe = jnp.where(largest > 0, probe, state.probe)
    return largest, probe, 2 * iterations


# Where no step helps, a cost of up to this many times that of rounding the parameters is rounding.
_ROUNDING_SLACK = 100.0


def _describe(
    point: _Point, trials: _Trials, products: Int[Array, ""], first: Bool[Array, ""]
) -> StepInfo:
    """The diagnostics of a step, and whether the solve should end with it."""
    termination, cost_before = point.termination, point.cost
    cost = jnp.where(trials.accepted, trials.cost, cost_before)
    arrived = point.arrived()
    after = termination.after_accepted(
        cost_before, cost, trials.predicted, trials.damping > point.largest,
        trials.step_norm, norm(point.params),
    )  # fmt: skip

    resolvable = termination.resolvable(cost.dtype) * cost_before
    nothing_left = (trials.least_predicted <= resolvable) & (trials.least_damping <= point.largest)
    rounding = nothing_left | (cost_before <= _ROUNDING_SLACK * point.rounding_cost())
    exhausted = CRITERIA.where(rounding & trials.solved, CRITERIA.rounding, CRITERIA.none)

    criterion = CRITERIA.where(
        arrived != CRITERIA.none,
        arrived,
        CRITERIA.where(
            trials.accepted,
            after,
            CRITERIA.where(trials.hopeless & point.finite, exhausted, CRITERIA.none),
        ),
    )
    failure = RESULTS.where(
        ~trials.solved,
        RESULTS.linear_solver_failed,
        RESULTS.where(trials.finite, RESULTS.stalled, RESULTS.nonfinite_trials),
    )
    result = RESULTS.where(
        criterion != CRITERIA.none,
        RESULTS.successful,
        RESULTS.where(trials.hopeless & ~trials.accepted, failure, RESULTS.running),
    )
    nonfinite = RESULTS.where(first, RESULTS.nonfinite_start, RESULTS.nonfinite_derivative)
    result = RESULTS.where(point.finite, result, nonfinite)
    criterion = CRITERIA.where(point.finite, criterion, CRITERIA.none)
    return StepInfo(
        cost_before=cost_before,
        cost_candidate=trials.cost,
        cost=cost,
        accepted=trials.accepted,
        gain_ratio=trials.gain_ratio,
        damping=trials.damping,
        damping_factor=trials.damping_factor,
        gradient_norm=point.gradient_norm,
        relative_gradient=point.relative_gradient,
        step_norm=trials.step_norm,
        acceleration_ratio=trials.acceleration_ratio,
        used_acceleration=trials.used_acceleration,
        inner_iterations=trials.iterations,
        linear_residual=trials.linear_residual,
        products=products + trials.products,
        trials=trials.made,
        evaluations=trials.evaluations,
        largest_eigenvalue=point.largest,
        criterion=criterion,
        result=result,
    )
