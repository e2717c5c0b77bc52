"""Conjugate gradients with a norm-wise stopping test, as a lineax solver."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .._misc import Scalar, dot, norm, safe_divide


class _Iterate(NamedTuple):
    x: Float[Array, " m"]
    residual: Float[Array, " m"]
    direction: Float[Array, " m"]
    size: Float[Array, ""]  # squared norm of the residual
    iterations: Array
    broken: Array


class ConjugateGradient(lx.AbstractLinearSolver):
    """Conjugate gradients for positive definite operators (Hestenes and Stiefel 1952).

    Stops when `‖b − A x‖ ≤ rtol·‖b‖`, in norm, so that zeros in b do no harm; a zero b has the
    solution zero. `max_steps=None` allows as many iterations as unknowns, at most 1000. On
    breakdown, a direction of no positive curvature, it returns what it has, and says so.

    **Raises:** `ValueError` for an operator not tagged as positive semidefinite.
    """

    rtol: Scalar = 1e-4
    max_steps: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if isinstance(self.rtol, float | int) and not 0 < self.rtol < 1:
            raise ValueError(f"`rtol` must be between 0 and 1; got {self.rtol}.")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1; got {self.max_steps}.")

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]):
        del options
        if not lx.is_positive_semidefinite(operator):
            raise ValueError(
                "`ConjugateGradient` needs an operator tagged as positive semidefinite; got "
                f"{type(operator).__name__} without the tag."
            )
        return lx.linearise(operator)

    def compute(self, state: Any, vector: PyTree[Array], options: dict[str, Any]):
        del options
        given, unravel = jax.flatten_util.ravel_pytree(vector)
        # To entries of at most 1, so that no square overflows or vanishes.
        scale = jnp.max(jnp.abs(given))
        b = safe_divide(given, scale)

        def multiply(x):
            return jax.flatten_util.ravel_pytree(state.mv(unravel(x)))[0]

        limit = min(b.size, 1000) if self.max_steps is None else self.max_steps
        target = (self.rtol * norm(b)) ** 2

        def unfinished(it: _Iterate):
            return (it.size > target) & (it.iterations < limit) & ~it.broken

        def iterate(it: _Iterate) -> _Iterate:
            image = multiply(it.direction)
            curvature = dot(it.direction, image)
            broken = ~(curvature > 0) | ~jnp.isfinite(curvature)
            length = jnp.where(broken, 0, it.size / jnp.where(broken, 1, curvature))
            residual = it.residual - jnp.where(broken, 0, length * image)
            size = dot(residual, residual)
            direction = residual + size / it.size * it.direction
            x = it.x + length * it.direction
            return _Iterate(x, residual, direction, size, it.iterations + 1, broken)

        size = dot(b, b)
        zero, broken = jnp.zeros((), jnp.int32), ~jnp.isfinite(size)
        start = _Iterate(jnp.zeros_like(b), b, b, size, zero, broken)
        end = jax.lax.while_loop(unfinished, iterate, start)
        result = lx.RESULTS.where(
            end.broken,
            lx.RESULTS.breakdown,
            lx.RESULTS.where(
                end.size <= target, lx.RESULTS.successful, lx.RESULTS.max_steps_reached
            ),
        )
        return unravel(scale * end.x), result, {"num_steps": end.iterations, "max_steps": limit}

    def transpose(self, state: Any, options: dict[str, Any]):
        return state, options

    def conj(self, state: Any, options: dict[str, Any]):
        return lx.conj(state), options

    def assume_full_rank(self) -> bool:
        return True
