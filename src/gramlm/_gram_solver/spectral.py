"""Small dense systems: one singular value decomposition of J answers every λ."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from .._metric import Whitening
from .._misc import all_finite, matmul, norm, safe_divide
from .base import AbstractDampedSystem, AbstractFactorisation, FoundDamping, LinearStep
from .step_length import spectral_root


class SpectralFactorisation(AbstractFactorisation):
    """`J L⁻ᵀ = U S Vᵀ`, so that J is never squared: `δ = −L⁻ᵀ V S/(S² + λ) Uᵀ b`."""

    rows: Float[Array, "n p"]
    left: Float[Array, "n k"]
    values: Float[Array, " k"]
    right: Float[Array, "k p"]
    whitening: Whitening
    rounding: Float[Array, ""]
    work: None = None

    @classmethod
    def of(
        cls, rows: Float[Array, "n p"], whitening: Whitening, largest: Float[Array, ""]
    ) -> "SpectralFactorisation":
        """From the whitened Jacobian, and an estimate of λmax(K)."""
        # The derivative of a solution does not need those of singular vectors, which do not exist
        # where singular values coincide.
        decomposed = jnp.linalg.svd(jax.lax.stop_gradient(rows), full_matrices=False)
        left, values, right = decomposed
        rounding = jnp.finfo(rows.dtype).eps ** 2 * largest
        return cls(
            rows=rows,
            left=left,
            values=values,
            right=right,
            whitening=whitening,
            rounding=rounding,
        )

    def recycle(self, work: None) -> None:
        return None

    def at(self, damping: Float[Array, ""]) -> "SpectralSystem":
        return SpectralSystem(factors=self, damping=damping)

    def damping_within(
        self,
        rhs: Float[Array, " n"],
        metric: lx.AbstractLinearOperator,
        radius: Float[Array, ""],
        guess: Float[Array, ""],
        least: Float[Array, ""],
        work: None,
        tolerance: Float[Array, ""],
    ) -> FoundDamping:
        none = jnp.zeros((), jnp.int32)
        coordinates = self.values * matmul(rhs, self.left)
        damping = spectral_root(self.values**2, coordinates, radius, guess, least)
        return FoundDamping(damping, None, none, none)


class SpectralSystem(AbstractDampedSystem):
    """The system at one λ."""

    factors: SpectralFactorisation
    damping: Float[Array, ""]
    setup_products: int = eqx.field(static=True, default=0)

    def solve(self, rhs: Float[Array, " n"], work: None, tolerance: Float[Array, ""]) -> LinearStep:
        factors = self.factors
        y = _solved(self, rhs)
        step, image = factors.whitening.step(y), matmul(factors.rows, y)
        gradient = matmul(rhs, factors.rows)
        left_over = matmul(rhs + image, factors.rows) + self.damping * y
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
def _solved(system: SpectralSystem, rhs: Float[Array, " n"]) -> Float[Array, " p"]:
    """`y = −(AᵀA + λI)⁻¹ Aᵀ b`."""
    factors = system.factors
    weights = safe_divide(factors.values, factors.values**2 + system.damping)
    return -matmul(weights * matmul(rhs, factors.left), factors.right)


@_solved.def_jvp
def _(primals, tangents):
    """`(AᵀA + λI) ẏ = −Aᵀ(ḃ + Ȧy) − Ȧᵀ(b + Ay) − λ̇y`."""
    system, rhs = primals
    t_system, t_rhs = tangents
    factors, damping = system.factors, system.damping
    y = _solved(system, rhs)

    def parts(system: SpectralSystem):
        rows = system.factors.rows
        return matmul(rows, y), matmul(rhs + matmul(factors.rows, y), rows), system.damping * y

    tangent = eqx.filter_jvp(parts, (system,), (t_system,))[1]
    t_image, t_gradient, t_shift = (
        jnp.zeros(shape, y.dtype) if t is None else t
        for t, shape in zip(tangent, (rhs.shape, y.shape, y.shape), strict=True)
    )
    t_rhs = jnp.zeros_like(rhs) if t_rhs is None else t_rhs
    z = t_gradient + t_shift
    along = matmul(factors.right, z)
    inverse = matmul(safe_divide(along, factors.values**2 + damping), factors.right)
    if factors.rows.shape[0] < factors.rows.shape[1]:
        inverse += (z - matmul(along, factors.right)) / damping
    return y, _solved(system, t_rhs + t_image) - inverse
