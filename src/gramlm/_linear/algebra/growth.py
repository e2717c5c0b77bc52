"""How a Krylov basis grows: from what is recycled first, then by block Lanczos steps."""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._core.arrays import safe_divide, scattered_signs
from ..._core.reductions import all_finite, norm, sum_squares
from .basis import AbstractSubspace
from .sizes import BlockSizes
from .usable import USABLE_MISS

Space = TypeVar("Space", bound=AbstractSubspace)

# Recycled vectors are taken in as a large block if they fill this part of it. Arbitrary.
_FILLED_PART = 0.75

# The residual of a system is computed to about this multiple of its unit of rounding. Arbitrary.
_ROUNDING = 8.0

# What is left of a system may be called rounding up to this part of its right-hand side.
# Arbitrary.
_ROUNDED_PART = 0.1


class Recycled(eqx.Module):
    """What the basis of one Jacobian leaves to the next.

    **Attributes:** `values`, the Ritz values in descending order; `vectors`, (c, m), the Ritz
    vectors of the first of them, of which `count` are worth keeping; `basis_size`, the number of
    vectors that the basis had; `effective_dimension`, `Σ μ/(μ + λ)` over its Ritz values μ.
    """

    vectors: Float[Array, "c m"]
    values: Float[Array, " k"]
    count: Int[Array, ""]
    basis_size: Int[Array, ""]
    effective_dimension: Float[Array, ""]


def fresh_recycled(sizes: BlockSizes, like: Float[Array, " m"]) -> Recycled:
    """Nothing, in arrays of the right shapes."""
    none = jnp.zeros((), jnp.int32)
    return Recycled(
        vectors=jnp.zeros((sizes.recycled_room, like.size), like.dtype),
        values=jnp.zeros((sizes.capacity,), like.dtype),
        count=none,
        basis_size=none,
        effective_dimension=jnp.zeros((), like.dtype),
    )


def recycled(
    space: AbstractSubspace, damping: Float[Array, ""], keep: float, before: Recycled
) -> Recycled:
    """The Ritz vectors of a basis whose values exceed `keep`·λ; those from `before` on failure."""
    room, basis = before.vectors.shape[0], space.basis
    values, vectors = basis.ritz(room)
    after = Recycled(
        vectors=vectors,
        values=values,
        count=jnp.minimum(jnp.sum(values > keep * damping), room).astype(jnp.int32),
        basis_size=basis.count,
        effective_dimension=jnp.sum(safe_divide(values, values + damping)),
    )
    usable = all_finite(vectors) & (basis.count > 0)
    return jax.tree.map(lambda new, old: jnp.where(usable, new, old), after, before)


class Work(eqx.Module, Generic[Space]):
    """The basis so far, how many recycled vectors it has taken in, and the λ of the last solve."""

    space: Space
    taken: Int[Array, ""]
    damping: Float[Array, ""]

    @classmethod
    def fresh(cls, space: Space) -> "Work[Space]":
        """With an empty basis."""
        return Work(space, jnp.zeros((), jnp.int32), jnp.zeros((), space.basis.dtype))


class Attempt(NamedTuple):
    """The best solution that a basis holds.

    `rho` is the residual of the damped system, `target` the norm of its right-hand side, and
    `scale` the largest that this could be; the decrease that is missed is at most
    `½‖ρ‖²/curvature`. `rounding`: the unit of rounding of `rho`.
    """

    coordinates: Float[Array, " k"]
    rho: Float[Array, " m"]
    decrease: Float[Array, ""]
    curvature: Float[Array, ""]
    target: Float[Array, ""]
    scale: Float[Array, ""]
    rounding: Float[Array, ""]

    def _squares(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """What may be missed, and all there may be: decreases times twice the curvature."""
        missed = sum_squares(self.rho)
        return missed, missed + 2 * self.decrease * self.curvature

    def _rounded(self) -> Bool[Array, ""]:
        return sum_squares(self.rho) <= (_ROUNDING * self.rounding) ** 2

    def meets(self, tolerance: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether at most `tolerance²` of the decrease is missed, or all to rounding is done."""
        missed, possible = self._squares()
        # What is not finite meets everything: more vectors would not help it.
        return ~(missed > tolerance**2 * possible) | self._rounded()

    def usable(self) -> Bool[Array, ""]:
        """Whether the solution is worth a trial, by what of the decrease is missed."""
        missed, possible = self._squares()
        rounded = self._rounded() & (missed <= (_ROUNDED_PART * self.scale) ** 2)
        enough = (missed <= USABLE_MISS * possible) | rounded
        return enough & jnp.isfinite(missed)


class Growth(eqx.Module, Generic[Space]):
    """A basis as it grows; `damped` is what is known of it at one λ, `taken` and `passes` counts
    of recycled vectors and of blocks.
    """

    space: Space
    damped: Any
    taken: Int[Array, ""]
    passes: Int[Array, ""]
    last: Attempt


class Outcome(eqx.Module, Generic[Space]):
    """How a solve went: `products` with J beside those of the basis. Nothing is differentiated."""

    work: Work[Space]
    passes: Int[Array, ""]
    products: Int[Array, ""]
    relative_residual: Float[Array, ""]
    usable: Bool[Array, ""]

    @classmethod
    def of(cls, end: Growth[Space], damping: Float[Array, ""]) -> "Outcome[Space]":
        last = end.last
        return Outcome(
            work=Work(end.space, end.taken, damping),
            passes=end.passes,
            products=jnp.zeros_like(end.passes),
            relative_residual=safe_divide(norm(last.rho), last.target),
            usable=last.usable(),
        )


def grown(
    recycled: Recycled,
    sizes: BlockSizes,
    work: Work[Space],
    damped: Any,
    tolerance: Float[Array, ""],
    attempt: Callable[[Space, Any], Attempt],
    extend: Callable[[Space, Any, Float[Array, "b m"]], tuple[Space, Any]],
) -> Growth[Space]:
    """Extends a basis until an attempt meets the tolerance, or there is no room."""
    m = recycled.vectors.shape[1]
    dtype = recycled.vectors.dtype

    def with_residual(block: Float[Array, "b m"], it: Growth):
        # The first rows are the least significant ones of an orthonormalised block. Where fewer
        # directions are left than it has rows, they stay out.
        size = block.shape[0]
        first = jnp.clip(size - (m - it.space.basis.count), 0, size - 1)
        block = jnp.where(jnp.arange(size)[:, None] < first, 0, block)
        return block.at[first].set(it.last.rho)

    def known(it: Growth, size: int):
        held = min(size, recycled.vectors.shape[0])
        block = jax.lax.dynamic_slice_in_dim(recycled.vectors, it.taken, held)[::-1]
        return jnp.pad(block, ((size - held, 0), (0, 0)))

    def lanczos(it: Growth):
        start = scattered_signs(sizes.block * m, dtype).reshape(sizes.block, m)
        return jnp.where(it.space.basis.count == 0, start, it.space.basis.last_images(sizes.block))

    def small(it: Growth):
        if sizes.recycled == 0:
            block, taken = lanczos(it), it.taken
        else:
            left = recycled.count - it.taken
            block = jnp.where(left > 0, known(it, sizes.block), lanczos(it))
            taken = it.taken + jnp.where(left > 0, sizes.block, 0)
        return *extend(it.space, it.damped, with_residual(block, it)), taken

    def large(it: Growth):
        block = known(it, sizes.recycled)
        larger = extend(it.space, it.damped, with_residual(block, it))
        return *larger, it.taken + sizes.recycled

    def many(it: Growth):
        # Nearly as many as a large block takes; a few more do no harm, many would be a waste.
        return recycled.count - it.taken > _FILLED_PART * sizes.recycled

    def unfinished(it: Growth):
        basis = it.space.basis
        room = (basis.count + sizes.block <= basis.capacity) & (basis.count < m)
        # Where not even the residual is new, what is left of it is rounding.
        new = (basis.newest > 0) | (it.passes == 0) | (it.taken < recycled.count)
        return ~it.last.meets(tolerance) & room & new

    def advance(it: Growth) -> Growth:
        if sizes.recycled <= sizes.block:
            space, damped, taken = small(it)
        else:
            fits = it.space.basis.count + sizes.recycled <= it.space.basis.capacity
            space, damped, taken = jax.lax.cond(many(it) & fits, large, small, it)
        return Growth(space, damped, taken, it.passes + 1, attempt(space, damped))

    none = jnp.zeros((), jnp.int32)
    start = Growth(work.space, damped, work.taken, none, attempt(work.space, damped))
    return jax.lax.while_loop(unfinished, advance, start)
