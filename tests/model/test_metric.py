"""Each metric rule is the matrix that it says, and scaling of parameters does what it should."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from gramlm._model.linearisation import MaterialisedLinearisation
from support.problems import definite, diagonal, sine_problem

SEED = jnp.zeros((), jnp.int32)


def at(jacobian):
    jacobian = jnp.asarray(jacobian, float)
    return MaterialisedLinearisation(jnp.zeros(jacobian.shape[0]), jacobian)


JACOBIAN = np.array([[3.0, 0.0, 1e-3], [4.0, 2.0, 0.0]])
SQUARES = np.array([25.0, 4.0, 1e-6])

RULES = {
    "identity": (gramlm.IdentityMetric(), np.ones(3)),
    "fletcher": (gramlm.FletcherMetric(), SQUARES),
    "power 1/2": (gramlm.PowerMetric(0.5), SQUARES**0.5),
    "power 3/4": (gramlm.PowerMetric(0.75), SQUARES**0.75),
    "power 0": (gramlm.PowerMetric(0.0), np.ones(3)),
    "more": (gramlm.MoreMetric(), SQUARES),
    "user": (gramlm.FixedMetric(diagonal(3)), np.linspace(0.5, 2.0, 3)),
}


@pytest.mark.parametrize("name", RULES)
def test_diagonals(name):
    rule, expected = RULES[name]
    metric, _, products = rule.update(rule.init(jnp.zeros(3)), at(JACOBIAN), SEED)
    np.testing.assert_allclose(metric.as_matrix(), np.diag(expected), rtol=1e-13)
    assert products == 0


def test_more_never_falls():
    rule = gramlm.MoreMetric()
    state = rule.init(jnp.zeros(2))
    for jacobian, expected in (([[1, 3]], [1, 9]), ([[2, 1]], [4, 9]), ([[0, 0]], [4, 9])):
        metric, state, _ = rule.update(state, at(jacobian), SEED)
        np.testing.assert_allclose(lx.diagonal(metric), expected, rtol=1e-14)
    for jacobian in ([[jnp.nan, 5]], [[jnp.inf, 5]]):
        metric, state, _ = rule.update(state, at(jacobian), SEED)
        np.testing.assert_allclose(lx.diagonal(metric), [4, 25], rtol=1e-14)


@pytest.mark.parametrize(
    "rule", [gramlm.FletcherMetric(), gramlm.PowerMetric(), gramlm.MoreMetric()]
)
def test_parameters_without_effect_keep_the_metric_positive_and_finite(rule):
    for jacobian in (np.zeros((2, 3)), [[1.0, 0.0, 0.0]], [[1e-147, 0.0, 0.0]]):
        metric, _, _ = rule.update(rule.init(jnp.zeros(3)), at(jacobian), SEED)
        assert jnp.all(lx.diagonal(metric) > 0)
        assert jnp.all(jnp.isfinite(1 / lx.diagonal(metric)))


def test_a_dense_metric_of_the_users_is_used_as_it_is():
    problem, metric = sine_problem(4, 6), definite(6)
    solver = gramlm.LevenbergMarquardt(metric=gramlm.FixedMetric(metric), correction=None)
    state = solver.init(problem.residual_fn, problem.params, problem.args)
    params, _, info = solver.step(problem.residual_fn, problem.params, state, problem.args)
    J, r = problem.jacobian, problem.residual_fn(problem.params, problem.args)
    expected = jnp.linalg.solve(J.T @ J + info.damping * metric.as_matrix(), -J.T @ r)
    assert info.accepted
    np.testing.assert_allclose(params - problem.params, expected, rtol=1e-9)
    gradient = J.T @ r
    norm = jnp.sqrt(gradient @ jnp.linalg.solve(metric.as_matrix(), gradient))
    np.testing.assert_allclose(info.gradient_norm, norm, rtol=1e-10)


def _scaled_steps(metric, scale, steps=3):
    """Steps in the variables θ = scale ∘ φ, mapped back to θ."""
    problem = sine_problem(4, 4)
    solver = gramlm.LevenbergMarquardt(metric=metric, damping=gramlm.Constant(0.1))

    def residual(phi):
        return problem.residual_fn(scale * phi, problem.args)

    params = problem.params / scale
    state = solver.init(residual, params)
    step = jax.jit(lambda q, s: solver.step(residual, q, s)[:2])
    for _ in range(steps):
        params, state = step(params, state)
    return scale * params


SCALE = jnp.asarray([1e-2, 1.0, 30.0, 1e2])


@pytest.mark.parametrize("metric", [gramlm.FletcherMetric(), gramlm.MoreMetric()])
def test_fletcher_and_more_do_not_see_the_scale_of_a_parameter(metric):
    # λ follows an estimate of λmax that depends a little on where its iteration starts.
    plain, scaled = (_scaled_steps(metric, s) for s in (jnp.ones(4), SCALE))
    np.testing.assert_allclose(scaled, plain, rtol=2e-2, atol=2e-2)
    other = _scaled_steps(gramlm.IdentityMetric(), SCALE)
    assert jnp.max(jnp.abs(other - plain)) > 10 * jnp.max(jnp.abs(scaled - plain))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gramlm.PowerMetric(-0.1), "`power` must be between 0 and 1; got -0.1"),
        (lambda: gramlm.PowerMetric(1.1), "`power` must be between 0 and 1; got 1.1"),
        (lambda: gramlm.PowerMetric(num_probes=0), "`num_probes` must be at least 1; got 0"),
        (lambda: gramlm.FletcherMetric(0), "`num_probes` must be at least 1; got 0"),
        (lambda: gramlm.MoreMetric(0), "`num_probes` must be at least 1; got 0"),
        (
            lambda: gramlm.FixedMetric(lx.MatrixLinearOperator(jnp.eye(2))),
            "tagged as positive definite",
        ),
        (
            lambda: gramlm.FixedMetric(diagonal(3)).init(jnp.zeros(4)),
            "acts on 3 parameters, but `params` has 4",
        ),
    ],
)
def test_bad_metrics_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
