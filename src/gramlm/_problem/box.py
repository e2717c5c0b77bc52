"""Where parameters may go: anywhere, or within bounds, and which of these hold some of them."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Face(eqx.Module):
    """Which parameters may move in a step, and how far those that are held go: onto their bound.

    - `free`, (p,). `shift`, (p,): zero for those that are free.
    """

    free: Bool[Array, " p"]
    shift: Float[Array, " p"]


class AbstractBox(eqx.Module):
    """The set of parameters that are allowed.

    - `bounded`: whether there are any that are not.
    """

    bounded: eqx.AbstractVar[bool]

    @property
    @abc.abstractmethod
    def empty(self) -> Bool[Array, ""]:
        """Whether no parameters are allowed."""

    @abc.abstractmethod
    def contains(self, params: Float[Array, " p"]) -> Bool[Array, " p"]:
        """For each parameter, whether it is allowed."""

    @abc.abstractmethod
    def project(self, params: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        """The nearest point that is allowed."""

    @abc.abstractmethod
    def land(self, params: Float[Array, " p"], steps: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        """Where steps end."""

    @abc.abstractmethod
    def taken(
        self, params: Float[Array, " p"], step: Float[Array, " p"], place: Float[Array, " p"]
    ) -> Float[Array, " p"]:
        """What was made of a step that landed at `place`."""


class Unbounded(AbstractBox):
    """All of them."""

    bounded: bool = eqx.field(static=True, init=False, default=False)

    @property
    def empty(self) -> Bool[Array, ""]:
        return jnp.asarray(False)

    def contains(self, params: Float[Array, " p"]) -> Bool[Array, " p"]:
        return jnp.ones(params.shape, bool)

    def project(self, params: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        return params

    def land(self, params: Float[Array, " p"], steps: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        return params + steps

    def taken(
        self, params: Float[Array, " p"], step: Float[Array, " p"], place: Float[Array, " p"]
    ) -> Float[Array, " p"]:
        return step  # as it is, not as it is rounded to when it is added


class Box(AbstractBox):
    """`lower ≤ θ ≤ upper`, flat, (p,); infinite where there is no bound."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]
    bounded: bool = eqx.field(static=True, init=False, default=True)

    @property
    def empty(self) -> Bool[Array, ""]:
        # Comparisons with NaN are false.
        possible = (self.lower <= self.upper) & (self.lower < jnp.inf) & (self.upper > -jnp.inf)
        return jnp.any(~possible)

    def project(self, params: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        return jnp.clip(params, self.lower, self.upper)

    def land(self, params: Float[Array, " p"], steps: Float[Array, "*k p"]) -> Float[Array, "*k p"]:
        """Within the box, and on a bound that is no more than rounding away.

        A parameter left an ulp from its bound would not be held there, and have nowhere to go.
        """
        place = self.project(params + steps)
        # The step, its sum and two differences are rounded: four units in the last place.
        reach = 4 * jnp.finfo(params.dtype).eps

        def near(bound: Float[Array, " p"]) -> Bool[Array, "*k p"]:
            size = jnp.maximum(jnp.abs(params), jnp.abs(bound))
            return jnp.isfinite(bound) & (jnp.abs(place - bound) <= reach * size)

        place = jnp.where(near(self.lower), self.lower, place)
        return jnp.where(near(self.upper), self.upper, place)

    def taken(
        self, params: Float[Array, " p"], step: Float[Array, " p"], place: Float[Array, " p"]
    ) -> Float[Array, " p"]:
        return place - params

    def contains(self, params: Float[Array, " p"]) -> Bool[Array, " p"]:
        return (params >= self.lower) & (params <= self.upper)

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
