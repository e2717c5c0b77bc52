"""On a GPU the results are those of the CPU, to the precision of the dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.problems import sine, sine_problem

pytestmark = pytest.mark.gpu


def on(kind, tree):
    return jax.device_put(tree, jax.devices(kind)[0])


@pytest.mark.parametrize("linear_solver", [gramlm.DenseSolver(), gramlm.ConjugateGradient(1e-5)])
def test_a_wide_float32_solve_agrees_with_the_cpu(linear_solver):
    problem = sine_problem(100, 400, jnp.float32)
    args = (problem.args[0], 0.5 * jnp.tanh(problem.args[1]))
    solver = gramlm.LevenbergMarquardt(linear_solver=linear_solver)
    ends = {}
    with jax.default_matmul_precision("highest"):
        for kind in ("cpu", "gpu"):
            start, data = on(kind, (problem.params, args))
            with jax.default_device(jax.devices(kind)[0]):
                ends[kind] = gramlm.solve(sine, start, data, solver=solver)
    for end in ends.values():
        assert end.result == gramlm.RESULTS.successful
        assert end.stats["cost"] < 1e-6 * end.stats["initial_cost"]
    np.testing.assert_allclose(
        np.asarray(ends["gpu"].value), np.asarray(ends["cpu"].value), atol=2e-3
    )


def test_products_of_the_package_are_of_the_highest_precision():
    rng = np.random.default_rng(2)
    jacobian = rng.normal(size=(256, 512)).astype(np.float32)
    exact = jacobian.astype(np.float64) @ jacobian.T.astype(np.float64)
    at = gramlm.extend.MaterialisedLinearisation(
        *on("gpu", (jnp.zeros(256, jnp.float32), jacobian))
    )
    found = np.asarray(jax.jit(lambda a: gramlm.GramOperator(a).as_matrix())(at), np.float64)
    # With reduced-precision (TF32) products it is about 3e-4.
    assert np.linalg.norm(found - exact) <= 3e-6 * np.linalg.norm(exact)
