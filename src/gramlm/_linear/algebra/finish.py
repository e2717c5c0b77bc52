"""What a full basis leaves of a system, finished by conjugate gradients deflated with it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._core.arrays import safe_divide
from ..._core.reductions import norm
from .basis import Subspace
from .cg import CGSolution
from .growth import Outcome, Space
from .usable import USABLE_MISS

Vector = Float[Array, " m"]


def deflation(
    space: Subspace,
    damping: Float[Array, ""],
    solve: Callable[[Float[Array, " k"]], Float[Array, " k"]],
) -> Callable[[Vector], Vector]:
    """`x ↦ Zᵀ(T + λI)⁻¹Z x + (x − ZᵀZ x)/(μ + λ)`, with the least Rayleigh quotient μ of the basis.

    `solve` is `(T + λI)⁻¹`. Outside of the basis K has no large eigenvalue any more: there a
    number stands for it.
    """
    used = jnp.arange(space.capacity) < space.count
    quotients = jnp.diag(space.projected)
    least = jnp.min(jnp.where(used & (quotients > 0), quotients, jnp.inf))
    rest = 1 / (damping + jnp.where(jnp.isfinite(least), least, 0))

    def apply(x: Vector) -> Vector:
        inside = space.coordinates(x)
        return rest * x + space.combine(solve(inside) - rest * inside)

    return apply


def finished(
    solution: Vector,
    image: Float[Array, " n"],
    outcome: Outcome[Space],
    unmet: Bool[Array, ""],
    target: Float[Array, ""],
    iterate: Callable[[], tuple[CGSolution, Float[Array, " n"]]],
) -> tuple[Vector, Float[Array, " n"], Outcome[Space]]:
    """A solution as it is, or where the tolerance is `unmet` what `iterate` makes of it.

    `iterate` returns its solution and the image of that in the sense of `image`; `target` is the
    norm of its right-hand side.
    """

    def go_on():
        found, image_of_it = iterate()
        after = Outcome(
            work=outcome.work,
            passes=outcome.passes + found.iterations,
            products=outcome.products + 2 * found.products,
            relative_residual=safe_divide(norm(found.residual), target),
            usable=(found.missed <= USABLE_MISS) | found.rounded,
        )
        return found.solution, image_of_it, after

    return jax.lax.cond(unmet, go_on, lambda: (solution, image, outcome))
