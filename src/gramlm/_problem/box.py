"""Bounds of the parameters, and which of them hold some where they are."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Face(eqx.Module):
    """Which parameters may move in a step, and how far those that are held go: onto their bound.

    - `free`, (p,). `shift`, (p,): zero for those that are free.
    """

    free: Bool[Array, " p"]
    shift: Float[Array, " p"]


class Box(eqx.Module):
    """`lower ≤ θ ≤ upper`, flat, (p,); infinite where there is no bound."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]

    def project(self, params: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        """The nearest point of the box."""
        return jnp.clip(params, self.lower, self.upper)

    def land(self, params: Float[Array, " p"], steps: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        """Where steps end: within the box, and on a bound that is no more than rounding away.

        A parameter left an ulp from its bound would not be held there, and have nowhere to go.
        """
        place = self.project(params + steps)
        reach = 4 * jnp.finfo(params.dtype).eps

        def near(bound: Float[Array, " p"]) -> Bool[Array, "*k p"]:
            size = jnp.maximum(jnp.abs(params), jnp.abs(bound))
            return jnp.isfinite(bound) & (jnp.abs(place - bound) <= reach * size)

        place = jnp.where(near(self.lower), self.lower, place)
        return jnp.where(near(self.upper), self.upper, place)

    def contains(self, params: Float[Array, " p"]) -> Bool[Array, " p"]:
        """For each parameter, whether it is within its bounds."""
        return (params >= self.lower) & (params <= self.upper)

    def active(self, params: Float[Array, " p"]) -> Int[Array, " p"]:
        """−1 at a lower bound, 1 at an upper one, 0 between."""
        at_upper = (params >= self.upper).astype(jnp.int32)
        return jnp.where(params <= self.lower, -1, at_upper)

    def face(self, params: Float[Array, " p"], gradient: Float[Array, " p"]) -> Face:
        """Parameters at a bound beyond which the cost falls are held; those with one value too."""
        held = (params <= self.lower) & (gradient >= 0)
        held |= (params >= self.upper) & (gradient <= 0)
        return Face(~(held | (self.lower >= self.upper)), jnp.zeros_like(params))

    def beyond(
        self, face: Face, params: Float[Array, " p"], step: Float[Array, " p"]
    ) -> Bool[Array, " p"]:
        """The free parameters that a step would take out of the box."""
        return face.free & ~self.contains(params + step)

    def held(self, face: Face, params: Float[Array, " p"], step: Float[Array, " p"]) -> Face:
        """The face with those put onto the bound that a step would take beyond it."""
        leaving = self.beyond(face, params, step)
        there = self.project(params + step) - params
        return Face(face.free & ~leaving, jnp.where(leaving, there, face.shift))
