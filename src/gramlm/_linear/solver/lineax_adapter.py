"""Any lineax solver, on the damped operator made of products with J."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..._core.arrays import Scalar, safe_divide
from ..._core.checks import check_between
from ..._core.reductions import norm
from ..._model.form import Form
from ..._model.linearisation import AbstractLinearisation
from ..._model.memory import AbstractMemoryPolicy
from ..._model.metric import metric_inverse
from ..._model.operators import AbstractDampedOperator, GramOperator, NormalOperator
from ..._problem.residual.base import AbstractResidual
from ..algebra.secular import LengthBound
from .base import (
    AbstractDampedSystem,
    AbstractFactorisation,
    AbstractGramSolver,
    FoundDamping,
    LinearStep,
    damping_by_solves,
    trusted,
)


class LineaxSolver(AbstractGramSolver):
    """Solves the damped system with any `lineax.AbstractLinearSolver`.

    The solver is given a `GramOperator` (or, for n > p, a `NormalOperator`); J is not formed,
    unless the solver asks for the operator's matrix. Its claim of success is not believed: the
    residual of the system is computed with one more product, and a solve that leaves more than
    `trusted_residual` of its right-hand side is a failed one, whatever it reports. What a solver
    leaves behind at its `max_steps` is used if that test is passed.

    Give `lx.CG` and `lx.GMRES` a positive `atol`: they test elementwise, `atol + rtol·|b|`, and
    `atol=0` never holds where b has a zero.

    !!! Example

        ```python
        import lineax as lx
        import gramlm

        linear = gramlm.LineaxSolver(lx.GMRES(rtol=1e-4, atol=1e-8), trusted_residual=0.01)
        solver = gramlm.LevenbergMarquardt(linear_solver=linear)
        ```
    """

    solver: lx.AbstractLinearSolver
    trusted_residual: Scalar = 0.1
    block_size: int = eqx.field(static=True, default=256)

    def __check_init__(self):
        check_between(self.trusted_residual, "trusted_residual", 0, 1, closed="neither")
        if not isinstance(self.solver, lx.AbstractLinearSolver):
            raise TypeError(
                "`LineaxSolver` takes a `lineax.AbstractLinearSolver`, such as "
                f"`lx.CG(rtol=1e-6, atol=1e-12)`; got {type(self.solver).__name__}."
            )

    def init(self, residual: Float[Array, " n"], params: Float[Array, " p"], form: Form) -> None:
        return None

    def linearise(
        self, memory: AbstractMemoryPolicy, function: AbstractResidual, params: Float[Array, " p"]
    ) -> tuple[AbstractLinearisation, int]:
        return memory.linearise(function, params)

    def factorise(
        self,
        linearisation: AbstractLinearisation,
        metric: lx.AbstractLinearOperator,
        largest_eigenvalue: Float[Array, ""],
        form: Form,
        recycled: None,
    ) -> "LineaxFactorisation":
        side = form.resolve(linearisation.num_residuals, linearisation.num_params)
        return LineaxFactorisation(
            settings=self,
            linearisation=linearisation,
            metric=metric,
            rounding=jnp.finfo(linearisation.residual.dtype).eps * largest_eigenvalue,
            form=side,
        )


class LineaxFactorisation(AbstractFactorisation):
    """Nothing but the linearisation: a lineax solver factorises for each λ."""

    settings: LineaxSolver
    linearisation: AbstractLinearisation
    metric: lx.AbstractLinearOperator
    rounding: Float[Array, ""]
    form: Form = eqx.field(static=True)
    work: None = None

    def damping_within(self, bound: LengthBound, work: None) -> FoundDamping:
        return damping_by_solves(self, bound, work)

    def recycle(self, work: None) -> None:
        return None

    def at(self, damping: Float[Array, ""]) -> "LineaxSystem":
        kind = GramOperator if self.form is Form.dual else NormalOperator
        operator = kind(
            self.linearisation, damping, self.metric, block_size=self.settings.block_size
        )
        solver = self.settings.solver
        state = solver.init(operator, {})
        # A solver that counts no steps is a direct one: its `init` asked for the matrix.
        probe = eqx.filter_eval_shape(solver.compute, state, operator.in_structure(), {})
        direct = "num_steps" not in probe[2]
        return LineaxSystem(
            settings=self.settings,
            operator=operator,
            state=state,
            metric=self.metric,
            form=self.form,
            setup_products=2 * operator.in_size() if direct else 0,
        )


class LineaxSystem(AbstractDampedSystem):
    """The damped operator, and the state of a lineax solver for it."""

    settings: LineaxSolver
    operator: AbstractDampedOperator
    state: Any
    metric: lx.AbstractLinearOperator
    form: Form = eqx.field(static=True)
    setup_products: int = eqx.field(static=True)

    def solve(self, rhs: Float[Array, " n"], work: None, tolerance: Float[Array, ""]) -> LinearStep:
        at = self.operator.linearisation
        dual = self.form is Form.dual
        b = rhs if dual else at.vjp(rhs)
        scale = norm(b)
        # A unit right-hand side makes absolute tolerances relative, and nothing overflows.
        unit = safe_divide(b, scale)
        solution = lx.linear_solve(
            self.operator, unit, self.settings.solver, state=self.state, throw=False
        )
        x = jnp.where(scale > 0, solution.value, 0) * scale
        if dual:
            step = -metric_inverse(self.metric, at.vjp(x))
            image = at.jvp(step)
            defect = b + image - self.operator.shift * x
        else:
            step, image = -x, -at.jvp(x)
            defect = b + at.vjp(image) - self.operator.shift * self.metric.mv(x)
        relative = safe_divide(norm(defect), scale)
        iterations = jnp.asarray(solution.stats.get("num_steps", 0), jnp.int32)
        return LinearStep(
            step=step,
            image=image,
            relative_residual=relative,
            iterations=iterations,
            products=2 * iterations + (2 if dual else 3),
            solved=trusted(step, relative, self.settings.trusted_residual),
        )
