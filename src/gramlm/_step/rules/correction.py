"""Corrections of a step beyond the linear model."""

import abc

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..._core.arrays import Scalar
from ..._core.checks import check_positive
from ..._problem.residual.base import AbstractResidual


class AbstractCorrection(eqx.Module):
    """Supplies a further right-hand side for each trial step.

    The correction of a step v is `a = −M⁻¹Jᵀ(JM⁻¹Jᵀ + λI)⁻¹ b(v)`, from the factorisation that gave
    v. It is used only if `2‖a‖_M ≤ max_ratio·‖v‖_M` and the cost at `θ + v + a` is no higher than
    the cost at `θ + v`.

    - `max_ratio`: as above.
    - `products`: how many products with J `right_hand_side` is worth.
    """

    max_ratio: eqx.AbstractVar[Scalar]
    products: eqx.AbstractVar[int]

    @abc.abstractmethod
    def right_hand_side(
        self, function: AbstractResidual, params: Float[Array, " p"], velocity: Float[Array, " p"]
    ) -> Float[Array, " n"]:
        """b(v), (n,), residual units; `function` maps flat parameters to the flat residual."""


class Geodesic(AbstractCorrection):
    """Geodesic acceleration (Transtrum, Machta and Sethna 2011; Transtrum and Sethna 2012).

    `b = ½ r_vv`, with the exact second directional derivative `r_vv = d²/dt² r(θ + t v)` by nested
    forward differentiation.

    !!! Example

        ```python
        import gramlm

        careful = gramlm.LevenbergMarquardt(correction=gramlm.Geodesic(max_ratio=0.5))
        without = gramlm.LevenbergMarquardt(correction=None)
        ```
    """

    max_ratio: Scalar = 0.75
    products: int = eqx.field(static=True, init=False, default=2)

    def __check_init__(self):
        check_positive(self.max_ratio, "max_ratio")

    def right_hand_side(
        self, function: AbstractResidual, params: Float[Array, " p"], velocity: Float[Array, " p"]
    ) -> Float[Array, " n"]:
        def first(at):
            return jax.jvp(function, (at,), (velocity,))[1]

        try:
            return 0.5 * jax.jvp(first, (params,), (velocity,))[1]
        except TypeError as error:
            error.add_note(
                "Geodesic acceleration differentiates the residual twice in forward mode. For a "
                "residual with a reverse rule alone (`jax.custom_vjp`), pass "
                "`LevenbergMarquardt(correction=None)`."
            )
            raise
