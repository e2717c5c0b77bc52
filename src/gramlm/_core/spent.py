"""What work costs, as one thing that adds up."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

Count = Int[Array, ""]


def _count(number: Count | int) -> Count:
    return jnp.asarray(number, jnp.int32)


class Spent(eqx.Module):
    """What some work took; sums of it are what all of it took.

    - `evaluations`: of the residual at trial points. `iterations`: of the linear solver, 0 for a
      direct one. `products`: vectors multiplied by J or Jᵀ.
    """

    evaluations: Count = eqx.field(default=0, converter=_count)
    iterations: Count = eqx.field(default=0, converter=_count)
    products: Count = eqx.field(default=0, converter=_count)

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.evaluations + other.evaluations,
            self.iterations + other.iterations,
            self.products + other.products,
        )
