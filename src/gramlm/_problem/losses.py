"""The losses of the package.

All but `L1` and `PerBlock` have `ρ(s) = C²·shape(s/C²)` with a scale C, in residual units, below
which a residual counts as its square.
"""

import abc
import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._core.arrays import Scalar, as_array
from .._core.checks import check_at_least, check_positive
from .broadcast import broadcast
from .loss import AbstractKnownLoss, AbstractLoss, known

# A scale for all residuals, or one for each.
Scale = Real[ArrayLike, "..."]

_UNIT = ", in residual units"


class AbstractScaledLoss(AbstractKnownLoss):
    """One with a scale: a number, or an array that broadcasts to the residuals."""

    scale: eqx.AbstractVar[Scale]

    @abc.abstractmethod
    def shape(self, z: Float[Array, " m"]) -> Float[Array, " m"]:
        """`ρ(C²z)/C²`."""

    def __check_init__(self):
        check_positive(self.scale, f"{type(self).__name__}(scale=…)", _UNIT, finite=True)

    @property
    def block(self) -> int:
        return 1

    def rho(self, squares: Float[Array, " m"]) -> Float[Array, " m"]:
        square = jnp.asarray(self.scale, squares.dtype) ** 2
        return square * self.shape(squares / square)

    def fitted(self, array: Any) -> "AbstractScaledLoss":
        if jnp.ndim(self.scale) == 0:
            return self
        dtype = jnp.finfo(array.dtype).dtype
        scale = broadcast(self.scale, array, "scale", "the residual", dtype)
        return dataclasses.replace(self, scale=scale.reshape(-1))

    def divided(self, scale: Float[Array, ""]) -> tuple["AbstractScaledLoss", None]:
        # By the scale, as the squares of what was divided may leave the range of exponents.
        own = jnp.asarray(self.scale, scale.dtype) / scale
        return dataclasses.replace(self, scale=own), None

    def with_arrays(self) -> "AbstractScaledLoss":
        return dataclasses.replace(self, scale=as_array(self.scale))


class Huber(AbstractScaledLoss):
    """`r²` up to `|r| = C`, and `2C|r| − C²` beyond (Huber 1964).

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm

        y = jnp.array([1.0, 1.1, 0.9, 1.0, 8.0])  # the last one is off
        solution = gramlm.solve(lambda centre: centre - y, 0.0, loss=gramlm.Huber(0.3))
        assert jnp.allclose(solution.value, 1.075)  # the mean would be 2.4
        ```
    """

    scale: Scale = 1.0

    def shape(self, z: Float[Array, " m"]) -> Float[Array, " m"]:
        far = z > 1
        return jnp.where(far, 2 * jnp.sqrt(jnp.where(far, z, 1)) - 1, z)


class SoftL1(AbstractScaledLoss):
    """`2C²(√(1 + r²/C²) − 1)`: a smooth Huber loss (Charbonnier et al. 1997)."""

    scale: Scale = 1.0

    def shape(self, z: Float[Array, " m"]) -> Float[Array, " m"]:
        return 2 * z / (1 + jnp.sqrt(1 + z))


class Cauchy(AbstractScaledLoss):
    """`C² log(1 + r²/C²)`: Student's t with one degree of freedom."""

    scale: Scale = 1.0

    def shape(self, z: Float[Array, " m"]) -> Float[Array, " m"]:
        return jnp.log1p(z)


class Arctan(AbstractScaledLoss):
    """`C² arctan(r²/C²)`: bounded."""

    scale: Scale = 1.0

    def shape(self, z: Float[Array, " m"]) -> Float[Array, " m"]:
        return jnp.arctan(z)


class Tukey(AbstractScaledLoss):
    """`C²/3·(1 − (1 − r²/C²)³)` up to `|r| = C`, and constant beyond (Beaton and Tukey 1974).

    What lies beyond C has no slope at all: start where enough of the residuals do not.
    """

    scale: Scale = 1.0

    def shape(self, z: Float[Array, " m"]) -> Float[Array, " m"]:
        inside = jnp.minimum(z, 1)
        return inside * (1 - inside + inside**2 / 3)


class GemanMcClure(AbstractScaledLoss):
    """`r²/(1 + r²/C²)` (Geman and McClure 1987): bounded by C²."""

    scale: Scale = 1.0

    def shape(self, z: Float[Array, " m"]) -> Float[Array, " m"]:
        # z/(1 + z), whose slope would cancel far off.
        return -jnp.expm1(-jnp.log1p(z))


class L1(AbstractKnownLoss):
    """`2(√(r² + ε²) − ε)`, so that the cost is `Σ|r|`, rounded off where `|r| < ε`.

    - `smoothing`: ε, in residual units. Below what matters in the residuals; the smaller, the
      more steps.
    """

    smoothing: Scalar = 1e-3

    def __check_init__(self):
        check_positive(self.smoothing, "L1(smoothing=…)", _UNIT, finite=True)

    @property
    def block(self) -> int:
        return 1

    def rho(self, squares: Float[Array, " m"]) -> Float[Array, " m"]:
        smoothing = jnp.asarray(self.smoothing, squares.dtype)
        return 2 * squares / (jnp.sqrt(squares + smoothing**2) + smoothing)

    def fitted(self, array: Any) -> "L1":
        return self

    def divided(self, scale: Float[Array, ""]) -> tuple["L1", Float[Array, ""]]:
        return self, scale

    def with_arrays(self) -> "L1":
        return L1(as_array(self.smoothing))


class PerBlock(AbstractKnownLoss):
    """A loss of the norms of blocks of `size` residuals that follow one another.

    As where an outlier spoils all coordinates of a point. Blocks follow the order of the entries
    of an array of the residual, and of `gramlm.Rows` lie within a point. A complex residual is a
    block of its two parts anyway: what counts is `|r|`.

    !!! Example

        ```python
        import gramlm

        # A point (x, y) in an image is off as a whole.
        loss = gramlm.PerBlock(gramlm.Huber(0.1), size=2)
        ```
    """

    loss: AbstractLoss
    size: int = eqx.field(static=True)

    def __check_init__(self):
        check_at_least(self.size, "PerBlock(size=…)", 1)

    @property
    def block(self) -> int:
        return self.size

    def rho(self, squares: Float[Array, " m"]) -> Float[Array, " m"]:
        return self.loss.rho(squares)

    def fitted(self, array: Any) -> "PerBlock":
        blocks = jax.ShapeDtypeStruct((math.prod(array.shape) // self.size,), array.dtype)
        return PerBlock(known(self.loss).fitted(blocks), self.size)

    def divided(self, scale: Float[Array, ""]) -> tuple["PerBlock", Float[Array, ""] | None]:
        loss, unit = known(self.loss).divided(scale)
        return PerBlock(loss, self.size), unit

    def with_arrays(self) -> "PerBlock":
        return PerBlock(known(self.loss).with_arrays(), self.size)
