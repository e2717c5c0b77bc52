"""One orthonormal Krylov basis for each Jacobian, from which every λ is answered."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float

from ..._core.checks import check_at_least, check_not_negative, check_positive
from ..._core.reductions import symmetric_product
from ..._model.form import Form
from ..._model.gram import Gram
from ..._model.linearisation import AbstractLinearisation
from ..._model.memory import AbstractMemoryPolicy
from ..._model.whitening import whitening
from ..._problem.residual.base import AbstractResidual
from ..algebra.basis import Subspace
from ..algebra.growth import Recycled, Work, fresh_recycled
from ..algebra.sizes import BlockSizes
from ..algebra.tall import TallSubspace
from .base import AbstractFactorisation, AbstractGramSolver
from .golub_kahan import GolubKahanFactorisation
from .lanczos import KrylovFactorisation

# What is not summed over n² entries is rounded less than a dense K: on a kernel problem in float32
# (n = 2048, p = 8192) a λ of 8ε·λmax(K) still gave the predicted decrease, and half the Jacobians
# that 64ε·λmax(K) took to a relative cost of 1e-6; one of 2ε·λmax(K) gained nothing more.
_ROUNDING = 1 / 8

# Where J is stored, K itself is formed once the basis of the last Jacobian had this part of n
# vectors: n²·p operations, at the full speed of a matrix product, against 4·n·p for each vector.
# They are as many at n/4; a little beyond that is arbitrary.
_FORMED_PART = 1 / 3


class KrylovSolver(AbstractGramSolver):
    """Block Lanczos on `K = J M⁻¹ Jᵀ` with full reorthogonalisation, recycled between Jacobians.

    For an orthonormal basis Z of a part of residual space, `w = Zᵀ(Z K Zᵀ + λI)⁻¹ Z b` solves the
    system for any λ and any right-hand side b without a product with J, and its residual is known.
    Where it is too large the basis grows by a block: first by the Ritz vectors of the last
    Jacobian, then by block Lanczos steps, always with the residual itself in the block. So a
    rejected trial, another λ and the geodesic correction start from all that is known of K.

    **Attributes:**

    - `capacity`: the largest number of basis vectors. Two copies of (capacity, n) are held, and a
      part of a third.
    - `block_size`: vectors in a Lanczos block. More make fewer passes over the data, and more
      vectors altogether; 1 where a product with b vectors costs b times that with one.
    - `recycle_block`: recycled vectors taken in at a time where there are about as many; fewer
      come in blocks of `block_size`. 0 recycles nothing.
    - `keep`: Ritz vectors are kept whose value exceeds `keep`·λ; below, they hardly act on w.
    - `max_iterations` of conjugate gradients, deflated with the basis, where it is full and the
      solution not good enough; 0 for none, as where `capacity` is enough for the whole space.
    - `may_form`: whether K may be formed, n² numbers and a copy of J, where J is stored, the dual
      form solved in float64, and the basis of the last Jacobian took a third of n vectors or more.
      Then they are multiplied with K. (In float32 a formed K is not exact enough for a small λ.)

    !!! Example

        ```python
        import gramlm

        # Less memory for the basis, and single vectors where blocks of them share no work.
        linear = gramlm.KrylovSolver(capacity=256, block_size=1)
        solver = gramlm.LevenbergMarquardt(linear_solver=linear)
        ```
    """

    capacity: int = eqx.field(static=True, default=512)
    block_size: int = eqx.field(static=True, default=32)
    recycle_block: int = eqx.field(static=True, default=64)
    keep: float = eqx.field(static=True, default=0.1)
    max_iterations: int = eqx.field(static=True, default=300)
    may_form: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        for name in ("capacity", "block_size"):
            check_at_least(getattr(self, name), name, 1)
        for name in ("recycle_block", "max_iterations"):
            check_not_negative(getattr(self, name), name)
        check_positive(self.keep, "keep")

    def _sizes(self, m: int) -> BlockSizes:
        return BlockSizes.within(m, self.capacity, self.block_size, self.recycle_block)

    def _finishing(self, sizes: BlockSizes) -> int:
        """Iterations of conjugate gradients; none where the basis may fill the space."""
        return 0 if sizes.fills else self.max_iterations

    def init(
        self, residual: Float[Array, " n"], params: Float[Array, " p"], form: Form
    ) -> Recycled:
        if form.resolve(residual.size, params.size) is Form.dual:
            return fresh_recycled(self._sizes(residual.size), residual)
        return fresh_recycled(self._sizes(params.size).for_range(residual.size), params)

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
        recycled: Recycled,
    ) -> AbstractFactorisation:
        n, p = linearisation.num_residuals, linearisation.num_params
        residual = linearisation.residual
        eps = jnp.finfo(residual.dtype).eps
        if form.resolve(n, p) is Form.dual:
            sizes = self._sizes(n)
            formed, matrix = self._formed(linearisation, metric, recycled)
            return KrylovFactorisation(
                gram=Gram.of(linearisation, metric),
                recycled=recycled,
                formed=formed,
                matrix=matrix,
                largest=largest_eigenvalue,
                rounding=_ROUNDING * eps * largest_eigenvalue,
                work=Work.fresh(Subspace.empty(sizes.capacity, residual)),
                sizes=sizes,
                keep=self.keep,
                max_iterations=self._finishing(sizes),
            )
        sizes = self._sizes(p).for_range(n)
        return GolubKahanFactorisation(
            gram=Gram.whitened(linearisation, metric, dual=False),
            recycled=recycled,
            largest=largest_eigenvalue,
            rounding=eps**2 * largest_eigenvalue,
            work=Work.fresh(TallSubspace.empty(sizes.capacity, residual, p)),
            sizes=sizes,
            keep=self.keep,
            max_iterations=self._finishing(sizes),
        )

    def _formed(
        self,
        linearisation: AbstractLinearisation,
        metric: lx.AbstractLinearOperator,
        recycled: Recycled,
    ) -> tuple[Bool[Array, ""], Float[Array, "n n"] | None]:
        """Whether K is formed, and K if it may be."""
        n = linearisation.num_residuals
        rows, double = linearisation.stored, linearisation.residual.dtype == jnp.float64
        if rows is None or not (self.may_form and double):
            return jnp.asarray(False), None
        return jax.lax.cond(
            recycled.basis_size > _FORMED_PART * n,
            lambda: (jnp.asarray(True), symmetric_product(whitening(metric).rows(rows))),
            lambda: (jnp.asarray(False), jnp.zeros((n, n), rows.dtype)),
        )
