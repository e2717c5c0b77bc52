"""What a Jacobian and its Gram operator `K = J M⁻¹ Jᵀ` are like at one point.

Everything comes from blocks of products with J and Jᵀ, unless a function says otherwise. Norms,
diagonals and eigenvalues of K are in residual units squared.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from beartype import beartype
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, Real, jaxtyped

from .._core.arrays import VECTORS_AT_A_TIME, map_blocks, unit_rows
from .._core.reductions import column_sum_squares, matmul
from .._model.gram import Gram
from .._model.linearisation import AbstractLinearisation
from .._model.matrix import jacobian_of
from .._model.whitening import Whitening
from .._problem.residual.base import AbstractResidual
from .krylov import damped_forms, krylov_basis, ritz_pairs

# Ritz vectors count as eigenvectors, and are taken out of the probes, up to this residual relative
# to their value: it leaves an error of at most its square in μ/(μ+λ), whatever λ is. Arbitrary.
_DEFLATED_RESIDUAL = 1e-2


class Estimate(eqx.Module):
    """Numbers with their standard errors, which are zero where the numbers are exact."""

    value: Float[Array, " m"]
    standard_error: Float[Array, " m"]


class Spectrum(eqx.Module):
    """Leading eigenpairs of K, largest first.

    **Attributes:**

    - `values`: Ritz values, (k,). But for rounding, none is above the eigenvalue of its place.
    - `errors`: an eigenvalue lies within it of each value, (k,). It is the residual `‖K u − μ u‖`
      for n ≤ p, that of the eigenvector of `L⁻¹JᵀJL⁻ᵀ`, M = L Lᵀ, for n > p, and at least ε·λmax.
    - `vectors`: the vectors u as orthonormal rows, (k, n).
    - `converged`: whether every error is at most `rtol` times the first value.
    - `products`: products with J or Jᵀ that it took.
    """

    values: Float[Array, " k"]
    errors: Float[Array, " k"]
    vectors: Float[Array, "k n"]
    converged: Bool[Array, ""]
    products: Int[Array, ""]


class Eigenpair(eqx.Module):
    """The largest eigenvalue of K and its vector; the fields are those of `Spectrum`."""

    value: Float[Array, ""]
    error: Float[Array, ""]
    vector: Float[Array, " n"]
    converged: Bool[Array, ""]
    products: Int[Array, ""]


class EffectiveDimension(eqx.Module):
    """`Σ μ/(μ+λ)`, for one damping λ or for each of several.

    **Attributes:**

    - `value`: between 0 and min(n, p), but for the errors.
    - `standard_error`: of the random probes; 0 where the value is exact.
    - `truncation_error`: a bound on what a larger basis and more steps could still change with
      the same probes, apart from rounding; 0 where the value is exact.
    """

    value: Float[Array, "*l"]
    standard_error: Float[Array, "*l"]
    truncation_error: Float[Array, "*l"]


@jaxtyped(typechecker=beartype)
def largest_eigenvalue(
    linearisation: AbstractLinearisation,
    metric: lx.AbstractLinearOperator | None = None,
    *,
    rtol: float = 1e-3,
    basis_size: int = 64,
    key: PRNGKeyArray | None = None,
) -> Eigenpair:
    """λmax(K), by reorthogonalised Lanczos steps from a random vector.

    It stops when the error is at most `rtol·μ`, or after `basis_size` steps of two products each.
    The value itself is closer than that, within `error²/(gap to the next eigenvalue)` (Parlett
    1998, §11.7), and never above λmax by more than rounding. `key` draws the first vector, which
    is a fixed one unless given.
    """
    found = spectrum(
        linearisation, metric, rank=1, rtol=rtol, basis_size=basis_size, block_size=1, key=key
    )
    return Eigenpair(
        found.values[0], found.errors[0], found.vectors[0], found.converged, found.products
    )


@jaxtyped(typechecker=beartype)
def spectrum(
    linearisation: AbstractLinearisation,
    metric: lx.AbstractLinearOperator | None = None,
    *,
    rank: int,
    rtol: float = 1e-4,
    basis_size: int | None = None,
    block_size: int = 4,
    key: PRNGKeyArray | None = None,
) -> Spectrum:
    """The `rank` largest eigenvalues of K and their vectors, with error bounds.

    Randomised block Krylov (Golub and Underwood 1977, Musco and Musco 2015): the basis, of
    `basis_size` vectors at most, `3·rank + 32` unless given, grows by `block_size` products with
    K at a time until all errors are at most `rtol·λmax`. It takes `2·basis_size·min(n, p)` numbers
    of memory. A basis that would fill the space is the whole space, and the result exact but for
    rounding.

    Eigenvalues below ε·λmax are rounding. One of a multiplicity above `block_size` may be counted
    too few times. `key` draws the first block, which is a fixed one unless given.

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm

        scales = jnp.array([3.0, 1.0, 0.1])
        linearisation = gramlm.linearise(lambda params: scales * params, jnp.ones(3))
        found = gramlm.diagnostics.spectrum(linearisation, rank=2)
        assert jnp.allclose(found.values, jnp.array([9.0, 1.0]), rtol=1e-4)
        ```
    """
    limit = min(linearisation.num_residuals, linearisation.num_params)
    if not 1 <= rank <= limit:
        raise ValueError(f"`rank` must be between 1 and min(n, p) = {limit}; got {rank}.")
    _check_positive(block_size, "block_size")
    basis_size = 3 * rank + 32 if basis_size is None else basis_size
    if basis_size < rank:
        raise ValueError(f"`basis_size` must be at least `rank` = {rank}; got {basis_size}.")
    key = jax.random.key(0) if key is None else key
    return _spectrum(linearisation, metric, rank, rtol, basis_size, block_size, key)


@jaxtyped(typechecker=beartype)
def effective_dimension(
    linearisation: AbstractLinearisation,
    damping: Real[ArrayLike, "*l"],
    metric: lx.AbstractLinearOperator | None = None,
    *,
    num_probes: int | None = None,
    basis_size: int = 128,
    num_steps: int = 64,
    block_size: int = 8,
    key: PRNGKeyArray | None = None,
) -> EffectiveDimension:
    """`tr K(K+λ)⁻¹ = Σ μ/(μ+λ)`: how many directions the damping λ > 0 leaves free.

    `damping` is one number or an array of them; more of them cost no further products.

    Exact, from the singular values of J as a matrix, unless `num_probes` is given. With it and a
    `key`, what a block Krylov basis of `basis_size` vectors knows of K is taken from its Ritz
    values, and the rest from random vectors, whose quadratic forms lie between the two
    quadrature rules of `num_steps` steps of Golub–Kahan bidiagonalisation (Golub and von Matt
    1997, Chen and Hallman 2023). It takes `2·basis_size + 2·num_probes·num_steps` products, and
    memory as `spectrum`. Where `truncation_error` is the larger error raise `basis_size` first,
    which lessens both.

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm

        linearisation = gramlm.linearise(lambda params: jnp.array([2.0, 1.0]) * params, jnp.ones(2))
        dimension = gramlm.diagnostics.effective_dimension(linearisation, 1.0)
        assert jnp.allclose(dimension.value, 4 / 5 + 1 / 2)
        ```
    """
    _check_probes(num_probes, key)
    for value, name in ((basis_size, "basis_size"), (num_steps, "num_steps")):
        _check_positive(value, name)
    _check_positive(block_size, "block_size")
    if not isinstance(damping, Tracer) and not np.all(np.asarray(damping) > 0):
        raise ValueError(f"`damping` must be positive; got {damping}.")
    dampings = jnp.asarray(damping, linearisation.residual.dtype)
    if num_probes is None:
        return _exact_dimension(linearisation, dampings, metric)
    return _effective_dimension(
        linearisation, dampings, metric, num_probes, basis_size, num_steps, block_size, key
    )


@jaxtyped(typechecker=beartype)
def gram_diagonal(
    linearisation: AbstractLinearisation,
    metric: lx.AbstractLinearOperator | None = None,
    *,
    num_probes: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Estimate:
    """`diag(K)`: with `M = L Lᵀ`, the squared norms of the rows of `J L⁻ᵀ`, (n,).

    Exact unless `num_probes` is given: for `Rows` in one pass over the data, for other residuals
    from min(n, p) products with J. With `num_probes` and a `key` it is the mean of `(J L⁻ᵀ z)²`
    over random sign vectors z, a product each, whose relative standard error is at most
    √(2/num_probes) in every entry, whatever K is.
    """
    _check_probes(num_probes, key)
    return _gram_diagonal(linearisation, metric, num_probes, key)


@jaxtyped(typechecker=beartype)
def column_norms_squared(
    linearisation: AbstractLinearisation,
    *,
    num_probes: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Estimate:
    """`diag(JᵀJ)`, (p,) in the order of the flat parameters; exact or not as `gram_diagonal`."""
    _check_probes(num_probes, key)
    return _column_norms_squared(linearisation, num_probes, key)


def _check_positive(value: int, name: str) -> None:
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1; got {value}.")


def _check_probes(num_probes: int | None, key: PRNGKeyArray | None) -> None:
    if num_probes is None:
        if key is not None:
            raise ValueError(
                "`key` was given without `num_probes`, but the exact value needs none. Pass "
                "`num_probes` for an estimate, or leave `key` out."
            )
    elif num_probes < 2:
        raise ValueError(
            f"`num_probes` must be at least 2, for there to be a standard error; got {num_probes}."
        )
    elif key is None:
        raise ValueError(
            "`num_probes` was given, but no `key` to draw the probes with. Pass "
            "`key=jax.random.key(0)`."
        )


@eqx.filter_jit
def _spectrum(at, metric, rank: int, rtol, basis_size: int, block: int, key) -> Spectrum:
    gram = Gram.whitened(at, metric)

    def met(pairs):
        return jnp.all(pairs.errors <= rtol * pairs.values[0])

    def enough(basis):
        return (basis.count >= rank) & met(ritz_pairs(basis, rank))

    random = jax.random.normal(key, (block, gram.size), gram.dtype)
    basis, products = krylov_basis(gram.multiply_block, basis_size, random, enough)
    pairs = ritz_pairs(basis, rank)
    vectors = pairs.vectors
    if not gram.dual:
        # Orthonormal even where an eigenvalue is rounding or zero.
        q, r = jnp.linalg.qr(gram.times(vectors).T)
        vectors = jnp.where(jnp.diag(r) < 0, -q, q).T
        products = products + rank
    return Spectrum(pairs.values, pairs.errors, vectors, met(pairs), products)


@eqx.filter_jit
def _exact_dimension(at, dampings, metric) -> EffectiveDimension:
    whitening = Gram.whitened(at, metric).params
    sigma = jnp.linalg.svd(whitening.rows(jacobian_of(at)), compute_uv=False)
    # μ/(μ+λ) without squaring σ, which might underflow.
    value = jnp.sum(1 / (1 + (jnp.sqrt(dampings)[..., None] / sigma) ** 2), axis=-1)
    return EffectiveDimension(value, jnp.zeros_like(value), jnp.zeros_like(value))


@eqx.filter_jit
def _effective_dimension(
    at, dampings, metric, num_probes: int, basis_size: int, num_steps: int, block: int, key
) -> EffectiveDimension:
    gram = Gram.whitened(at, metric)
    random = jax.random.normal(key, (block + num_probes, gram.size), gram.dtype)
    basis, _ = krylov_basis(gram.multiply_block, basis_size, random[:block])
    mu, errors, vectors = ritz_pairs(basis, basis.capacity)
    known = errors <= _DEFLATED_RESIDUAL * mu
    damping = dampings[..., None]
    fraction = mu / (mu + damping)
    # By Jensen's inequality, 0 ≤ f(μ) − uᵀ f(K) u ≤ ‖K u − μ u‖²/(μ+λ)² for f = μ/(μ+λ).
    excess = jnp.minimum(fraction, (errors / (mu + damping)) ** 2)
    fixed = jnp.sum(jnp.where(known, fraction - excess / 2, 0), axis=-1)
    fixed_error = jnp.sum(jnp.where(known, excess / 2, 0), axis=-1)
    vectors = jnp.where(known[:, None], vectors, 0)
    probes = random[block:]
    for _ in range(2):
        probes = probes - matmul(matmul(probes, vectors.T), vectors)
    # Uniform on the sphere of the rest: no variance where f is constant (Epperly 2025).
    rest = gram.size - jnp.sum(known)
    lower, upper = (rest * form for form in damped_forms(gram, probes, num_steps, dampings))
    samples = (lower + upper) / 2
    return EffectiveDimension(
        fixed + jnp.mean(samples, axis=-1),
        jnp.std(samples, axis=-1, ddof=1) / num_probes**0.5,
        fixed_error + jnp.mean(jnp.abs(upper - lower) / 2, axis=-1),
    )


@eqx.filter_jit
def _gram_diagonal(at, metric, num_probes: int | None, key) -> Estimate:
    gram = Gram.whitened(at, metric)
    n, p, dtype = at.num_residuals, at.num_params, gram.dtype
    if num_probes is not None:
        return _mean_square(lambda z: gram.times(z[None])[0], n, p, num_probes, key, dtype)
    if at.stored is not None:
        return _exact(_row_squares(gram.params.rows(at.stored)))
    source = at.source
    if source is not None and source.function.cheap_rows:
        return _exact(_each_row_squared(source.function, source.params, gram.params))
    return _exact(_squares(gram.times, gram.transposed, n, p, dtype))


@eqx.filter_jit
def _column_norms_squared(at, num_probes: int | None, key) -> Estimate:
    n, p, dtype = at.num_residuals, at.num_params, at.residual.dtype
    if num_probes is not None:
        return _mean_square(at.vjp, p, n, num_probes, key, dtype)
    known = at.sum_squared_rows()
    if known is not None:
        return _exact(known[0])
    return _exact(_squares(at.vjp_block, at.jvp_block, p, n, dtype))


def _exact(value: Float[Array, " m"]) -> Estimate:
    return Estimate(value, jnp.zeros_like(value))


def _row_squares(rows: Float[Array, "k m"]) -> Float[Array, " k"]:
    return column_sum_squares(rows.T)


def _squares(times, transposed, m: int, q: int, dtype) -> Float[Array, " m"]:
    """Squared norms of the rows of a matrix (m, q), from min(m, q) products."""
    count = min(VECTORS_AT_A_TIME, m, q)

    def squares(start):
        return _row_squares(transposed(unit_rows(start, count, m, dtype)))[:, None]

    def add(index, total):
        return total + column_sum_squares(times(unit_rows(index * count, count, q, dtype)))

    if m <= q:
        return map_blocks(squares, m, count)[:, 0]
    return jax.lax.fori_loop(0, -(-q // count), add, jnp.zeros((m,), dtype))


def _each_row_squared(
    function: AbstractResidual, params: Float[Array, " p"], whitening: Whitening
) -> Float[Array, " n"]:
    """Squared norms of the rows of `J L⁻ᵀ`, some data points at a time."""
    return function.map_rows(params, lambda rows: (_row_squares(whitening.rows(rows)),))[0]


def _mean_square(product, size: int, dim: int, num_probes: int, key, dtype) -> Estimate:
    """Mean of `(A z)²` over sign vectors, and its standard error; one probe after another."""

    def add(i, carry):
        mean, scatter = carry  # Welford 1962
        z = jax.random.rademacher(jax.random.fold_in(key, i), (dim,), dtype)
        square = product(z) ** 2
        change = square - mean
        mean = mean + change / (i + 1)
        return mean, scatter + change * (square - mean)

    zero = jnp.zeros((size,), dtype)
    mean, scatter = jax.lax.fori_loop(0, num_probes, add, (zero, zero))
    return Estimate(mean, jnp.sqrt(scatter / (num_probes * (num_probes - 1))))
