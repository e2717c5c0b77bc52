"""Preconditioned conjugate gradients for `(K + λI) w = b`, stopped on what the step is for.

With `ρ = b − (K + λI)w`, and `P(w) = ½‖b − Kw‖² + ½λ wᵀKw` the objective of the step that w stands
for, `P(w) − min P = ½ ρᵀK(K + λI)⁻¹ρ ≤ ½‖ρ‖²`: a solve ends where this bound is a small part of
the decrease `½‖b‖² − P(w)`. Neither takes a product.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._core.arrays import Scalar, safe_divide
from ..._core.checks import check_at_least
from ..._core.reductions import all_finite, dot, is_zero, magnitude, norm, sum_squares
from .directions import SearchDirections

# The rounding of a product with K, over ε·λmax(K)·‖w‖: below it a residual says nothing. Half a
# unit is that of a number; of a product it is arbitrary.
_ROUNDING = 0.5

# A solve that stagnates with up to this many times as much has come to it as well: on matrices of
# order 60 in either precision those that did had left up to 1.3 times as much.
_SLACK = 2.0

# A true residual this close to that of the recurrence leaves the search direction as it is.
# Arbitrary.
_AGREEMENT = 0.1

# A claim of convergence that proves false must leave no more than this part of the last one's true
# residual. Arbitrary.
_PROGRESS = 0.5

Vector = Float[Array, " m"]
Number = Float[Array, ""]
Gap = Callable[[Vector, Vector, Vector, Vector, Number], tuple[Number, Number]]


def dual_gap(
    solution: Vector, image: Vector, rhs: Vector, residual: Vector, damping: Number
) -> tuple[Number, Number]:
    """`½‖ρ‖² ≥ P(w) − min P` and `½‖b‖² − P(w) = ½ (Kw)·(b + ρ)`, for `(JM⁻¹Jᵀ + λI) w = b`."""
    del solution, damping
    return 0.5 * sum_squares(residual), 0.5 * dot(image, rhs + residual)


def normal_gap(
    solution: Vector, image: Vector, rhs: Vector, residual: Vector, damping: Number
) -> tuple[Number, Number]:
    """`‖ρ‖²/(2λ) ≥ Q(y) − min Q` and `½‖r‖² − Q(y) = ½ y·(b + ρ)`, for `(BᵀB + λI) y = b`.

    There `b = Bᵀr` and `Q(y) = ½‖r − By‖² + ½λ‖y‖²`.
    """
    del image
    return 0.5 * sum_squares(residual) / damping, 0.5 * dot(solution, rhs + residual)


class CGSolution(eqx.Module):
    """What `preconditioned_cg` found.

    **Attributes:**

    - `solution` w, (m,); `image` `Kw`; `residual` `b − (K + λI)w`, from products with K.
    - `iterations`; `products` with K, among them those that replaced a residual.
    - `missed`: the part of the decrease that is missed, at most; 1 for w = 0.
    - `converged`: `missed ≤ tolerance`. `rounded`: what is left is the rounding of K. With
      neither, the solve ended at `max_iterations`, stagnated, or broke down.
    - `broken`: K + λI or the preconditioner is not positive definite, or something not finite.
    - `directions`: those given, and those of this solve.
    """

    solution: Float[Array, " m"]
    image: Float[Array, " m"]
    residual: Float[Array, " m"]
    iterations: Int[Array, ""]
    products: Int[Array, ""]
    missed: Float[Array, ""]
    converged: Bool[Array, ""]
    rounded: Bool[Array, ""]
    broken: Bool[Array, ""]
    directions: SearchDirections


class _Iterate(NamedTuple):
    w: Array
    image: Array  # K w
    rho: Array
    direction: Array
    slope: Array  # ρ · M⁻¹ρ
    least: Array  # norm of the last true residual
    iterations: Array
    products: Array
    replace: Array  # whether ρ is to be replaced
    broken: Array
    done: Array
    directions: SearchDirections


def preconditioned_cg(
    multiply: Callable[[Vector], Vector],
    precondition: Callable[[Vector], Vector],
    rhs: Float[Array, " m"],
    damping: Float[Array, ""],
    *,
    largest_eigenvalue: Float[Array, ""],
    tolerance: Scalar,
    max_iterations: int,
    start: tuple[Vector, Vector] | None = None,
    gap: Gap = dual_gap,
    directions: SearchDirections | None = None,
) -> CGSolution:
    """Solves `(K + λI) w = b` for a symmetric positive semidefinite K (Hestenes and Stiefel 1952).

    A pass makes one product with K: with the search direction, or, where the residual of the
    recurrence meets a stopping test, with w, to replace it. So every solve ends on a true residual,
    and goes on from it where the two have parted; it stagnates where the next claim leaves more
    than half as much. Replacing it earlier as well (van der Vorst and Ye 2000) cost a quarter more
    iterations in float32. b and K are scaled to one first, so that their units may be anything
    that the dtype holds.

    **Arguments:**

    - `multiply`: `x ↦ Kx`, (m,) to (m,), without damping.
    - `precondition`: `x ↦ M⁻¹x ≈ (K + λI)⁻¹x`, symmetric positive definite, in any units.
    - `rhs` b, (m,); `damping` λ, in units of K.
    - `largest_eigenvalue`: an estimate of λmax(K), for units and rounding.
    - `tolerance`: the part of the decrease that may be missed.
    - `max_iterations`: products that replace a residual are not counted.
    - `start`: a w to start from, and its `Kw`. Zero unless given, or where they are not finite.
    - `gap`: the bound on what is missed and the decrease, from `(w, Kw, b, ρ, λ)`.
    - `directions`: receives the search directions and their images, as long as there is room.

    Whatever K, b and the preconditioner are, the w of the `CGSolution` is finite.
    """
    check_at_least(max_iterations, "max_iterations", 1)
    eps = jnp.finfo(rhs.dtype).eps
    scale = magnitude(rhs)
    unit = largest_eigenvalue + damping
    unit = jnp.where((unit > 0) & jnp.isfinite(unit), unit, 1)
    b, shift, back = safe_divide(rhs, scale), damping / unit, scale / unit
    size = norm(b)
    strength = magnitude(precondition(b))

    def smooth(rho: Vector) -> Vector:
        # In the units in which the preconditioner takes b to entries of at most one.
        return safe_divide(precondition(rho), strength)

    def part_missed(w: Vector, image: Vector, rho: Vector) -> Number:
        missed, decrease = gap(w, image, b, rho, shift)
        part = jnp.where(decrease >= 0, safe_divide(missed, missed + decrease), jnp.inf)
        return jnp.where(missed == 0, 0, part)

    def rounding(w: Vector) -> Number:
        return _ROUNDING * eps * (norm(w) + size)

    def met(w: Vector, image: Vector, rho: Vector) -> Bool[Array, ""]:
        return (part_missed(w, image, rho) <= tolerance) | (norm(rho) <= rounding(w))

    def advance(it: _Iterate) -> _Iterate:
        replace = it.replace
        x = jnp.where(replace, it.w, it.direction)
        image = multiply(x) / unit
        damped = image + shift * x

        curvature = dot(x, damped)
        length = dot(it.rho, x) / curvature
        w = it.w + length * x
        forward = ~replace & (curvature > 0) & jnp.isfinite(curvature) & all_finite(w)
        w = jnp.where(forward, w, it.w)
        # Selected, not multiplied: what is not finite must not get into w or its residual.
        stepped = jnp.where(forward, it.rho - length * damped, it.rho)
        rho = jnp.where(replace, b - damped, stepped)
        image_w = jnp.where(forward, it.image + length * image, it.image)
        image_w = jnp.where(replace, image, image_w)
        size_rho = norm(rho)

        z = smooth(rho)
        slope = dot(rho, z)
        definite = ((slope > 0) & jnp.isfinite(slope)) | (size_rho == 0)
        broken = it.broken | ~(replace | forward) | ~definite
        agrees = norm(rho - it.rho) <= _AGREEMENT * size_rho
        momentum = jnp.where(replace, 0, safe_divide(slope, it.slope))
        direction = jnp.where(replace & agrees, it.direction, z + momentum * it.direction)

        iterations = it.iterations + jnp.where(replace, 0, 1)
        last = met(w, image_w, rho) | broken | (iterations >= max_iterations)
        stagnant = size_rho > _PROGRESS * it.least
        return _Iterate(
            w=w,
            image=image_w,
            rho=rho,
            direction=direction,
            slope=slope,
            least=jnp.where(replace, size_rho, it.least),
            iterations=iterations,
            products=it.products + 1,
            replace=~replace & last,
            broken=broken,
            done=replace & (last | stagnant),
            directions=it.directions.added(x, unit * image, forward),
        )

    w = image = jnp.zeros_like(b)
    if start is not None:
        given = safe_divide(start[0], back), safe_divide(start[1], scale)
        finite = all_finite(given[0]) & all_finite(given[1])
        w, image = (jnp.where(finite, part, 0) for part in given)
    rho = b - image - shift * w
    z = smooth(rho)
    slope = dot(rho, z)
    finite = jnp.isfinite(size) & jnp.isfinite(back) & jnp.isfinite(slope)
    broken = ~(finite & ((slope > 0) | is_zero(rho)))
    claimed = met(w, image, rho)
    none = jnp.zeros((), jnp.int32)
    first = _Iterate(
        w=w,
        image=image,
        rho=rho,
        direction=z,
        slope=slope,
        least=jnp.full_like(size, jnp.inf),
        iterations=none,
        products=none,
        replace=claimed,
        broken=broken,
        done=broken | (claimed & is_zero(w)),
        directions=SearchDirections.empty(0, b) if directions is None else directions,
    )
    end = jax.lax.while_loop(lambda it: ~it.done, advance, first)
    missed = part_missed(end.w, end.image, end.rho)
    rounded = norm(end.rho) <= _SLACK * rounding(end.w)
    solution = end.w * back
    representable = all_finite(solution)
    return CGSolution(
        solution=jnp.where(representable, solution, 0),
        image=end.image * scale,
        residual=end.rho * scale,
        iterations=end.iterations,
        products=end.products,
        missed=jnp.where(representable, missed, jnp.inf),
        converged=representable & (missed <= tolerance),
        rounded=representable & rounded,
        broken=end.broken | ~representable,
        directions=end.directions,
    )
