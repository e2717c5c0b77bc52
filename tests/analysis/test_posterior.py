"""Posterior covariances: dense algebra, Gaussian processes, and the bounds of bases too small."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from support.problems import SHAPES, definite, linear, sine, sine_problem

F32, F64 = np.float32, np.float64


def of_matrix(matrix, prior=1.0, noise_variance=1.0, **options):
    matrix = jnp.asarray(matrix)
    n, p = matrix.shape
    args = (matrix, jnp.ones(n, matrix.dtype))
    return gramlm.uncertainty.posterior_covariance(
        linear,
        jnp.zeros(p, matrix.dtype),
        args,
        prior=prior,
        noise_variance=noise_variance,
        **options,
    )


def exact(jacobian, prior, variance):
    """By the formula for n × n, in float64."""
    j = np.asarray(jacobian, float)
    inner = j @ prior @ j.T + variance * np.eye(len(j))
    return prior - prior @ j.T @ np.linalg.solve(inner, j @ prior)


PRIORS = {
    "variance": lambda p: (0.7, 0.7 * np.eye(p)),
    "variances": lambda p: (np.linspace(0.2, 2, p), np.diag(np.linspace(0.2, 2, p))),
    "diagonal": lambda p: (
        lx.DiagonalLinearOperator(jnp.linspace(0.2, 2, p)),
        np.diag(np.linspace(0.2, 2, p)),
    ),
    "dense": lambda p: (definite(p), np.asarray(definite(p).as_matrix())),
}


@pytest.mark.parametrize(
    ("shape", "kind", "dtype"),
    [
        ("wide", "variance", F32),
        ("wide", "variances", F64),
        ("wide", "dense", F64),
        ("square", "diagonal", F64),
        ("tall", "dense", F64),
        ("tall", "variances", F32),
    ],
)
def test_dense_algebra(shape, kind, dtype):
    n, p = SHAPES[shape]
    problem = sine_problem(n, p, dtype)
    prior, matrix = PRIORS[kind](p)
    found = gramlm.uncertainty.posterior_covariance(
        sine, problem.params, problem.args, prior=prior, noise_variance=0.1
    )
    expected = exact(problem.jacobian, matrix, 0.1)
    atol = 2e-6 if dtype == F32 else 1e-13
    deviations = np.sqrt(np.diag(expected))
    assert found.standard_errors().dtype == dtype
    np.testing.assert_allclose(found.as_matrix(), expected, atol=atol)
    np.testing.assert_allclose(found.standard_errors(), deviations, rtol=10 * atol)
    correlation = expected / np.outer(deviations, deviations)
    np.testing.assert_allclose(found.correlation(), correlation, atol=10 * atol)
    np.testing.assert_array_equal(found.overestimates(), 0)
    some = found.prediction_errors(lambda q: q[1:3])  # of chosen parameters
    np.testing.assert_allclose(some, deviations[1:3], rtol=10 * atol)


def kernel(x, y):
    return np.exp(-0.5 * ((x[:, None] - y) / 0.3) ** 2)


CENTRES = np.linspace(-0.2, 1.2, 40)


def network(params, x):
    return jnp.dot(params["weight"], jnp.exp(-0.5 * ((x - CENTRES) / 0.3) ** 2))


def network_misfit(params, point):
    x, y = point
    return network(params, x) - y


SAMPLES = np.linspace(0.0, 1.0, 15)
GRID = np.linspace(-0.5, 1.5, 23)


def network_posterior(noise, **options):
    params = {"weight": jnp.zeros(CENTRES.size)}
    return gramlm.uncertainty.posterior_covariance(
        gramlm.Rows(network_misfit),
        params,
        (SAMPLES, np.sin(SAMPLES)),
        prior={"weight": 2.0},
        noise_variance=noise**2,
        **options,
    )


def test_a_gaussian_process():
    noise = 0.05
    found = network_posterior(noise)
    # The kernel of the process is that of the features, weighted by the prior.
    at, on = kernel(GRID, CENTRES), kernel(SAMPLES, CENTRES)
    inner = 2.0 * on @ on.T + noise**2 * np.eye(SAMPLES.size)
    cross = 2.0 * at @ on.T
    variance = 2.0 * np.sum(at**2, axis=1) - np.sum(cross * np.linalg.solve(inner, cross.T).T, 1)
    predicted = found.prediction_errors(gramlm.Rows(network), GRID)
    np.testing.assert_allclose(predicted, np.sqrt(variance), rtol=1e-8)
    whole = found.prediction_errors(lambda q, xs: jax.vmap(lambda x: network(q, x))(xs), GRID)
    np.testing.assert_allclose(whole, predicted, rtol=1e-10)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
def test_small_variances_do_not_cancel(shape, dtype):
    # J Jᵀ = c², or JᵀJ: the posterior is known, and far below the prior.
    n, p = {"square": (6, 6), "wide": (3, 6), "tall": (6, 3)}[shape]
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    m = min(n, p)
    j = np.zeros((n, p), dtype)
    j[:, :m] = 1e5 * q[:, :m]
    noise = 0.3 if dtype == F32 and n < p else 1e-3  # for n < p rounding is ε of the prior
    errors = np.asarray(of_matrix(j, noise_variance=noise**2).standard_errors(), float)
    np.testing.assert_allclose(errors[:m], noise / 1e5, rtol=2e-3 if dtype == F32 else 1e-6)
    np.testing.assert_allclose(errors[m:], 1.0, rtol=1e-6)


def test_a_vague_prior_changes_nothing_and_a_variance_of_zero_fixes_a_parameter():
    j = np.random.default_rng(5).normal(size=(9, 5))
    args = (jnp.asarray(j), jnp.ones(9))
    classical = gramlm.uncertainty.covariance(linear, jnp.zeros(5), args, noise_variance=0.3)
    vague = of_matrix(j, 1e14, 0.3)
    np.testing.assert_allclose(vague.as_matrix(), classical.as_matrix(), rtol=1e-9)
    for matrix in (j, j.T[:, :9]):
        variances = np.ones(matrix.shape[1])
        variances[2] = 0
        fixed = of_matrix(matrix, variances, 0.3)
        expected = exact(matrix, np.diag(variances), 0.3)
        assert fixed.standard_errors()[2] == 0
        np.testing.assert_allclose(fixed.as_matrix(), expected, atol=1e-13)


def test_samples_have_the_covariance():
    j = 0.5 * np.random.default_rng(6).normal(size=(3, 5))
    found = of_matrix(j, definite(5))
    draws = np.asarray(found.sample(jax.random.key(4), 20_000))
    expected = np.asarray(found.as_matrix())
    assert np.abs(np.cov(draws.T) - expected).max() < 0.05 * expected.max()


BASES = {"much too small": (4, None, 0.1, 2.0), "a little": (8, gramlm.RowBlocks(4), 0.0, 0.01)}


@pytest.mark.parametrize("basis", BASES)
def test_a_basis_that_is_too_small_is_never_below_and_says_how_far_above(basis):
    size, memory, least, most = BASES[basis]
    whole = network_posterior(0.05)
    found = network_posterior(0.05, basis_size=size, block_size=2, num_probes=64, memory=memory)
    curve = gramlm.Rows(network)
    for errors, above, expected in (
        (found.standard_errors(), found.overestimates(), whole.standard_errors()),
        (
            found.prediction_errors(curve, GRID),
            found.prediction_overestimates(curve, GRID),
            whole.prediction_errors(curve, GRID),
        ),
    ):
        (errors,), (above,), (expected,) = map(jax.tree.leaves, (errors, above, expected))
        assert np.all(errors >= expected * (1 - 1e-9))
        # The bound is estimated, to 1/√32 = 18 %.
        assert np.all(errors - 2 * above <= expected * (1 + 1e-9))
        assert least < np.max(above) < most


def test_more_data_than_parameters_with_a_basis():
    rng = np.random.default_rng(2)
    left, right = (np.linalg.qr(rng.normal(size=(m, 12)))[0] for m in (30, 12))
    j = left * 10.0 ** -np.arange(-2.0, 10.0) @ right.T  # singular values from 100 down
    found = of_matrix(j, basis_size=6, block_size=2, memory=gramlm.Recompute())
    expected = exact(j, np.eye(12), 1.0)
    assert isinstance(found, gramlm.uncertainty.PosteriorCovariance)
    np.testing.assert_allclose(found.as_matrix(), expected, atol=1e-4)
    assert np.max(found.overestimates()) < 1e-2


def test_no_matrix_of_the_size_of_the_parameters():
    n, p = 500, 20_000

    def errors(matrix):
        found = of_matrix(matrix, basis_size=16)
        return found.standard_errors(), found.overestimates(), found.mv(matrix[0])

    compiled = jax.jit(errors).lower(jax.ShapeDtypeStruct((n, p), F32)).compile()
    # p × p is 40 times J.
    assert compiled.memory_analysis().temp_size_in_bytes < n * p * 4


def test_it_goes_through_transformations():
    matrices = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 6)))
    variances = jnp.asarray([0.1, 1.0, 10.0])
    found = jax.vmap(lambda j, v: of_matrix(j, v, v).standard_errors())(matrices, variances)
    expected = [
        of_matrix(j, v, v).standard_errors() for j, v in zip(matrices, variances, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_nan_stays_nan():
    for shape in ((4, 6), (6, 4)):
        j = np.ones(shape)
        j[0, 0] = np.nan
        assert np.all(np.isnan(of_matrix(j).standard_errors()))


J = np.ones((2, 3))
ERRORS = {
    "`noise_variance` must be positive": lambda: of_matrix(J, noise_variance=-1.0),
    "`prior` must have variances": lambda: of_matrix(J, -1.0),
    "`prior` must have variances that": lambda: of_matrix(J, np.inf),
    "`prior` must be a variance, a pytree": lambda: of_matrix(J, {"a": 1.0}),
    "`prior` must have arrays that broadcast": lambda: of_matrix(J, np.ones(2)),
    "`prior` must be a square operator of size 3": lambda: of_matrix(
        J, lx.DiagonalLinearOperator(jnp.ones(2))
    ),
    "`prior` must be tagged": lambda: of_matrix(J, lx.MatrixLinearOperator(jnp.eye(3))),
    "`prior` must be positive definite": lambda: of_matrix(
        J, lx.MatrixLinearOperator(-jnp.eye(3), lx.positive_semidefinite_tag)
    ),
    "`basis_size` must be": lambda: of_matrix(J, basis_size=0),
    "`num_probes` must be": lambda: of_matrix(J, basis_size=1, num_probes=0),
    "`block_size` must be": lambda: of_matrix(J, basis_size=1, block_size=0),
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors_name_the_argument(text):
    with pytest.raises(ValueError, match=text):
        ERRORS[text]()
