"""Few parameters: J with columns of one length by QR, so that no unit of a parameter matters."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ..._core.arrays import safe_divide
from ..._core.reductions import (
    column_lengths,
    column_sum_squares,
    count,
    matmul,
    norm,
    sum_squares,
)
from ..._model.whitening import Whitening
from ..algebra.secular import FINE, LengthBound, root
from .base import AbstractFactorisation, FoundDamping
from .direct import AbstractDirectSystem

# What rounding leaves of a column that depends on the others, in multiples of ε: Householder's QR
# errs by a small multiple of it (Higham 2002, §19.3). Which one is arbitrary.
_ROUNDING = 8.0


class Triangle(NamedTuple):
    """`[R; √λ E] = QT`: the triangle T, and the rows of Q that belong to R."""

    orthogonal: Float[Array, "p p"]
    triangle: Float[Array, "p p"]

    @classmethod
    def of(
        cls, undamped: Float[Array, "p p"], damper: Float[Array, "p p"], damping: Float[Array, ""]
    ) -> "Triangle":
        stacked = jnp.concatenate([undamped, jnp.sqrt(damping) * damper])
        orthogonal, triangle = jnp.linalg.qr(jax.lax.stop_gradient(stacked))
        return cls(orthogonal[: len(undamped)], triangle)

    def least_squares(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        """The y that minimises `‖Ry + x‖² + λ‖Ey‖²`."""
        return -jsl.solve_triangular(self.triangle, matmul(x, self.orthogonal))

    def forward(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        """`T⁻ᵀ x`."""
        return jsl.solve_triangular(self.triangle, x, trans=1)


class ScaledFactorisation(AbstractFactorisation):
    """`[J S⁻¹; 8ε I] = QR` with S the lengths of the columns of J, and for each λ a triangle more.

    QR errs in each column by what is rounding of that column (Higham 2002, §19.3), where a
    singular value decomposition errs by what is rounding of the longest: beside a parameter of
    size 1e-18 the others would be lost. The multiple of ε is to columns that depend on one another
    what λ is not when it is very small. y = Sδ, and E = LᵀS⁻¹ for the metric `M = LLᵀ`.
    """

    rows: Float[Array, "n p"]  # J S⁻¹
    scales: Float[Array, " p"]
    damper: Float[Array, "p p"]  # E
    orthogonal: Float[Array, "n p"]
    triangle: Float[Array, "p p"]
    rounding: Float[Array, ""]
    work: None = None

    @classmethod
    def of(cls, jacobian: Float[Array, "n p"], whitening: Whitening) -> "ScaledFactorisation":
        n, p = jacobian.shape
        eps = float(jnp.finfo(jacobian.dtype).eps)
        lengths = column_lengths(jax.lax.stop_gradient(jacobian))
        scales = jnp.where(lengths > 0, lengths, 1)
        rows, damper = jacobian / scales, whitening.transposed_matrix(p, jacobian.dtype) / scales
        stacked = jnp.concatenate([rows, _ROUNDING * eps * jnp.eye(p, dtype=rows.dtype)])
        orthogonal, triangle = jnp.linalg.qr(jax.lax.stop_gradient(stacked))
        # The λ that rounding of the middle column swallows; columns that are zero are no measure.
        stiffness = jnp.where(lengths > 0, column_sum_squares(damper), 0)
        stiffness = jnp.sort(jnp.where(lengths > 0, stiffness, jnp.inf))
        positive = jnp.maximum(count(lengths > 0), 1)
        stiffness = stiffness[(positive - 1) // 2]
        return cls(
            rows=rows,
            scales=scales,
            damper=damper,
            orthogonal=orthogonal[:n],
            triangle=triangle,
            rounding=safe_divide(jnp.asarray(eps**2, rows.dtype), stiffness),
        )

    def recycle(self, work: None) -> None:
        return None

    def at(self, damping: Float[Array, ""]) -> "ScaledSystem":
        damped = Triangle.of(self.triangle, self.damper, damping)
        return ScaledSystem(rows=self.rows, factors=self, damped=damped, damping=damping)

    def damping_within(self, bound: LengthBound, work: None) -> FoundDamping:
        x = matmul(bound.rhs, self.orthogonal)
        size = norm(x)  # which may be far from 1
        x = safe_divide(x, size)

        def look(damping: Float[Array, ""], extra: tuple):
            damped = Triangle.of(self.triangle, self.damper, damping)
            w = matmul(self.damper, damped.least_squares(x))
            square = sum_squares(w)
            slope = safe_divide(sum_squares(damped.forward(matmul(w, self.damper))), square)
            return size * jnp.sqrt(square), slope, extra

        none = jnp.zeros((), jnp.int32)
        return FoundDamping(root(look, (), bound, FINE)[0], None, none, none)


class ScaledSystem(AbstractDirectSystem):
    """The system at one λ."""

    rows: Float[Array, "n p"]
    factors: ScaledFactorisation
    damped: Triangle
    damping: Float[Array, ""]
    setup_products: int = eqx.field(static=True, default=0)

    def minimiser(self, rhs: Float[Array, " n"]) -> Float[Array, " p"]:
        return self.damped.least_squares(matmul(rhs, self.factors.orthogonal))

    def remaining(self, rhs: Float[Array, " n"], y: Float[Array, " p"]) -> Float[Array, " n"]:
        return rhs + matmul(self.rows, y)

    def inverse(self, z: Float[Array, " p"]) -> Float[Array, " p"]:
        return jsl.solve_triangular(self.damped.triangle, self.damped.forward(z))

    def shift(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        damper = self.factors.damper
        return self.damping * matmul(matmul(damper, y), damper)

    def step(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        return y / self.factors.scales
