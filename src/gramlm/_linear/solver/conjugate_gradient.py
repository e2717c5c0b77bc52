"""Conjugate gradients with a norm-wise stopping test, as a lineax solver."""

from typing import Any

import equinox as eqx
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree

from ..._core.arrays import Scalar, scattered_signs
from ..._core.checks import check_at_least, check_between
from ..._core.reductions import sum_squares
from ..algebra.cg import preconditioned_cg


class ConjugateGradient(lx.AbstractLinearSolver):
    """Conjugate gradients for positive definite operators (Hestenes and Stiefel 1952).

    Stops when `‖b − A x‖ ≤ rtol·‖b‖`, in norm and by the true residual, so that zeros in b do no
    harm; a zero b has the solution zero. `max_steps=None` allows as many iterations as unknowns,
    at most 1000. On breakdown, a direction of no positive curvature, it returns what it has, and
    says so. A preconditioner goes into `options={"preconditioner": …}`, as for `lineax.CG`: a
    positive definite operator that approximates the inverse.

    **Raises:** `ValueError` for an operator or a preconditioner not tagged as positive
    semidefinite.
    """

    rtol: Scalar = 1e-4
    max_steps: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_between(self.rtol, "rtol", 0, 1, closed="neither")
        check_at_least(self.max_steps, "max_steps", 1)

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]):
        for name, given in (("operator", operator), ("preconditioner", _inverse(options))):
            if given is not None and not lx.is_positive_semidefinite(given):
                raise ValueError(
                    f"`ConjugateGradient` needs its {name} tagged as positive semidefinite; got "
                    f"{type(given).__name__} without the tag."
                )
        return lx.linearise(operator)

    def compute(self, state: Any, vector: PyTree[Array], options: dict[str, Any]):
        b, unravel = jax.flatten_util.ravel_pytree(vector)
        inverse = _inverse(options)

        def flat(operator: lx.AbstractLinearOperator):
            return lambda x: jax.flatten_util.ravel_pytree(operator.mv(unravel(x)))[0]

        multiply = flat(state)
        # For units and rounding a lower bound on the largest eigenvalue, within n of it, will do.
        probe = scattered_signs(b.size, b.dtype)
        size = jnp.sqrt(sum_squares(multiply(probe)) / b.size)
        limit = min(b.size, 1000) if self.max_steps is None else self.max_steps

        def gap(x, image, rhs, residual, damping):
            return sum_squares(residual), sum_squares(rhs)

        found = preconditioned_cg(
            multiply,
            (lambda x: x) if inverse is None else flat(inverse),
            b,
            jnp.zeros((), b.dtype),
            largest_eigenvalue=size,
            tolerance=jnp.asarray(self.rtol, b.dtype) ** 2,
            max_iterations=limit,
            gap=gap,
        )
        result = lx.RESULTS.where(
            found.converged,
            lx.RESULTS.successful,
            lx.RESULTS.where(
                found.iterations >= limit, lx.RESULTS.max_steps_reached, lx.RESULTS.breakdown
            ),
        )
        stats = {"num_steps": found.iterations, "max_steps": limit}
        return unravel(found.solution), result, stats

    def transpose(self, state: Any, options: dict[str, Any]):
        return state, options

    def conj(self, state: Any, options: dict[str, Any]):
        return lx.conj(state), options

    def assume_full_rank(self) -> bool:
        return True


def _inverse(options: dict[str, Any]) -> lx.AbstractLinearOperator | None:
    return options.get("preconditioner")
