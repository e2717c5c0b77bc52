"""Standard errors under a loss, and from residuals of unknown variances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm

RNG = np.random.default_rng(5)
MATRIX, TARGET = RNG.normal(size=(40, 3)), RNG.normal(size=40) * np.linspace(0.2, 3.0, 40)
MATRIX[:, 2] *= 1e5  # a unit of its own
POINT = np.array([0.3, -0.2, 1e-6])


def linear(params, target):
    return jnp.asarray(MATRIX, params.dtype) @ params - target


def expected(curvatures, gradients):
    """`n/(n − p) H⁻¹ (Σ g gᵀ) H⁻¹` for `H = Σ curvature·J Jᵀ`."""
    hessian = MATRIX.T @ (curvatures[:, None] * MATRIX)
    inverse = np.linalg.inv(hessian)
    return 40 / 37 * inverse @ gradients.T @ gradients @ inverse


def of_point(problem, **options):
    return gramlm.uncertainty.covariance(
        problem, jnp.asarray(POINT), jnp.asarray(TARGET), **options
    )


def test_without_a_loss_it_is_that_of_white():
    r = MATRIX @ POINT - TARGET
    found = of_point(linear, sandwich=True)
    np.testing.assert_allclose(
        found.as_matrix(), expected(np.ones(40), r[:, None] * MATRIX), rtol=1e-9
    )
    assert found.degrees_of_freedom == 37
    np.testing.assert_allclose(found.noise, np.sqrt(r @ r / 37))
    least_norm = gramlm.uncertainty.minimum_norm_covariance(
        linear, jnp.asarray(POINT), jnp.asarray(TARGET), sandwich=True
    )
    np.testing.assert_allclose(least_norm.as_matrix(), found.as_matrix(), rtol=1e-7)


@pytest.mark.parametrize("weights", [None, 4.0])
def test_a_loss_has_its_own_gradient_and_curvature(weights):
    scale = 1.2 if weights is None else 2.4
    problem = gramlm.Problem(linear, loss=gramlm.Cauchy(scale), weights=weights)
    r = MATRIX @ POINT - TARGET
    slope = 1 / (1 + (r / 1.2) ** 2)
    curvature = slope**2 * (1 - (r / 1.2) ** 2)
    assert np.any(curvature < 0)
    np.testing.assert_allclose(
        of_point(problem).as_matrix(),
        expected(curvature, (slope * r)[:, None] * MATRIX),
        rtol=1e-9,
    )


def test_residuals_of_a_block_belong_together():
    problem = gramlm.Problem(linear, loss=gramlm.PerBlock(gramlm.Huber(1.0), 2))
    r = (MATRIX @ POINT - TARGET).reshape(20, 2)
    length = np.linalg.norm(r, axis=1)
    slope = np.where(length > 1, 1 / length, 1.0)
    rows = MATRIX.reshape(20, 2, 3)
    gradients = np.einsum("b,bi,bij->bj", slope, r, rows)
    along = np.einsum("bi,bij->bj", r, rows) / length[:, None]
    hessian = np.einsum("b,bij,bik->jk", slope, rows, rows)
    hessian -= np.einsum("b,bj,bk->jk", np.where(length > 1, slope, 0.0), along, along)
    inverse = np.linalg.inv(hessian)
    np.testing.assert_allclose(
        of_point(problem).as_matrix(),
        40 / 37 * inverse @ gradients.T @ gradients @ inverse,
        rtol=1e-9,
    )


@pytest.mark.parametrize("sandwich", [False, True])
def test_a_residual_of_no_weight_is_no_observation(sandwich):
    known = np.arange(40) % 2 == 0

    def half(params, target):
        return linear(params, target)[known]

    masked = gramlm.Problem(linear, weights=jnp.where(known, 1.0, 0.0))
    found, expected = (of_point(f, sandwich=sandwich) for f in (masked, half))
    np.testing.assert_allclose(found.as_matrix(), expected.as_matrix(), rtol=1e-9)
    assert found.degrees_of_freedom == expected.degrees_of_freedom == 17


def test_where_a_loss_has_no_minimum_there_are_no_errors():
    far = gramlm.Problem(linear, loss=gramlm.Cauchy(0.05))
    assert np.all(np.isnan(of_point(far).standard_errors()))


def test_a_perfect_fit_has_no_error():
    found = gramlm.uncertainty.covariance(linear, jnp.zeros(3), jnp.zeros(40), sandwich=True)
    assert np.all(np.asarray(found.standard_errors()) == 0)


CASES = {
    "Huber": (gramlm.Huber(1.345), jnp.float32),
    "Tukey": (gramlm.Tukey(4.685), jnp.float64),
    "PerBlock": (gramlm.PerBlock(gramlm.Huber(2.0), 2), jnp.float64),
}


@pytest.mark.parametrize(("loss", "dtype"), CASES.values(), ids=CASES)
def test_robust_fits_scatter_as_predicted(loss, dtype):
    """200 data sets, a tenth of their errors ten times as large."""
    n, matrix = 120, jnp.asarray(np.random.default_rng(1).normal(size=(120, 2)), dtype)

    def residual(params, target):
        return matrix @ params - target

    def refit(key):
        normal, which = jax.random.split(key)
        errors = jax.random.normal(normal, (n,), dtype)
        target = jnp.where(jax.random.uniform(which, (n,)) < 0.1, 10, 1) * errors
        fit = gramlm.solve(residual, jnp.zeros(2, dtype), target, loss=loss, throw=False).value
        found = gramlm.uncertainty.covariance(gramlm.Problem(residual, loss=loss), fit, target)
        return fit, found.deviations()

    fits, errors = jax.jit(jax.vmap(refit))(jax.random.split(jax.random.key(0), 200))
    scatter, predicted = jnp.std(fits, axis=0), jnp.sqrt(jnp.mean(errors**2, axis=0))
    # The scatter of 200 is known to 5 %.
    np.testing.assert_allclose(predicted, scatter, rtol=0.2)


def test_it_needs_residuals_to_look_at():
    with pytest.raises(ValueError, match="leave out `noise_variance`"):
        of_point(linear, sandwich=True, noise_variance=1.0)
    with pytest.raises(ValueError, match="`sandwich=False` under a loss needs a `noise_variance`"):
        of_point(gramlm.Problem(linear, loss=gramlm.Huber(1.0)), sandwich=False)
    with pytest.raises(ValueError, match="n = 3 and p = 3"):
        gramlm.uncertainty.covariance(lambda p: p, jnp.ones(3), sandwich=True)
