"""What came of one trial step: what the damping rule and the acceptance rule see."""

import equinox as eqx
from jaxtyping import Array, Float


class Trial(eqx.Module):
    """A trial step, at the λ that was used (after the floor of the driver).

    **Attributes:**

    - `damping`: λ. `length`: `‖v‖_M` of the step without its correction.
    - `gain_ratio`: `decrease` over the decrease that the linear model predicts; −inf where the
      residual is not finite, or the model predicts none; 1 where rounding hides it.
    - `decrease`: of the cost, −inf where the residual is not finite. `slope`: `gᵀv`, negative.
    - `params`, (p,), and `cost`, `½‖r‖²`: those before the step; `params_after`, (p,), and
      `cost_after`; `step`, (p,): with its correction.
    """

    damping: Float[Array, ""]
    length: Float[Array, ""]
    gain_ratio: Float[Array, ""]
    decrease: Float[Array, ""]
    slope: Float[Array, ""]
    params: Float[Array, " p"]
    cost: Float[Array, ""]
    params_after: Float[Array, " p"]
    step: Float[Array, " p"]
    cost_after: Float[Array, ""]
