"""From a residual function to the covariance of its parameters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, jaxtyped

from ..._core.arrays import Scalar, map_blocks
from ..._core.checks import check_at_least, check_between, check_positive
from ..._core.flatten import as_parameters
from ..._core.reductions import matmul
from ..._linear.auto import AutoMemory, ProblemSize
from ..._model.linearise import model_at
from ..._model.matrix import jacobian_of, triangle_of
from ..._model.memory import AbstractMemoryPolicy, Materialise, Recompute
from ..._model.model import Model
from ..._problem.build import flat_problem
from ..._problem.flat import FlatProblem
from ..._problem.problem import Problem
from ..krylov import krylov_basis
from .base import AbstractCovariance
from .factored import (
    FactoredCovariance,
    minimum_norm_factor,
    relative_threshold,
    right_singular,
    scaled_factors,
)
from .posterior import PosteriorCovariance, learned, shrunk
from .prior import PriorFactor, as_prior
from .sandwich import deviation, sandwich_factor

# J is stored if it takes at most half of this many bytes, unless a memory policy is given.
# Arbitrary: 1 GiB of J is what any machine has.
_MEMORY_LIMIT = 2**31


@jaxtyped(typechecker=beartype)
def covariance(
    residual_fn: Callable[..., Any],
    params: PyTree,
    args: PyTree = None,
    *,
    noise_variance: Scalar | None = None,
    sandwich: bool | None = None,
    rtol: float | int | None = None,
    has_aux: bool = False,
    memory: AbstractMemoryPolicy | None = None,
) -> FactoredCovariance:
    """The covariance of a least-squares estimate, `Σ = s² (JᵀJ)⁻¹`, for more data than parameters.

    J is linearised at `params`, the solution of a fit; Σ is that of estimates from data with
    independent errors of equal variance, as far as the model is linear over a standard error. It
    comes from the singular values of J with columns of one length, so that parameters of any sizes
    have all their digits, and JᵀJ is never formed.

    **Arguments:**

    - `residual_fn`, `params`, `args`, `has_aux`, `memory`: as for `gramlm.linearise`. J is stored
      if it takes up to 1 GiB; `gramlm.Rows` need no more than blocks of it.
    - `noise_variance`: s², the variance of a residual, squared residual units: 1 where residuals
      are divided by their standard deviations. Unless given it is estimated,
      `‖r‖²/(n − rank J)`, n without residuals of weight 0. Given under a loss, Σ is s² times the
      inverse of the J̃ᵀJ̃ that steps use.
    - `sandwich`: whether the scatter of each residual is taken from that residual alone,
      `Σ = n/(n − rank J)·(JᵀJ)⁻¹ Jᵀdiag(r²)J (JᵀJ)⁻¹`: for errors of variances that differ and are
      not known, and under a loss, where it is the default and JᵀJ is the Hessian of the loss, Jᵀr
      its gradient, and a block of `PerBlock` one residual. Needs n well above p, and J stored.
    - `rtol`: singular values of J with columns of one length count as zero up to this multiple of
      the largest, 8ε√max(n, p) unless given: raise it where J itself is not known to rounding.

    **Returns:** a `gramlm.uncertainty.FactoredCovariance`. What J does not determine has an
    infinite standard error, and everything else keeps its own. A residual of zero leaves standard
    errors of zero, and a NaN or an infinity anywhere in r or J leaves NaN.

    **Raises:** `ValueError` for n ≤ p without a `noise_variance`, and for a `sandwich` with one.

    Huber (1967) and White (1980) for the sandwich; its factor is HC1 of MacKinnon and White (1985).

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm

        x = jnp.linspace(-1.0, 1.0, 11)
        fitted = {"offset": jnp.asarray(1.0), "slope": jnp.asarray(2.0)}


        def residual(params):  # errors of variance 0.04
            return params["offset"] + params["slope"] * x - (1 + 2 * x)


        found = gramlm.uncertainty.covariance(residual, fitted, noise_variance=0.04)
        assert jnp.allclose(found.standard_errors()["offset"], 0.2 / 11**0.5)
        ```
    """
    check_between(rtol, "rtol", 0, 1, closed="low")
    noise = _deviation(noise_variance)
    sandwich = _wants_sandwich(residual_fn, noise, sandwich)
    params = _as_arrays(residual_fn, params)
    return _covariance(residual_fn, params, args, noise, rtol, has_aux, memory, sandwich, False)


@jaxtyped(typechecker=beartype)
def minimum_norm_covariance(
    residual_fn: Callable[..., Any],
    params: PyTree,
    args: PyTree = None,
    *,
    noise_variance: Scalar | None = None,
    sandwich: bool | None = None,
    rtol: float | int | None = None,
    has_aux: bool = False,
    memory: AbstractMemoryPolicy | None = None,
) -> FactoredCovariance:
    """The covariance of the least-squares estimate of least norm, `Σ = s² J⁺ J⁺ᵀ`, for any J.

    J⁺ is the pseudo-inverse. What J does not determine is taken for known: it adds no variance, as
    if a fit had left it where it started, and standard errors are finite. Where J has full rank and
    n ≥ p this is `gramlm.uncertainty.covariance`. The arguments are the same, but that here `rtol`
    is relative to the largest singular value of J itself.

    The smallest singular values that are kept decide everything: where they fall off smoothly, as
    those of kernels do, so does `rtol`, and `gramlm.uncertainty.posterior_covariance` is the one to
    ask.
    """
    check_between(rtol, "rtol", 0, 1, closed="low")
    noise = _deviation(noise_variance)
    sandwich = _wants_sandwich(residual_fn, noise, sandwich)
    params = _as_arrays(residual_fn, params)
    return _covariance(residual_fn, params, args, noise, rtol, has_aux, memory, sandwich, True)


@jaxtyped(typechecker=beartype)
def posterior_covariance(
    residual_fn: Callable[..., Any],
    params: PyTree,
    args: PyTree = None,
    *,
    prior: Any,
    noise_variance: Scalar,
    basis_size: int | None = None,
    num_probes: int = 16,
    block_size: int = 8,
    key: PRNGKeyArray | None = None,
    has_aux: bool = False,
    memory: AbstractMemoryPolicy | None = None,
) -> AbstractCovariance:
    """The covariance of a Gaussian posterior, `Σ = (P⁻¹ + JᵀJ/σ²)⁻¹`, for any n and p.

    The same as `P − P Jᵀ (J P Jᵀ + σ²I)⁻¹ J P`, where P is the covariance of the prior. For a
    linear model it is exact, as in Gaussian process regression; otherwise it is Laplace's
    approximation, without the curvature of the residuals (MacKay 1992).

    **Arguments:**

    - `residual_fn`, `params`, `args`, `has_aux`, `memory`: as for `gramlm.uncertainty.covariance`.
      The residual must not contain the prior already: if it does, use `covariance` with
      `noise_variance=1`.
    - `prior`: P: a variance for all parameters, a pytree of variances like `params`, or a positive
      definite lineax operator on the flat parameters; factorised as a matrix unless it is diagonal.
    - `noise_variance`: σ², squared residual units.
    - `basis_size`: None for the exact Σ, from J as a matrix; else the size of a block Krylov basis
      of the data, which grows by `block_size` vectors at a time, from products with J alone.
    - `num_probes`: random vectors that estimate what the basis misses. `key` draws these and
      the first block; a fixed one unless given.

    **Returns:** for n ≥ p without a basis a `gramlm.uncertainty.FactoredCovariance`, otherwise a
    `gramlm.uncertainty.PosteriorCovariance`. With a basis Σ is the posterior of what the basis
    knows of the data, and no variance is below the exact one. `overestimates` and
    `prediction_overestimates` say how far above: the mean over the probes of a bound, with a
    relative standard error of at most √(2/num_probes).

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm

        # One sum of two parameters is measured, each of which is known to ±1 beforehand.
        posterior = gramlm.uncertainty.posterior_covariance(
            lambda theta: jnp.sum(theta)[None], jnp.zeros(2), prior=1.0, noise_variance=0.5
        )
        assert jnp.allclose(posterior.as_matrix(), jnp.array([[0.6, -0.4], [-0.4, 0.6]]))
        ```
    """
    noise = _deviation(noise_variance)
    assert noise is not None
    check_at_least(basis_size, "basis_size", 1, ", or None")
    check_at_least(num_probes, "num_probes", 1)
    check_at_least(block_size, "block_size", 1)
    spec, flat = as_parameters(params, Problem.of(residual_fn).free)
    factor = as_prior(prior, spec, flat.dtype)
    key = jax.random.key(0) if key is None else key
    sizes = (basis_size, num_probes, block_size)
    params = spec.unflatten(flat)  # Python numbers would be compiled in
    return _posterior(residual_fn, params, args, factor, noise, sizes, key, has_aux, memory)


@eqx.filter_jit
def _covariance(
    residual_fn, params, args, noise, rtol, has_aux: bool, memory, sandwich: bool, least_norm: bool
) -> FactoredCovariance:
    problem, flat = flat_problem(residual_fn, params, args, has_aux)
    model = _model(problem, flat, memory, whole=True)
    at = model.at
    n, p, dtype = at.num_residuals, at.num_params, flat.dtype
    if noise is None and n <= p:
        raise ValueError(
            f"The noise variance can be estimated from n > p residuals only; here n = {n} and "
            f"p = {p}. Pass `noise_variance`."
        )
    threshold = relative_threshold(n, p, dtype) if rtol is None else rtol
    jacobian = jacobian_of(at) if sandwich else None
    triangle = triangle_of(at) if jacobian is None else jnp.linalg.qr(jacobian, mode="r")
    rtol, loose = jnp.asarray(threshold, dtype), None
    if least_norm:
        factor, rank = minimum_norm_factor(triangle, rtol)
    else:
        factor, loose, rank = scaled_factors(triangle, rtol)
    count = problem.weights.count(n)
    if noise is None:
        degrees = (count - rank).astype(dtype)
        noise = deviation(model.residual, degrees)
    else:
        noise, degrees = noise.astype(dtype), jnp.asarray(jnp.inf, dtype)
    if jacobian is not None:
        blocks = problem.loss.blocks(model.residual, at.residual, jacobian)
        factor = sandwich_factor(factor, blocks, noise, count / degrees)
    return FactoredCovariance(
        params=flat,
        params_spec=problem.params_spec,
        factor=factor,
        loose=loose,
        noise=noise,
        rank=rank,
        degrees_of_freedom=degrees,
    )


@eqx.filter_jit
def _posterior(
    residual_fn, params, args, prior: PriorFactor, noise, sizes, key, has_aux: bool, memory
) -> AbstractCovariance:
    basis_size, num_probes, block = sizes
    whole = basis_size is None
    problem, flat = flat_problem(residual_fn, params, args, has_aux)
    at = _model(problem, flat, memory, whole).at
    (n, p), dtype = (at.num_residuals, at.num_params), flat.dtype
    endless = jnp.asarray(jnp.inf, dtype)
    common = {"params": flat, "params_spec": problem.params_spec, "degrees_of_freedom": endless}
    sigma = noise.astype(dtype)

    def whitened(rows: Float[Array, "k p"]) -> Float[Array, "k p"]:
        return prior.transposed(rows) / sigma

    if whole or basis_size >= min(n, p):
        if n >= p:
            stacked = jnp.concatenate([whitened(triangle_of(at)), jnp.eye(p, dtype=dtype)])
            rtol = jnp.asarray(relative_threshold(n, p, dtype), dtype)
            factor, loose, rank = scaled_factors(jnp.linalg.qr(stacked, mode="r"), rtol)
            factor, loose = (prior.times(part.T).T for part in (factor, loose))
            return FactoredCovariance(
                factor=factor, loose=loose, noise=jnp.ones((), dtype), rank=rank, **common
            )
        values, directions = right_singular(whitened(jacobian_of(at)))
        none = jnp.zeros((0, p), dtype)
        return PosteriorCovariance(
            prior=prior, values=values, directions=directions, probes=none, **common
        )

    def backward(u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        """Rows `uᵀ J L/σ`, a block of them at a time."""
        count = min(block, len(u))
        padded = jnp.pad(u, ((0, -len(u) % count), (0, 0)))

        def product(start):
            part = jax.lax.dynamic_slice_in_dim(padded, start, count)
            return whitened(at.vjp_block(part))

        return map_blocks(product, len(u), count)

    def gram(u: Float[Array, "b n"]) -> Float[Array, "b n"]:
        return at.jvp_block(prior.times(whitened(at.vjp_block(u)))) / sigma

    first, second = jax.random.split(key)
    start = jax.random.normal(first, (min(block, n), n), dtype)
    basis = krylov_basis(gram, basis_size, start)[0].vectors
    values, directions = right_singular(backward(basis))
    probes = jax.random.normal(second, (num_probes, n), dtype)
    for _ in range(2):
        probes = probes - matmul(matmul(probes, basis.T), basis)
    # With the Schur complement S ⪰ I of what lies outside of the basis, Σ is too large by
    # G S⁻¹ Gᵀ ⪯ G Gᵀ, and G z = L (I − Vᵀ diag(s²/(1+s²)) V) Lᵀ Jᵀ z/σ for z there.
    missed = shrunk(backward(probes), directions, learned(values))
    missed = prior.times(missed) / num_probes**0.5
    return PosteriorCovariance(
        prior=prior, values=values, directions=directions, probes=missed, **common
    )


def _model(
    problem: FlatProblem, flat: Float[Array, " p"], memory: AbstractMemoryPolicy | None, whole: bool
) -> Model:
    if memory is not None:
        return model_at(problem, flat, memory)
    at = model_at(problem, flat, Recompute()).at  # for its shapes: nothing of it is computed
    size = ProblemSize(
        residuals=at.num_residuals,
        params=flat.size,
        itemsize=flat.dtype.itemsize,
        cheap_rows=at.source is not None and at.source.function.cheap_rows,
        accelerator=jax.default_backend() != "cpu",
        memory_limit=_MEMORY_LIMIT,
    )
    # Where all of J is wanted it is assembled once, however dear its rows are.
    fits = size.jacobian_bytes <= _MEMORY_LIMIT // 2
    return model_at(problem, flat, Materialise() if whole and fits else AutoMemory().choose(size))


def _as_arrays(residual_fn: Callable[..., Any], params: PyTree) -> PyTree:
    # Python numbers would be compiled in.
    spec, flat = as_parameters(params, Problem.of(residual_fn).free)
    return spec.unflatten(flat)


def _deviation(variance: Scalar | None) -> Array | None:
    """The standard deviation of a residual."""
    if variance is None or isinstance(variance, Tracer):
        return None if variance is None else jnp.sqrt(variance)
    check_positive(variance, "noise_variance", ", in squared residual units", finite=True)
    # In float64, where its square might underflow.
    return jnp.asarray(np.sqrt(np.asarray(variance, float)))


def _wants_sandwich(residual_fn: Any, noise: Array | None, sandwich: bool | None) -> bool:
    if sandwich and noise is not None:
        raise ValueError(
            "`sandwich=True` takes the scatter of residuals from these; leave out `noise_variance`."
        )
    robust = Problem.of(residual_fn).loss is not None
    if robust and noise is None and sandwich is False:
        raise ValueError(
            "`sandwich=False` under a loss needs a `noise_variance`: what residuals scatter by is "
            "then not what parameters do."
        )
    return robust and noise is None if sandwich is None else sandwich
