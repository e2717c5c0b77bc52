"""The matrix of the damped system before λ is added, in either form, as products with J."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int

from .._core.arrays import unit_rows
from .._core.reductions import row_sum_squares
from .form import Form
from .gram import Gram
from .linearisation import AbstractLinearisation
from .whitening import Whitening


class UndampedSystem(eqx.Module):
    """`K = B Bᵀ`, (m, m), with `B = J L⁻ᵀ` in the dual form and its transpose in the normal one.

    `M = L Lᵀ` is the metric; m is n in the dual form and p in the normal one, and q the other.
    Blocks of k vectors have them as rows. A product with B or Bᵀ counts as one with J, a product
    with K as two. `largest` is an estimate of λmax(K).
    """

    gram: Gram[Whitening]
    metric: lx.AbstractLinearOperator
    largest: Float[Array, ""]

    @classmethod
    def of(
        cls,
        linearisation: AbstractLinearisation,
        metric: lx.AbstractLinearOperator,
        largest: Float[Array, ""],
        form: Form,
    ) -> "UndampedSystem":
        """The system in the form that `form` comes to."""
        side = form.resolve(linearisation.num_residuals, linearisation.num_params)
        return cls(Gram.whitened(linearisation, metric, side is Form.dual), metric, largest)

    @property
    def linearisation(self) -> AbstractLinearisation:
        """The residual and products with J."""
        return self.gram.at

    @property
    def whitening(self) -> Whitening:
        """L."""
        return self.gram.params

    @property
    def dual(self) -> bool:
        """Whether K acts on residuals."""
        return self.gram.dual

    @property
    def size(self) -> int:
        """m, the order of K."""
        return self.gram.size

    @property
    def dtype(self) -> Any:
        """The dtype of K."""
        return self.gram.dtype

    @property
    def stored(self) -> bool:
        """Whether rows of B can be read off: J is a matrix, and the metric diagonal."""
        return self.whitening.diagonal and self.linearisation.stored is not None

    def push(self, y: Float[Array, " q"]) -> Float[Array, " m"]:
        """`B y`."""
        return self.gram.push(y)

    def pull(self, x: Float[Array, " m"]) -> Float[Array, " q"]:
        """`Bᵀ x`."""
        return self.gram.pull(x)

    def multiply(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`K x`."""
        return self.gram.multiply(x)

    def multiply_block(self, x: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """`X K`, in two passes over the data."""
        return self.gram.multiply_block(x)

    def rows(self, start: Int[Array, ""], count: int) -> Float[Array, "count q"]:
        """Rows `start … start + count` of B; those beyond its last are zero.

        They cost `count` products, unless B is `stored`.
        """
        jacobian, factor = self.linearisation.stored, self.whitening.factor
        if jacobian is None or not self.whitening.diagonal:
            return self.gram.leave(unit_rows(start, count, self.size, self.dtype))
        wanted = start + jnp.arange(count)
        taken = jnp.take(jacobian, wanted, 0 if self.dual else 1, mode="fill", fill_value=0)
        if self.dual:
            return self.whitening.rows(taken)
        if factor is None:
            return taken.T
        return (taken / jnp.take(factor, wanted, mode="fill", fill_value=1)).T

    def diagonal(self, seed: Int[Array, ""], num_probes: int) -> tuple[Float[Array, " m"], int]:
        """`diag(K)`, and the products that it cost.

        Exact where that is cheap, and otherwise the mean of `(B z)²` over `num_probes` random
        sign vectors z, whose expectation it is.
        """
        jacobian = self.linearisation.stored
        if self.dual and jacobian is not None and self.whitening.diagonal:
            return row_sum_squares(self.whitening.rows(jacobian)), 0
        if not self.dual and self.whitening.diagonal:
            squares, products = self.linearisation.column_norms_squared(seed, num_probes)
            factor = self.whitening.factor
            return squares if factor is None else squares / factor**2, products
        key = jax.random.key(seed)
        length = self.gram.other_size

        def add(i: Int[Array, ""], total: Float[Array, " m"]) -> Float[Array, " m"]:
            # One probe after another: a block would need the memory of one.
            signs = jax.random.rademacher(jax.random.fold_in(key, i), (length,), self.dtype)
            return total + self.push(signs) ** 2

        total = jax.lax.fori_loop(0, num_probes, add, jnp.zeros(self.size, self.dtype))
        return total / num_probes, num_probes
