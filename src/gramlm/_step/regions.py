"""Which region belongs to which box; a further kind of box registers its own."""

import dataclasses
from functools import singledispatch

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._model.model import Model
from .._problem.box import AbstractBox, Box, Unbounded
from .anywhere import Anywhere
from .faces import Within
from .region import AbstractRegion

Around = tuple[AbstractRegion, Model, Float[Array, " p"]]


@singledispatch
def region_around(
    box: AbstractBox, model: Model, params: Float[Array, " p"], gradient: Float[Array, " p"]
) -> Around:
    """Where to seek steps from `params`; the model and the gradient of those that may move."""
    raise TypeError(f"There is no region for a {type(box).__name__}.")


@region_around.register(Unbounded)
def _(
    box: Unbounded, model: Model, params: Float[Array, " p"], gradient: Float[Array, " p"]
) -> Around:
    return Anywhere(model.at), model, gradient


@region_around.register(Box)
def _(box: Box, model: Model, params: Float[Array, " p"], gradient: Float[Array, " p"]) -> Around:
    face = box.face(params, gradient)
    held = dataclasses.replace(model, at=model.held(face))
    return Within(box, held, params, face), held, jnp.where(face.free, gradient, 0)
