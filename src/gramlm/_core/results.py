"""How a solve ends: results and criteria."""

import equinox.internal as eqxi
import jax
import lineax as lx


class RESULTS(lx.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """How a solve ended. Extends `lineax.RESULTS`, so that a linear solver's messages fit in.

    `RESULTS[result]` is the sentence that belongs to a result.
    """

    successful = ""
    running = "The solve has not ended: take another step."
    nonlinear_max_steps_reached = (
        "The maximum number of steps was reached before any tolerance was met. The returned "
        "parameters are the best found: raise `max_steps`, loosen the tolerances of "
        "`Termination`, or continue with `resume=solution`."
    )
    nonfinite_start = (
        "The residual, its derivative, or the square of either is NaN or infinite at the "
        "parameters given. Start where they are finite (`jax.debug_nans` finds the operation), or "
        "reparametrise what overflows."
    )
    nonfinite_derivative = (
        "The residual is finite at the last parameters, but its derivative is NaN or infinite. "
        "They are returned: look for square roots, norms or powers of what becomes zero there."
    )
    nonfinite_trials = (
        "The residual is NaN or infinite at every trial point, however short the step. The last "
        "finite parameters are returned: the domain of the residual ends there, so reparametrise "
        "it (a logarithm for what must stay positive) or start elsewhere."
    )
    linear_solver_failed = (
        "The linear solver did not solve the Levenberg-Marquardt system, at this damping or at "
        "larger ones. The best parameters are returned: give the solver more iterations or a "
        "looser tolerance, or use `DenseSolver` where memory allows."
    )
    stalled = (
        "No step lowers the cost although the gradient is not small: every trial was rejected "
        "until the step vanished in rounding. The best parameters are returned: check that the "
        "residual is differentiable there, use float64, or try another `metric` or `damping`."
    )
    passed_better = (
        "The solve ended at a stationary point that costs more than the best point on its way "
        "uphill and downhill. That point is returned: go on from it with `acceptance=Monotone()`."
    )
    stopped = (
        "A callback ended the solve on purpose. The best parameters are returned; "
        "`resume=solution` continues."
    )
    callback_failed = (
        "A callback raised an exception, or returned what is no action. The best parameters are "
        "returned: mend the callback, and `resume=solution` continues."
    )
    interrupted = (
        "The solve was interrupted by Ctrl-C. The best parameters are returned: "
        "`resume=solution` continues."
    )
    time_limit_reached = (
        "The time limit was reached before any tolerance was met. The best parameters are "
        "returned: raise `max_seconds`, or continue with `resume=solution`."
    )
    evaluation_limit_reached = (
        "The limit of residual evaluations was reached before any tolerance was met. The best "
        "parameters are returned: raise `max_evaluations`, and `resume=solution` continues."
    )


class CRITERIA(eqxi.Enumeration):
    """Which test of `Termination` ended a solve."""

    none = "No tolerance was met."
    cost = "The relative decrease of the cost, predicted and actual, fell below its tolerance."
    gradient = "The scaled gradient fell below its tolerance."
    step = "The length of an accepted step fell below its tolerance."
    absolute_cost = "The cost fell below its absolute tolerance."
    vanished = "The residual is zero, or next to nothing beside that of the start."
    rounding = (
        "No step lowers the cost, and what remains of it is explained by the rounding of the "
        "parameters and the residual."
    )


def code(item: RESULTS | CRITERIA) -> int:
    """The number of a concrete member, for comparisons that cost nothing."""
    return int(jax.tree.leaves(item)[0])
