"""Few equations and many parameters: one singular value decomposition of J answers every λ."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core.arrays import safe_divide
from ..._core.reductions import matmul
from ..._model.whitening import Whitening
from ..algebra.secular import LengthBound, spectral_root
from .base import AbstractFactorisation, FoundDamping
from .direct import AbstractDirectSystem


class SpectralFactorisation(AbstractFactorisation):
    """`J L⁻ᵀ = U S Vᵀ`, so that J is never squared: `δ = −L⁻ᵀ V S/(S² + λ) Uᵀ b`, for n < p."""

    rows: Float[Array, "n p"]
    left: Float[Array, "n n"]
    values: Float[Array, " n"]
    right: Float[Array, "n p"]
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
        return SpectralSystem(rows=self.rows, factors=self, damping=damping)

    def damping_within(self, bound: LengthBound, work: None) -> FoundDamping:
        none = jnp.zeros((), jnp.int32)
        coordinates = self.values * matmul(bound.rhs, self.left)
        damping = spectral_root(self.values**2, coordinates, bound)
        return FoundDamping(damping, None, none, none)


class SpectralSystem(AbstractDirectSystem):
    """The system at one λ."""

    rows: Float[Array, "n p"]
    factors: SpectralFactorisation
    damping: Float[Array, ""]
    setup_products: int = eqx.field(static=True, default=0)

    def minimiser(self, rhs: Float[Array, " n"]) -> Float[Array, " p"]:
        factors = self.factors
        weights = safe_divide(factors.values, factors.values**2 + self.damping)
        return -matmul(weights * matmul(rhs, factors.left), factors.right)

    def remaining(self, rhs: Float[Array, " n"], y: Float[Array, " p"]) -> Float[Array, " n"]:
        factors = self.factors
        # No difference, which would lose what is tiny beside b: U is square.
        part = safe_divide(self.damping, factors.values**2 + self.damping)
        damped = matmul(rhs, factors.left) * jnp.where(factors.values == 0, 1, part)
        return matmul(factors.left, damped)

    def inverse(self, z: Float[Array, " p"]) -> Float[Array, " p"]:
        factors = self.factors
        along = matmul(factors.right, z)
        within = matmul(safe_divide(along, factors.values**2 + self.damping), factors.right)
        return within + (z - matmul(along, factors.right)) / self.damping

    def shift(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        return self.damping * y

    def step(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        return self.factors.whitening.step(y)
