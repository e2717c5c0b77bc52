"""A linearisation at a point, for whoever wants its products."""

from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import Array, Float, PyTree, jaxtyped

from .._problem.build import flat_problem
from .._problem.flat import FlatProblem
from .linearisation import AbstractLinearisation
from .memory import AbstractMemoryPolicy, Keep
from .model import Model


@jaxtyped(typechecker=beartype)
def linearise(
    residual_fn: Callable[..., Any],
    params: PyTree,
    args: PyTree = None,
    *,
    has_aux: bool = False,
    memory: AbstractMemoryPolicy | None = None,
) -> AbstractLinearisation:
    """The residual at `params` and products with its Jacobian there.

    `linearisation.residual` is the flat residual (n,); `jvp` and `vjp` multiply one vector by J
    and Jᵀ, `jvp_block` and `vjp_block` several. `memory` is `Keep()` unless given. Vectors are
    real: a complex array is all its real parts, and then all its imaginary parts.

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm

        x = jnp.array([1.0, 2.0, 3.0])
        params = {"a": jnp.asarray(1.0), "b": jnp.asarray(0.0)}
        linearisation = gramlm.linearise(lambda p: p["a"] * x + p["b"], params)
        gradient = linearisation.vjp(linearisation.residual)  # Jᵀr, in the order a, b
        assert jnp.allclose(gradient, jnp.array([14.0, 6.0]))
        ```
    """
    problem, flat = flat_problem(residual_fn, params, args, has_aux)
    return model_at(problem, flat, Keep() if memory is None else memory).at


def model_at(problem: FlatProblem, flat: Float[Array, " p"], memory: AbstractMemoryPolicy) -> Model:
    """The model of a problem at a point, under a memory policy."""
    problem = problem.prepared(memory.prepare)
    return Model.of(problem, memory.linearise(problem.function, flat)[0])
