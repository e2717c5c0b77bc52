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

from .._core.reductions import some
from .._linear.solver.base import FoundDamping, LinearStep
from .._model.linearisation import AbstractLinearisation
from .._model.model import Model
from .._problem.box import Box, Face
from .region import AbstractRegion, AbstractSubproblem
from .state import either
from .trial import Trials

# Of the decrease that the model promises of a step this much has to be left at the bounds, or the
# face is refined (0.9 took 45 Jacobians on an ill-conditioned problem of 500 parameters, 0.5 62).
_WORTH = 0.9

# A forcing term is at most this: what a step misses decides which parameters leave the box. The
# weights of 700 × 1500 positive bumps were at the optimum to seven digits after 25 steps, with 0.01
# to 0.1 to three and a half.
_LARGEST_FORCING = 1e-3

# How often one λ is solved for: further rounds gained nothing on those bumps.
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

    def held_at(self, demand: "Demand", damping: Float[Array, ""]) -> "FaceSearch":
        """Next a smaller face, for the same λ."""
        rounds, promise = self.rounds + 1, self.promised(demand)
        return FaceSearch(demand.face, jnp.asarray(True), damping, rounds, promise)

    def promised(self, demand: "Demand") -> Float[Array, ""]:
        """`promise`, from the first face of the λ."""
        return jnp.where(self.rounds == 0, demand.promise, self.promise)

    def after_rejected(self, base: Face) -> "FaceSearch":
        """For another λ, the face of the iterate again."""
        return dataclasses.replace(FaceSearch.start(base), wanted=self.rounds > 0)


class Demand(eqx.Module):
    """What a step asks for: the face with those on their bound that it would take out of the box.

    - `refine`: whether to solve on that face rather than to try the step cut off at the bounds.
    - `promise`: the decrease that the linear model promises for the step that is not cut off.
    """

    face: Face
    refine: Bool[Array, ""]
    promise: Float[Array, ""]


class OnFace(AbstractSubproblem):
    """The problem of the parameters that a face leaves free.

    - `image`, (n,): of the shift of those that are held. `rhs`: r after that shift.
    """

    box: Box
    model: Model
    params: Float[Array, " p"]
    base: Face  # of the iterate
    search: FaceSearch
    at: AbstractLinearisation
    image: Float[Array, " n"]
    rhs: Float[Array, " n"]

    @classmethod
    def of(cls, region: "Within", search: FaceSearch) -> "OnFace":
        model = region.model
        image = model.at.jvp(search.face.shift)
        return cls(
            box=region.box,
            model=model,
            params=region.params,
            base=region.face,
            search=search,
            at=model.held(search.face),
            image=image,
            rhs=model.at.residual + image,
        )

    def serves(self, trials: Trials) -> Bool[Array, ""]:
        return ~trials.search.wanted

    def tolerance(self, forcing: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.minimum(forcing, _LARGEST_FORCING)

    def damping(self, propose, at) -> FoundDamping:
        """On a further face for the same λ, that."""
        settled = self.search.damping
        return jax.lax.cond(jnp.isnan(settled), propose, lambda: at(settled))

    def completed(
        self, solution: LinearStep, first: Bool[Array, ""] | bool
    ) -> tuple[LinearStep, Demand]:
        # Bound methods of modules that hold arrays cannot be hashed.
        return jax.lax.cond(
            first, lambda x: self._velocity(x), lambda x: self._correction(x), solution
        )

    def _velocity(self, solution: LinearStep) -> tuple[LinearStep, Demand]:
        """The whole step from that of the free parameters, cut off at the bounds."""
        face, residual = self.search.face, self.model.at.residual
        whole = jnp.where(face.free, solution.step, face.shift)
        image = solution.image + self.image
        inside = self.box.land(self.params, whole) - self.params
        cut = some(self.box.beyond(face, self.params, whole))
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
        return step, Demand(self.box.held(face, self.params, whole), refine, promise)

    def _correction(self, solution: LinearStep) -> tuple[LinearStep, Demand]:
        """Of the free parameters alone."""
        face = self.search.face
        step = dataclasses.replace(solution, step=jnp.where(face.free, solution.step, 0))
        nothing = jnp.zeros_like(solution.relative_residual)
        return step, Demand(face, jnp.asarray(False), nothing)

    def tried(self, demand: Demand) -> Bool[Array, ""]:
        return ~demand.refine

    def promise(self, demand: Demand, predicted: Float[Array, ""]) -> Float[Array, ""]:
        return self.search.promised(demand)  # a step cut off may promise an increase

    def concluded(self, before: Trials, after: Trials, demand: Demand) -> Trials:
        """After a trial the face of the iterate again; without one the face that is asked for."""
        settled = dataclasses.replace(after, search=before.search.after_rejected(self.base))
        asked = dataclasses.replace(
            before,
            spent=after.spent,
            work=after.work,
            search=before.search.held_at(demand, after.last.damping),
        )
        return either(demand.refine, asked, settled)


class Within(AbstractRegion):
    """The box, from an iterate within it.

    - `face`: parameters that a bound holds at the iterate. `model`: without their columns.
    """

    box: Box
    model: Model
    params: Float[Array, " p"]
    face: Face
    several: bool = eqx.field(static=True, init=False, default=True)

    def start(self) -> FaceSearch:
        return FaceSearch.start(self.face)

    def another(self, trials: Trials) -> Bool[Array, ""]:
        return trials.search.wanted

    def taken_up(self, search: FaceSearch) -> FaceSearch:
        return dataclasses.replace(search, wanted=jnp.asarray(False))

    def subproblem(self, search: FaceSearch) -> OnFace:
        return OnFace.of(self, search)
