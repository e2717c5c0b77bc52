"""What rounding makes of a cost, of a decrease and of a gradient: the one model of it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Rounding(eqx.Module):
    """The rounding errors at one iterate, with the machine precision ε.

    - `cost`: c = ½‖r‖² there. `moved`: ν, the part of r by which rounding every parameter once
      moves it, `‖ε diag(ℓ) θ‖/‖r‖` with the lengths ℓ of the columns of J.
    - `accuracy`: the relative gradient that is as small as it gets: where a cost is known to ε, its
      minimum is known to √ε, and ten times that is allowed; 0 where only a mean of the cosines is
      known, which may be small where a single column is not orthogonal to r at all.

    A cost is computed to some ε of itself. Sums of n squares in blocks err by a few ε, and the
    difference of two costs by twice as much: `of_cost` allows 16ε c.

    Rounding the parameters moves r by the part ν and so changes c by up to `r·Δr = 2ν c`; it does
    so at both ends of a step, 4ν c, and twice that is allowed for the rounding within the residual,
    which is of the same kind: `hides` takes 16ε + 8ν, and never more than √ε, since a decrease
    of that size can be told from rounding if the residual can be computed at all.

    Where a gradient is compared with what rounding the parameters brings about, ν by itself is the
    cosine of one random displacement, and ten times it (arbitrary) covers p of them.
    """

    cost: Float[Array, ""]
    moved: Float[Array, ""]
    accuracy: float = eqx.field(static=True)

    @property
    def eps(self) -> float:
        return float(jnp.finfo(self.cost.dtype).eps)

    @property
    def of_cost(self) -> Float[Array, ""]:
        """A decrease of the cost of this much may be rounding of sums."""
        return 16 * self.eps * self.cost

    @property
    def of_promise(self) -> Float[Array, ""]:
        """A predicted decrease of this much may be, while the cost stands still.

        A prediction is a difference of products with J, each rounded as the cost is: eight times
        as much, from solves that stood at their optimum (arbitrary beyond that).
        """
        return 8 * self.of_cost

    @property
    def of_gradient(self) -> Float[Array, ""]:
        """A relative gradient of this much may be rounding of the parameters."""
        return 10 * self.moved

    def hides(self, decrease: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether rounding of r and of the parameters hides a decrease of this size."""
        part = jnp.minimum(16 * self.eps + 8 * self.moved, self.eps**0.5)
        return jnp.abs(decrease) <= part * self.cost

    @property
    def drowns(self) -> Bool[Array, ""]:
        """Whether all of r may be rounding, so that nothing is known of its gradient."""
        return self.of_gradient >= 1
