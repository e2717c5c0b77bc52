"""The rows of the gate: every kind of problem once, each of a few seconds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

import gramlm

from ...harness.instance import Instance
from ...problems import exponential, kernel, poisson, rbf_network, rosenbrock, sinc
from ..constrained import bumps
from .posed import Posed

FLOAT = jnp.float64
LM = gramlm.LevenbergMarquardt


# The last steps to a cost of zero are rounding, another one on another processor.
NOTHING = 1e-20


def _until(cost: float) -> gramlm.Termination:
    """Ends at a cost, where an interpolating fit would go on to the last digit."""
    return gramlm.Termination(absolute_cost=cost)


def _rosenbrock() -> Posed:
    return Posed(rosenbrock.build(FLOAT), level=NOTHING)


def _exponential() -> Posed:
    solver = LM(termination=_until(NOTHING))
    return Posed(exponential.build(FLOAT), solver=solver, level=NOTHING)


def _outliers() -> Posed:
    """The exponential fit with every seventh observation far off, by a robust loss."""
    fit = exponential.build(FLOAT)
    x, y = fit.args
    moved = y + jnp.where(jnp.arange(y.size) % 7 == 3, 1.0, 0.0)
    instance = Instance(fit.residual_fn, fit.params, (x, moved))
    return Posed(instance, conditions={"loss": gramlm.SoftL1(0.1)})


def _bumps() -> Posed:
    """Non-negative weights of bumps, 40 × 120."""
    case = next(case for case in bumps() if case.name == "bumps 40 × 120")
    instance = Instance(lambda params, _: case.residual(params), jnp.asarray(case.start), None)
    return Posed(instance, conditions={"lower": jnp.asarray(case.lower)})


def _oscillation(params: Any, args: Any) -> Any:
    t, y = args
    amplitudes, rates = params["amplitudes"], params["rates"]
    return jnp.exp(t[:, None] * rates) @ amplitudes - y


def _complex() -> Posed:
    """Two damped oscillations, amplitudes and rates complex, from 40 exact samples."""
    t = jnp.linspace(0.0, 4.0, 40)
    truth = {
        "amplitudes": jnp.asarray([1.0 + 0.5j, 0.4 - 0.8j]),
        "rates": jnp.asarray([-0.3 + 2.0j, -0.5 + 5.0j]),
    }
    start = {
        "amplitudes": jnp.asarray([0.8 + 0.0j, 0.8 + 0.0j]),
        "rates": jnp.asarray([-0.1 + 2.3j, -0.1 + 4.6j]),
    }
    y = _oscillation(truth, (t, jnp.zeros_like(t)))
    solver = LM(termination=_until(NOTHING))
    return Posed(Instance(_oscillation, start, (t, y)), solver=solver, level=NOTHING)


def _sinc() -> Posed:
    """A plain residual with n > p: the normal equations, 20 Jacobians of hundreds."""
    return Posed(sinc.build(FLOAT), max_steps=20)


def _network(linear_solver: gramlm.extend.AbstractGramSolver, max_steps: int = 1000) -> Posed:
    """A trainable RBF network with its rows declared, wide: 128 × 512."""
    instance = rbf_network.build(FLOAT, count=128, width=0.1)
    solver = LM(linear_solver=linear_solver, termination=_until(1e-9))
    return Posed(instance, declared=True, solver=solver, max_steps=max_steps, level=1e-9)


def _small_residual(params: Any, args: Any) -> Any:
    matrix, y = args
    return jnp.tanh(matrix @ params) - y


def _small(linear_solver: gramlm.extend.AbstractGramSolver) -> Posed:
    """20 residuals of 40 parameters, for what a solver costs when nothing is large."""
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(20, 40)) / 40**0.5)
    y = jnp.tanh(matrix @ jnp.asarray(rng.normal(size=40)))
    instance = Instance(_small_residual, jnp.zeros(40), (matrix, y))
    solver = LM(linear_solver=linear_solver, termination=_until(NOTHING))
    return Posed(instance, solver=solver, level=NOTHING)


def _kernel() -> Posed:
    """Fixed Gaussians in the plane, never stored, under a sine: 512 × 2048."""
    solver = LM(
        linear_solver=gramlm.KrylovSolver(), memory=gramlm.Recompute(), termination=_until(1e-7)
    )
    return Posed(kernel.build(FLOAT, dimension=2, count=512), solver=solver, level=1e-7)


def _poisson() -> Posed:
    """A physics-informed network with its rows declared, five Jacobians: 180 × 1185."""
    full = poisson.build(FLOAT)
    interior, boundary = full.args
    data = (interior[:150], boundary[::4])
    assert full.rows is not None
    instance = Instance(full.residual_fn, full.params, data, (full.rows[0], data))
    return Posed(instance, declared=True, max_steps=5)


ROWS: dict[str, Callable[[], Posed]] = {
    "rosenbrock": _rosenbrock,
    "exponential": _exponential,
    "outliers, robust": _outliers,
    "bumps, bounded": _bumps,
    "oscillations, complex": _complex,
    "sinc, plain": _sinc,
    "network, dense": partial(_network, gramlm.DenseSolver()),
    "network, PCG": partial(_network, gramlm.PreconditionedCG(gramlm.Nystrom(32)), 5),
    "20 x 40, dense": partial(_small, gramlm.DenseSolver()),
    "20 x 40, Krylov": partial(_small, gramlm.KrylovSolver()),
    "kernel, Krylov": _kernel,
    "poisson, rows": _poisson,
}
