"""What systems that are solved without iterations have in common: the step and its derivative."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core.arrays import safe_divide
from ..._core.reductions import all_finite, matmul, norm
from .base import AbstractDampedSystem, LinearStep


class AbstractDirectSystem(AbstractDampedSystem):
    """`(AᵀA + λ EᵀE) y = −Aᵀ b`, with A = J and E the metric's factor in other coordinates y.

    The derivative of y is that of this equation: the factors that solve it have none.
    """

    rows: eqx.AbstractVar[Float[Array, "n p"]]  # A

    @abc.abstractmethod
    def minimiser(self, rhs: Float[Array, " n"]) -> Float[Array, " p"]:
        """y, by the factors."""

    @abc.abstractmethod
    def inverse(self, z: Float[Array, " p"]) -> Float[Array, " p"]:
        """`(AᵀA + λ EᵀE)⁻¹ z`, by the factors."""

    @abc.abstractmethod
    def remaining(self, rhs: Float[Array, " n"], y: Float[Array, " p"]) -> Float[Array, " n"]:
        """`b + Ay`; what is tiny beside b for a tiny λ may need more than this difference."""

    @abc.abstractmethod
    def shift(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """`λ EᵀE y`."""

    @abc.abstractmethod
    def step(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """δ from y."""

    def solve(self, rhs: Float[Array, " n"], work: None, tolerance: Float[Array, ""]) -> LinearStep:
        y = _solved(self, rhs)
        step, image = self.step(y), matmul(self.rows, y)
        gradient = matmul(rhs, self.rows)
        left_over = matmul(rhs + image, self.rows) + self.shift(y)
        relative = safe_divide(norm(left_over), norm(gradient))
        none = jnp.zeros((), jnp.int32)
        return LinearStep(
            step=step,
            image=image,
            relative_residual=relative,
            iterations=none,
            products=none,
            solved=all_finite(step) & jnp.isfinite(relative),
        )


@eqx.filter_custom_jvp
def _solved(system: AbstractDirectSystem, rhs: Float[Array, " n"]) -> Float[Array, " p"]:
    return system.minimiser(rhs)


@_solved.def_jvp
def _(primals, tangents):
    """`(AᵀA + λ EᵀE) ẏ = −Aᵀ(ḃ + Ȧy) − Ȧᵀ(b + Ay) − d(λ EᵀE) y`."""
    system, rhs = primals
    t_system, t_rhs = tangents
    y = _solved(system, rhs)
    remaining = system.remaining(rhs, y)

    def parts(system: AbstractDirectSystem):
        return matmul(system.rows, y), matmul(remaining, system.rows), system.shift(y)

    tangent = eqx.filter_jvp(parts, (system,), (t_system,))[1]
    t_image, t_gradient, t_shift = (
        jnp.zeros(shape, y.dtype) if t is None else t
        for t, shape in zip(tangent, (rhs.shape, y.shape, y.shape), strict=True)
    )
    t_rhs = jnp.zeros_like(rhs) if t_rhs is None else t_rhs
    return y, _solved(system, t_rhs + t_image) - system.inverse(t_gradient + t_shift)
