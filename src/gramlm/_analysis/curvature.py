"""Products with the second derivatives of the cost `½‖r(θ)‖²`, on pytrees."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, PyTree, jaxtyped

from .._core.flatten import FlatSpec, as_parameters
from .._model.linearise import linearise
from .._model.memory import AbstractMemoryPolicy, Keep
from .._problem.build import flat_problem
from .._problem.problem import Problem


@jaxtyped(typechecker=beartype)
def hessian_product(
    residual_fn: Callable[..., Any],
    params: PyTree,
    vector: PyTree,
    args: PyTree = None,
    *,
    has_aux: bool = False,
    memory: AbstractMemoryPolicy | None = None,
) -> PyTree:
    """`∇²(½‖r‖²) v = JᵀJ v + Σ rᵢ ∇²rᵢ v` at `params`, a pytree as they are (Pearlmutter 1994).

    Forward over reverse, at a small multiple of the price of a gradient. What it has beyond
    `gauss_newton_product` is the curvature of the residuals. Where parameters are complex, the real
    and imaginary parts of v and of the product are those of pairs of real numbers.

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm

        # ½(θ²)² has the second derivative 6θ².
        point, direction = jnp.array([2.0]), jnp.array([1.0])
        product = gramlm.diagnostics.hessian_product(lambda t: t**2, point, direction)
        assert jnp.allclose(product, 24.0)
        ```
    """
    return _hessian_product(residual_fn, params, vector, args, has_aux, memory)


@jaxtyped(typechecker=beartype)
def gauss_newton_product(
    residual_fn: Callable[..., Any],
    params: PyTree,
    vector: PyTree,
    args: PyTree = None,
    *,
    has_aux: bool = False,
    memory: AbstractMemoryPolicy | None = None,
) -> PyTree:
    """`JᵀJ v` at `params`, a pytree as they are.

    For several products at one point use `gramlm.linearise` once, and `vjp(jvp(v))`.
    """
    return _gauss_newton_product(residual_fn, params, vector, args, has_aux, memory)


@eqx.filter_jit
def _hessian_product(residual_fn, params, vector, args, has_aux: bool, memory):
    problem, flat = flat_problem(residual_fn, params, args, has_aux)
    problem = problem.prepared((Keep() if memory is None else memory).prepare)
    direction = _as_direction(vector, problem.params_spec, flat.dtype)
    gradient = jax.grad(lambda q: problem.cost(problem.residual(q)))
    return problem.params_spec.blank.unflatten(jax.jvp(gradient, (flat,), (direction,))[1])


@eqx.filter_jit
def _gauss_newton_product(residual_fn, params, vector, args, has_aux: bool, memory):
    spec, flat = as_parameters(params, Problem.of(residual_fn).free)
    at = linearise(residual_fn, params, args, has_aux=has_aux, memory=memory)
    return spec.blank.unflatten(at.vjp(at.jvp(_as_direction(vector, spec, flat.dtype))))


def _as_direction(vector: PyTree, spec: FlatSpec, dtype: Any) -> Float[Array, " p"]:
    """A direction as a flat vector of the dtype of the parameters."""
    wanted = jax.tree.structure(spec.blank.unflatten(jnp.zeros((spec.size,), dtype)))
    leaves, treedef = jax.tree.flatten(vector)
    if treedef != wanted:
        raise ValueError(
            f"`vector` must be a pytree like `params`, None where they are fixed, {wanted}; got "
            f"{treedef}."
        )
    slots = [slot for slot in spec.slots if slot is not None]
    shapes, expected = [jnp.shape(leaf) for leaf in leaves], [slot.shape for slot in slots]
    if shapes != expected:
        raise ValueError(
            f"`vector` must have arrays of the shapes of `params`, {expected}; got {shapes}."
        )
    parts = []
    for slot, leaf in zip(slots, leaves, strict=True):
        array = jnp.asarray(leaf)
        if jnp.iscomplexobj(array) and not slot.is_complex:
            raise TypeError(f"`vector` must be real where `params` is; got {array.dtype}.")
        parts.append(slot.flatten(array).astype(dtype))
    return jnp.concatenate(parts)
