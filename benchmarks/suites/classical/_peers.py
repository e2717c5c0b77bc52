"""The solvers, each at its own defaults but for the stopping accuracy and the budget.

A maker takes a residual, its dtype and a budget and returns a function from a start to an
`Outcome`, compiled once for all starts. With ε the machine precision, gramlm stops at a predicted
relative decrease of the cost of `ε^(4/3)`, at a relative gradient or step of `ε^⅚`, or where
rounding hides what is left; "gramlm loose" at `ε^⅔`, `ε^⅔` and `ε^⅚`. What comes closest to the
second, for peers which judge by the decrease that they see, is:

- SciPy: `ftol`, `gtol`, `xtol` the same three; the gradient test of "trf" is absolute and so set
  to `ε^¾`. The budget is one of Jacobians. It computes in float64 whatever the dtype, but for the
  residual and its Jacobian. Its Jacobian where the solve ended, for "lm" only part of the report,
  is not counted.
- Optimistix: `rtol` = `ε^⅔`, `atol` = `ε^¾` on parameters and residuals alike. It linearises at
  every trial, and a step is a Jacobian.
- nlls-gram: an absolute gradient `gtol` = `ε^⅔` and an absolute step `xtol` = `ε^½`. A rejected
  step keeps its Jacobian and does not count one.
- JAXopt: `stop_criterion="madsen-nielsen"`, whose test of the step is relative, while the default
  knows nothing but an absolute gradient; `gtol` = `ε^⅔`, absolute, `xtol` = `ε^¾`. Every step,
  rejected or not, linearises at its trial and counts as a Jacobian. By default it solves by
  conjugate gradients; "JAXopt qr" has `solver="qr"` with the Jacobian stored.

A claim is: `result == successful` (gramlm, Optimistix), `success` (SciPy), the status CONVERGED
(nlls-gram), the last gradient or step within its tolerance (JAXopt, which has no status).
Evaluations are those of the residual at trial points and at the start; a second directional
derivative for the geodesic correction, which gramlm and nlls-gram take with most Jacobians, is not
counted.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .networks import Network

Residual = Callable[[Any], Any]


@dataclass(frozen=True)
class Outcome:
    """Where a solve ended, whether it says that it succeeded, its words, and what it took."""

    theta: Any
    claimed: bool
    status: str
    jacobians: int
    evaluations: int


Solve = Callable[[Any], Outcome]
Maker = Callable[[Residual, Any, int], Solve]


def _power(dtype: Any, power: float) -> float:
    return float(jnp.finfo(dtype).eps) ** power


def _gramlm(residual: Residual, dtype: Any, budget: int, **choices: Any) -> Solve:
    import gramlm

    if isinstance(residual, Network):
        choices["termination"] = gramlm.Termination(absolute_cost=residual.target)
    solver = gramlm.LevenbergMarquardt(**choices)
    run = partial(gramlm.solve, solver=solver, max_steps=budget, throw=False)

    def solve(start: Any) -> Outcome:
        if isinstance(residual, Network):
            solution = run(residual.rows, residual.unravel(start), residual.data)
        else:
            solution = run(residual, start)
        stats = solution.stats
        claimed = bool(solution.result == gramlm.RESULTS.successful)
        words = gramlm.CRITERIA[stats["criterion"]] if claimed else gramlm.RESULTS[solution.result]
        jacobians, evaluations = int(stats["num_steps"]), 1 + int(stats["num_evaluations"])
        theta = ravel_pytree(solution.value)[0]
        return Outcome(theta, claimed, words, jacobians, evaluations)

    return solve


def _gramlm_with(field: str, name: str, *values: Any) -> Maker:
    """A variant by the name of a class, looked up when it runs, and what it is made with."""

    def make(residual: Residual, dtype: Any, budget: int) -> Solve:
        import gramlm

        return _gramlm(residual, dtype, budget, **{field: getattr(gramlm, name)(*values)})

    return make


class _Stop(Exception):  # noqa: N818 -- it is no error
    """Ends SciPy's loop from inside a callback."""


class _Counted:
    """A residual and its Jacobian as SciPy wants them, counted, with the best point kept."""

    def __init__(self, residual: Callable, jacobian: Callable, dtype: Any, budget: int) -> None:
        self.compiled, self.compiled_jacobian, self.dtype = residual, jacobian, dtype
        self.budget, self.jacobians, self.evaluations = budget, 0, 0
        self.best, self.theta = np.inf, np.zeros(0)

    def residual(self, theta: np.ndarray) -> np.ndarray:
        value = np.asarray(self.compiled(jnp.asarray(theta, self.dtype)), np.float64)
        self.evaluations += 1
        with np.errstate(over="ignore", invalid="ignore"):
            cost = float(value @ value)
        if cost < self.best or not self.theta.size:
            self.best, self.theta = cost, theta.copy()
        return value

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        if self.jacobians >= self.budget:
            raise _Stop
        self.jacobians += 1
        return np.asarray(self.compiled_jacobian(jnp.asarray(theta, self.dtype)), np.float64)


def _scipy(
    residual: Residual, dtype: Any, budget: int, *, method: str, x_scale: Any = None
) -> Solve:
    from scipy.optimize import least_squares

    compiled, jacobian = jax.jit(residual), jax.jit(jax.jacfwd(residual))
    # As the declared type of `jac` knows names only.
    minimise: Any = least_squares
    gradient = _power(dtype, 2 / 3 if method == "lm" else 3 / 4)

    def solve(start: Any) -> Outcome:
        counted = _Counted(compiled, jacobian, dtype, budget)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = minimise(
                    counted.residual,
                    np.asarray(start, np.float64),
                    jac=counted.jacobian,
                    method=method,
                    x_scale=x_scale,
                    ftol=_power(dtype, 2 / 3),
                    xtol=_power(dtype, 5 / 6),
                    gtol=gradient,
                    max_nfev=100 * budget,
                )
        except _Stop:
            taken = counted.jacobians, counted.evaluations
            return Outcome(counted.theta, False, "budget", *taken)
        return Outcome(found.x, bool(found.success), found.message, found.njev, found.nfev)

    return solve


def _optimistix(residual: Residual, dtype: Any, budget: int, *, method: str) -> Solve:
    import optimistix as optx

    made = getattr(optx, method)(rtol=_power(dtype, 2 / 3), atol=_power(dtype, 3 / 4))

    def function(theta: Any, args: Any) -> Any:
        return residual(theta)

    def solve(start: Any) -> Outcome:
        found = optx.least_squares(function, made, start, max_steps=budget, throw=False)
        claimed = bool(found.result == optx.RESULTS.successful)
        words = "converged" if claimed else optx.RESULTS[found.result]
        steps = int(found.stats["num_steps"])
        return Outcome(found.value, claimed, words, steps, steps)

    return solve


def _nlls_gram(residual: Residual, dtype: Any, budget: int) -> Solve:
    import nlls_gram

    solver = nlls_gram.LevenbergMarquardt(residual)

    def count(context: Any) -> Any:
        # One trial for the velocity, another for the accelerated step where its ratio passes.
        ratio = context.info.acceleration_ratio
        accelerated = (ratio > 0) & (ratio <= solver.geodesic_acceptance_ratio)
        jacobians, evaluations = context.user_state
        counts = (
            jacobians + ~context.lm_state_old.jacobian_valid,
            evaluations + 1 + accelerated,
        )
        return nlls_gram.LMAction(user_state=counts)

    def solve(start: Any) -> Outcome:
        found = solver.solve(
            start,
            max_steps=budget,
            gtol=_power(dtype, 2 / 3),
            xtol=_power(dtype, 1 / 2),
            callback=count,
            user_state=(jnp.asarray(0, jnp.int32), jnp.asarray(1, jnp.int32)),
        )
        status = nlls_gram.LMStatus(int(found.status))
        jacobians, evaluations = found.user_state
        claimed = status == nlls_gram.LMStatus.CONVERGED
        return Outcome(found.x, claimed, status.name, int(jacobians), int(evaluations))

    return solve


def _jaxopt(residual: Residual, dtype: Any, budget: int, **settings: Any) -> Solve:
    import jaxopt

    gtol, xtol = _power(dtype, 2 / 3), _power(dtype, 3 / 4)
    solver = jaxopt.LevenbergMarquardt(
        residual, maxiter=budget, stop_criterion="madsen-nielsen", gtol=gtol, xtol=xtol, **settings
    )
    run = jax.jit(solver.run)

    def solve(start: Any) -> Outcome:
        theta, state = run(start)
        gradient = float(jnp.abs(state.gradient).max())
        step, size = float(jnp.linalg.norm(state.delta)), float(jnp.linalg.norm(theta))
        claimed = gradient <= gtol or step <= xtol * (size - xtol)
        words = "converged" if claimed else f"gradient {gradient:.1e}, step {step:.1e}"
        steps = int(state.iter_num) + 1
        return Outcome(theta, claimed, words, steps, steps)

    return solve


# Counts are compared over the problems that all of the first group solved.
CORE: dict[str, Maker] = {
    "gramlm": _gramlm,
    "SciPy lm": partial(_scipy, method="lm"),
    "SciPy trf": partial(_scipy, method="trf"),
    "Optimistix LM": partial(_optimistix, method="LevenbergMarquardt"),
    "nlls-gram": _nlls_gram,
}
OTHERS: dict[str, Maker] = {
    "SciPy lm x_scale=1": partial(_scipy, method="lm", x_scale=1.0),
    "SciPy trf x_scale=jac": partial(_scipy, method="trf", x_scale="jac"),
    "Optimistix Dogleg": partial(_optimistix, method="Dogleg"),
    "JAXopt": _jaxopt,
    "JAXopt qr": partial(_jaxopt, solver="qr", materialize_jac=True),
}


def _loose(residual: Residual, dtype: Any, budget: int) -> Solve:
    import gramlm

    loose = _power(dtype, 2 / 3)
    termination = gramlm.Termination(cost=loose, gradient=loose)
    return _gramlm(residual, dtype, budget, termination=termination)


VARIANTS: dict[str, Maker] = {
    "gramlm nielsen": _gramlm_with("damping", "Nielsen"),
    "gramlm delayed": _gramlm_with("damping", "DelayedGratification"),
    "gramlm identity": _gramlm_with("metric", "IdentityMetric"),
    "gramlm fletcher": _gramlm_with("metric", "FletcherMetric"),
    "gramlm more": _gramlm_with("metric", "MoreMetric"),
    "gramlm power 0.75": _gramlm_with("metric", "PowerMetric", 0.75),
    "gramlm bold": _gramlm_with("acceptance", "Nonmonotone"),
    "gramlm loose": _loose,
    "gramlm plain": partial(_gramlm, correction=None),
}
SOLVERS: dict[str, Maker] = {**CORE, **OTHERS, **VARIANTS}
