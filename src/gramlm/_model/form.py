"""The two equivalent forms of the system."""

import enum


class Form(enum.Enum):
    """Which of the two equivalent systems is solved for the step.

    - `dual`: `(J M⁻¹ Jᵀ + λI) w = r`, n × n, then `δ = −M⁻¹ Jᵀ w`;
    - `normal`: `(JᵀJ + λM) δ = −Jᵀ r`, p × p;
    - `auto`: the smaller one, `dual` when n ≤ p.
    """

    auto = "auto"
    dual = "dual"
    normal = "normal"

    def resolve(self, num_residuals: int, num_params: int) -> "Form":
        """`dual` or `normal`, for n residuals and p parameters."""
        if self is not Form.auto:
            return self
        return Form.dual if num_residuals <= num_params else Form.normal
