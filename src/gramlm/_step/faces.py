"""Steps that end within bounds.

For each λ the step solves `min ½‖r + Jδ‖² + ½λ‖δ‖²_M` with the parameters that it would take out of
the box put onto their bound, and solves again for the others; a few times at most, and only where
to cut the step off at the bounds would lose much of what the linear model promises. What is then
left outside is cut off. As λ grows this becomes the projected gradient, so that some λ lowers the
cost (Bertsekas 1982; Kanzow, Yamashita and Fukushima 2004).
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._linear.solver.base import LinearStep
from .._model.model import Model
from .._problem.box import Box, Face

# Of the decrease that the model promises of a step this much has to be left at the bounds, or the
# face is refined (0.9 took 45 Jacobians on an ill-conditioned problem of 500 parameters, 0.5 62).
_WORTH = 0.9

# A forcing term is at most this: what a step misses decides which parameters leave the box. The
# weights of 700 × 1500 positive bumps were at the optimum to seven digits after 25 steps, with 0.01
# to 0.1 to three and a half.
_LARGEST_FORCING = 1e-3

# How often one λ is solved for.
_ROUNDS = 8


class FaceSearch(eqx.Module):
    """The face on which to solve next.

    - `wanted`: whether it is another one than that which is factorised.
    - `damping`: the λ for which it is, NaN where the damping rule may choose.
    - `rounds`: how often the λ has been solved for.
    - `promise`: the decrease that the linear model promises for that λ without regard to bounds
      beyond those of the iterate, NaN before it is known.
    """

    face: Face
    wanted: Bool[Array, ""]
    damping: Float[Array, ""]
    rounds: Int[Array, ""]
    promise: Float[Array, ""]

    @classmethod
    def start(cls, face: Face) -> "FaceSearch":
        """On the face of the iterate itself."""
        unknown = jnp.full((), jnp.nan, face.shift.dtype)
        return cls(face, jnp.asarray(True), unknown, jnp.zeros((), jnp.int32), unknown)

    def held_at(self, wanted: "WantedFace", damping: Float[Array, ""]) -> "FaceSearch":
        """Next a smaller face, for the same λ."""
        rounds, promise = self.rounds + 1, self.promised(wanted)
        return FaceSearch(wanted.face, jnp.asarray(True), damping, rounds, promise)

    def promised(self, wanted: "WantedFace") -> Float[Array, ""]:
        """`promise`, from the first face of the λ."""
        return jnp.where(self.rounds == 0, wanted.promise, self.promise)

    def after_rejected(self, base: Face) -> "FaceSearch":
        """For another λ, the face of the iterate again."""
        return dataclasses.replace(FaceSearch.start(base), wanted=self.rounds > 0)


class WantedFace(eqx.Module):
    """The face that a step asks for, with those on their bound that it would take out of the box.

    - `refine`: whether to solve on that face rather than to try the step cut off at the bounds.
    - `promise`: the decrease that the linear model promises for the step that is not cut off.
    """

    face: Face
    refine: Bool[Array, ""]
    promise: Float[Array, ""]


class OnFace(eqx.Module):
    """A model on a face: the right-hand side for those that are free, and whole steps."""

    box: Box
    model: Model
    params: Float[Array, " p"]
    search: FaceSearch
    image: Float[Array, " n"]  # of the shift

    @classmethod
    def of(cls, box: Box, model: Model, params: Float[Array, " p"], search: FaceSearch) -> "OnFace":
        return cls(box, model, params, search, model.at.jvp(search.face.shift))

    def tolerance(self, forcing: Float[Array, ""]) -> Float[Array, ""]:
        """How exactly to solve."""
        return jnp.minimum(forcing, _LARGEST_FORCING)

    @property
    def residual(self) -> Float[Array, " n"]:
        """What r becomes when those that are held have gone onto their bound."""
        return self.model.at.residual + self.image

    def completed(self, solution: LinearStep) -> tuple[LinearStep, WantedFace]:
        """The whole step from that of the free parameters, cut off at the bounds."""
        face, residual = self.search.face, self.model.at.residual
        whole = jnp.where(face.free, solution.step, face.shift)
        image = solution.image + self.image
        inside = self.box.land(self.params, whole) - self.params
        cut = jnp.any(self.box.beyond(face, self.params, whole))
        cut_image = jax.lax.cond(cut, lambda v: self.model.at.jvp(v), lambda _: image, inside)
        step = dataclasses.replace(
            solution,
            step=jnp.where(cut, inside, whole),
            image=cut_image,
            products=solution.products + cut,
        )
        promise = dataclasses.replace(solution, image=image).predicted_decrease(residual)
        lost = step.predicted_decrease(residual) < _WORTH * promise
        refine = cut & lost & solution.solved & (self.search.rounds < _ROUNDS)
        return step, WantedFace(self.box.held(face, self.params, whole), refine, promise)

    def freed(self, solution: LinearStep) -> tuple[LinearStep, WantedFace]:
        """A correction: of the free parameters alone."""
        face = self.search.face
        step = dataclasses.replace(solution, step=jnp.where(face.free, solution.step, 0))
        return step, WantedFace(
            face, jnp.asarray(False), jnp.zeros_like(solution.relative_residual)
        )
