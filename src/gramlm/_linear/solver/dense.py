"""Dense linear algebra: J and its Gram matrix are assembled once, and factorised for each λ."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..._core.arrays import safe_divide
from ..._core.reductions import matmul, norm, symmetric_product
from ..._model.form import Form
from ..._model.linearisation import AbstractLinearisation, MaterialisedLinearisation
from ..._model.matrix import jacobian_of
from ..._model.memory import AbstractMemoryPolicy
from ..._model.whitening import Whitening, whitening
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
from .scaled import ScaledFactorisation
from .spectral import SpectralFactorisation

# K is formed with errors of about ε·λmax, so K + λI is a fair preconditioner for itself as long
# as λ is well above that: then a few corrections with products of J restore what squaring J lost.
# Below this multiple of ε·λmax, which is arbitrary, the factor is taken from [Jᵀ; √λ I] instead.
_CHOLESKY_LIMIT = 64.0

# Up to this order a factorisation costs next to nothing. Arbitrary.
_SMALL = 64

# Corrections with products of J, at 4 n p operations each, as long as each gains a factor of 4.
# Arbitrary.
_MAX_CORRECTIONS = 3

# A direct solve that leaves more than this of its right-hand side is a failed one. Arbitrary.
_TRUSTED_RESIDUAL = 1e-2


class DenseSolver(AbstractGramSolver):
    """Assembles J, forms `K = J M⁻¹ Jᵀ` (or `JᵀJ` for n > p) once, factorises `K + λI` for each λ.

    With m = min(n, p): `n·p + m²` numbers of memory, `m·n·p` operations for each Jacobian and
    `m³/3` for each λ. Which factorisation is used:

    - `lineax.Cholesky` of `K + λI` for `λ ≥ 64·ε·λmax(K)`;
    - the triangle R of `[Jᵀ; √λ I] = QR` for smaller λ, at `2 m²·(max(n, p) + m)` operations.

    Either factor is followed by corrections with products of J, until the true residual of the
    system no longer falls (Björck 1987, corrected seminormal equations).

    Small systems are solved without squaring J: for p ≤ 64 and p ≤ n by the QR decomposition of J
    with columns of one length, so that parameters may be of any size, and a triangle of order p
    for each λ; for n ≤ 64 and n < p by one singular value decomposition, which answers every λ.

    !!! Example

        ```python
        import gramlm

        # With J stored as a matrix, whatever the size of the problem.
        solver = gramlm.LevenbergMarquardt(
            linear_solver=gramlm.DenseSolver(), memory=gramlm.Materialise()
        )
        ```
    """

    def init(self, residual: Float[Array, " n"], params: Float[Array, " p"], form: Form) -> None:
        return None

    def linearise(
        self, memory: AbstractMemoryPolicy, function: AbstractResidual, params: Float[Array, " p"]
    ):
        del memory  # already taken into account by the prepared residual
        residual, jacobian = function.value_and_jacobian(params)
        return MaterialisedLinearisation(residual, jacobian), function.assembly_products()

    def factorise(
        self,
        linearisation: AbstractLinearisation,
        metric: lx.AbstractLinearOperator,
        largest_eigenvalue: Float[Array, ""],
        form: Form,
        recycled: None,
    ) -> AbstractFactorisation:
        jacobian, factor = jacobian_of(linearisation), whitening(metric)
        if linearisation.num_params <= min(_SMALL, linearisation.num_residuals):
            return ScaledFactorisation.of(jacobian, factor)
        rows = factor.rows(jacobian)
        side = form.resolve(*rows.shape)
        tall = rows.T if side is Form.dual else rows
        if tall.shape[1] <= _SMALL:
            return SpectralFactorisation.of(rows, factor, largest_eigenvalue)
        return DenseFactorisation(
            rows=rows,
            gram=symmetric_product(tall.T),
            whitening=factor,
            rounding=largest_eigenvalue * jnp.finfo(rows.dtype).eps,
            form=side,
        )


class DenseFactorisation(AbstractFactorisation):
    """The whitened Jacobian `J L⁻ᵀ`, and its Gram matrix."""

    rows: Float[Array, "n p"]
    gram: Float[Array, "m m"]
    whitening: Whitening
    rounding: Float[Array, ""]
    form: Form = eqx.field(static=True)
    work: None = None

    def damping_within(self, bound: LengthBound, work: None) -> FoundDamping:
        return damping_by_solves(self, bound, work)

    def recycle(self, work: None) -> None:
        return None

    def at(self, damping: Float[Array, ""]) -> "DenseSystem":
        gram, rows = self.gram, self.rows

        def orthogonal() -> Float[Array, "m m"]:
            return _damped_triangle(rows.T if self.form is Form.dual else rows, damping)

        def cholesky() -> Float[Array, "m m"]:
            shifted = gram + damping * jnp.eye(gram.shape[0], dtype=gram.dtype)
            operator = lx.MatrixLinearOperator(shifted, lx.positive_semidefinite_tag)
            return lx.Cholesky().init(operator, {})[0]

        formed = damping >= _CHOLESKY_LIMIT * self.rounding
        factor = jax.lax.cond(formed, cholesky, orthogonal)
        return self._system(factor, damping)

    def _system(self, factor: Float[Array, "m m"], damping: Float[Array, ""]) -> "DenseSystem":
        return DenseSystem(
            rows=self.rows,
            factor=factor,
            whitening=self.whitening,
            damping=damping,
            form=self.form,
        )


def _damped_triangle(tall: Float[Array, "q m"], damping: Float[Array, ""]) -> Float[Array, "m m"]:
    """R of `[A; √λ I] = QR`, so that `RᵀR = AᵀA + λI`, without forming AᵀA."""
    m = tall.shape[1]
    shift = jnp.sqrt(damping) * jnp.eye(m, dtype=tall.dtype)
    return jnp.linalg.qr(jnp.concatenate([tall, shift]), mode="r")


class DenseSystem(AbstractDampedSystem):
    """A triangle R with `RᵀR = K + λI`."""

    rows: Float[Array, "n p"]
    factor: Float[Array, "m m"]
    whitening: Whitening
    damping: Float[Array, ""]
    form: Form = eqx.field(static=True)
    setup_products: int = eqx.field(static=True, default=0)

    def solve(self, rhs: Float[Array, " n"], work: None, tolerance: Float[Array, ""]) -> LinearStep:
        white = self._dual(rhs) if self.form is Form.dual else self._normal(rhs)
        step, relative = white
        delta = self.whitening.step(step)
        return LinearStep(
            step=delta,
            image=matmul(self.rows, step),
            relative_residual=relative,
            iterations=jnp.zeros((), jnp.int32),
            products=jnp.zeros((), jnp.int32),
            solved=trusted(delta, relative, _TRUSTED_RESIDUAL),
        )

    def _dual(self, rhs):
        def defect(w):
            return rhs - (matmul(self.rows, matmul(w, self.rows)) + self.damping * w)

        w, relative = self._corrected(rhs, defect)
        return -matmul(w, self.rows), relative

    def _normal(self, rhs):
        def defect(y):
            return matmul(rhs - matmul(self.rows, y), self.rows) - self.damping * y

        y, relative = self._corrected(matmul(rhs, self.rows), defect)
        return -y, relative

    def _corrected(self, rhs, defect):
        """Solves `RᵀR x = rhs`, then corrects x as long as the true residual falls."""
        scale = norm(rhs)
        accuracy = 4 * jnp.finfo(rhs.dtype).eps * scale

        # The first correction, of x = 0, is the solve itself.
        def correct(carry):
            x, rho, size, count, _ = carry
            better = x + self._substitute(rho)
            rho_new = defect(better)
            size_new = norm(rho_new)
            improved = (size_new < size) | (size_new <= accuracy)
            # Where a correction gains less than a factor of 4 the rounding has been reached.
            go_on = size_new < 0.25 * size
            x = jnp.where(improved, better, x)
            rho = jnp.where(improved, rho_new, rho)
            return x, rho, jnp.where(improved, size_new, size), count + 1, go_on

        def unfinished(carry):
            _, _, size, count, go_on = carry
            # One correction is always made: a small residual says little of the error of x.
            return (count < 2) | (go_on & (count <= _MAX_CORRECTIONS) & (size > accuracy))

        start = (jnp.zeros_like(rhs), rhs, scale, jnp.zeros((), jnp.int32), jnp.asarray(True))
        x, _, size, _, _ = jax.lax.while_loop(unfinished, correct, start)
        return x, safe_divide(size, scale)

    def _substitute(self, b):
        return jax.scipy.linalg.cho_solve((self.factor, False), b)
