"""Covariances of least-squares estimates: dense algebra, SciPy, refits, the undetermined."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import gramlm
from support.problems import linear, sine, sine_problem

F32, F64 = np.float32, np.float64
X = np.linspace(0.0, 3.0, 21)


def decay(params, x):
    return params["height"] * jnp.exp(-params["rate"] * x) + params["floor"]


def misfit(params, data):
    x, y = data
    return decay(params, x) - y


def point_misfit(params, point):
    x, y = point
    return decay(params, x) - y


def noisy(seed=0, dtype=F64):
    rng = np.random.default_rng(seed)
    truth = {"height": 2.0, "rate": 1.3, "floor": 0.5}
    y = truth["height"] * np.exp(-truth["rate"] * X) + truth["floor"]
    y = y + 0.05 * rng.normal(size=X.size)
    params = {name: jnp.asarray(value, dtype) for name, value in truth.items()}
    return params, (jnp.asarray(X, dtype), jnp.asarray(y, dtype))


def of_matrix(matrix, residual=None, **options):
    """The covariance for a given J and r."""
    matrix = jnp.asarray(matrix)
    n, p = matrix.shape
    target = -jnp.ones(n, matrix.dtype) if residual is None else -jnp.asarray(residual)
    return gramlm.uncertainty.covariance(
        linear, jnp.zeros(p, matrix.dtype), (matrix, target), **options
    )


def generic(n, p, seed=3, dtype=F64):
    return np.random.default_rng(seed).normal(size=(n, p)).astype(dtype)


@pytest.mark.parametrize("absolute", [False, True])
def test_the_covariance_of_curve_fit(absolute):
    _, (x, y) = noisy()

    def curve(x, height, rate, floor):
        return height * np.exp(-rate * x) + floor

    sigma = np.full(X.size, 0.04) if absolute else None
    best, pcov = scipy.optimize.curve_fit(
        curve, X, np.asarray(y), (1.0, 1.0, 0.0), sigma=sigma, absolute_sigma=absolute, ftol=1e-14
    )
    params = dict(zip(("height", "rate", "floor"), map(jnp.asarray, best), strict=True))
    found = gramlm.uncertainty.covariance(
        misfit, params, (x, y), noise_variance=0.04**2 if absolute else None
    )
    order = [2, 0, 1]  # the leaves of a dictionary are sorted by name
    expected = pcov[np.ix_(order, order)]
    np.testing.assert_allclose(found.as_matrix(), expected, rtol=1e-6)
    errors = found.standard_errors()
    assert set(errors) == set(params)
    np.testing.assert_allclose(errors["rate"], np.sqrt(pcov[1, 1]), rtol=1e-6)
    assert found.rank == 3
    assert found.degrees_of_freedom == (np.inf if absolute else X.size - 3)


@pytest.mark.parametrize(
    ("n", "p", "variance", "dtype"),
    [(9, 5, None, F64), (9, 5, None, F32), (6, 6, 0.25, F64), (2, 1, None, F64)],
)
def test_dense_algebra(n, p, variance, dtype):
    problem = sine_problem(n, p, dtype)
    found = gramlm.uncertainty.covariance(
        sine, problem.params, problem.args, noise_variance=variance
    )
    j = np.asarray(problem.jacobian, float)
    r = np.asarray(sine(problem.params, problem.args), float)
    s2 = r @ r / (n - p) if variance is None else variance
    sigma = s2 * np.linalg.inv(j.T @ j)
    rtol = {F32: 1e-4, F64: 1e-10}[dtype] * np.linalg.cond(j)
    deviations = np.sqrt(np.diag(sigma))
    scale = np.outer(deviations, deviations)
    assert found.standard_errors().dtype == dtype
    np.testing.assert_allclose(found.standard_errors(), deviations, rtol=rtol)
    np.testing.assert_allclose(found.as_matrix() / scale, sigma / scale, atol=rtol)
    np.testing.assert_allclose(found.correlation(), sigma / scale, atol=rtol)
    v = np.linspace(-1, 1, p) + 0.5
    bound = np.linalg.norm(sigma, 2) * np.linalg.norm(v)
    np.testing.assert_allclose(found.mv(jnp.asarray(v, dtype)), sigma @ v, atol=rtol * bound)


ROWS = gramlm.Rows(point_misfit)
POLICIES = {
    "plain, kept": (misfit, gramlm.Keep()),
    "rows": (ROWS, None),
    "rows, in blocks": (ROWS, gramlm.RowBlocks(4)),
    "rows, in blocks, by vectors": (ROWS, gramlm.RowBlocks(8, assemble=False)),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_whatever_is_stored_of_the_jacobian(policy):
    params, data = noisy()
    function, memory = POLICIES[policy]
    found = gramlm.uncertainty.covariance(function, params, data, memory=memory)
    expected = gramlm.uncertainty.covariance(misfit, params, data)
    np.testing.assert_allclose(found.as_matrix(), expected.as_matrix(), rtol=1e-9)


def test_rows_in_blocks_need_no_room_for_the_jacobian():
    points = jnp.zeros((20_000, 32), F32)

    def errors(params, points):
        rows = gramlm.Rows(lambda q, x: jnp.sin(jnp.dot(q, x)))
        memory = gramlm.RowBlocks(256)
        return gramlm.uncertainty.covariance(rows, params, points, memory=memory).standard_errors()

    compiled = jax.jit(errors).lower(jnp.zeros(32, F32), points).compile()
    # The points themselves are stacked once, and J is as large as they are.
    assert compiled.memory_analysis().temp_size_in_bytes < 1.3 * points.nbytes


def test_has_aux_and_nested_outputs():
    params, data = noisy()

    def with_aux(params, data):
        r = misfit(params, data)
        return {"first": r[:5], "rest": r[5:]}, "aux"

    found = gramlm.uncertainty.covariance(with_aux, params, data, has_aux=True).as_matrix()
    expected = gramlm.uncertainty.covariance(misfit, params, data).as_matrix()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_units_of_parameters_and_residuals_do_not_matter(dtype):
    limit = 30 if dtype == F32 else 150
    j = generic(12, 4, dtype=dtype)
    plain = np.asarray(of_matrix(j).standard_errors(), float)
    units = 10.0 ** np.array([-limit, 3.0, limit, 0.0])
    scaled = (j * units).astype(dtype)
    rtol = 1e-5 if dtype == F32 else 1e-12
    found = np.asarray(of_matrix(scaled).standard_errors(), float)
    np.testing.assert_allclose(found * units, plain, rtol=rtol)
    np.testing.assert_allclose(
        of_matrix(scaled).correlation(), of_matrix(j).correlation(), atol=rtol
    )
    # Squares of such residuals underflow.
    tiny = np.full(12, 10.0**-limit, dtype)
    found = np.asarray(of_matrix(j, tiny).standard_errors(), float)
    np.testing.assert_allclose(found * 10.0**limit, plain, rtol=rtol)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_what_is_not_determined_is_infinite_and_the_rest_keeps_its_errors(dtype):
    # Of the first two only the sum matters, the last one not at all.
    j = generic(20, 5, dtype=dtype)
    j[:, 1] = j[:, 0]
    j[:, 4] = 0
    j[:, 2] *= dtype(1e-6)
    found = of_matrix(j)
    errors = np.asarray(found.standard_errors(), float)
    assert found.rank == 3
    assert found.degrees_of_freedom == 17
    assert np.all(np.isinf(errors[[0, 1, 4]]))
    kept = j[:, [0, 2, 3]].astype(float)
    sigma = 20 / 17 * np.linalg.inv(kept.T @ kept)  # the residual is all ones
    rtol = 1e-4 if dtype == F32 else 1e-10
    np.testing.assert_allclose(errors[[2, 3]], np.sqrt(np.diag(sigma)[1:]), rtol=rtol)

    matrix, correlation = np.asarray(found.as_matrix()), np.asarray(found.correlation())
    np.testing.assert_allclose(matrix[2:4, 2:4], sigma[1:, 1:], rtol=100 * rtol)
    assert np.all(np.isinf(np.diag(matrix)[[0, 1, 4]]))
    assert np.all(np.isnan(matrix[0, 1:]))
    assert np.all(np.isnan(correlation[[0, 1, 4]]))
    draws = np.asarray(found.sample(jax.random.key(0), 4))
    assert np.all(np.isnan(draws[:, [0, 1, 4]]))
    assert np.all(np.isfinite(draws[:, 2:4]))

    def combined(q):
        return {"sum": q[0] + q[1], "difference": q[0] - q[1]}

    predicted = found.prediction_errors(combined)
    np.testing.assert_allclose(predicted["sum"], np.sqrt(sigma[0, 0]), rtol=rtol)
    assert np.isinf(predicted["difference"])
    lower, upper = found.confidence_intervals()
    assert lower[0] == -np.inf
    assert upper[0] == np.inf


def test_parameters_beside_ill_conditioned_ones_are_determined():
    # The first two nearly depend on one another, at 1e-11; the others have nothing to do with them.
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.normal(size=(20, 5)))[0]
    j = q.copy()
    j[:, 1] = q[:, 0] + 1e-11 * q[:, 1]
    j[:, 4] = q[:, 3]
    found = of_matrix(j, noise_variance=1.0)
    assert found.rank == 4
    errors = np.asarray(found.standard_errors())
    np.testing.assert_allclose(errors[:2], 1e11, rtol=1e-3)
    np.testing.assert_allclose(errors[2], 1.0, rtol=1e-10)
    assert np.all(np.isinf(errors[3:]))


def test_rtol_says_what_counts_as_dependent():
    j = generic(12, 4)
    j[:, 2] = j[:, 1] + 1e-7 * j[:, 2]  # as finite differences might have it
    assert np.all(np.isfinite(of_matrix(j).standard_errors()))
    found = of_matrix(j, rtol=1e-6).standard_errors()
    np.testing.assert_array_equal(np.isinf(found), [False, True, True, False])


def test_without_any_information():
    found = of_matrix(np.zeros((12, 4)))
    assert np.all(np.isinf(found.standard_errors()))
    assert found.rank == 0


def test_fewer_residuals_than_parameters():
    # The second residual measures one parameter alone.
    j = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    errors = of_matrix(j, noise_variance=1.0).standard_errors()
    np.testing.assert_allclose(errors, [np.inf, np.inf, 0.5])


def test_a_perfect_fit_has_no_error():
    found = of_matrix(generic(12, 4), np.zeros(12))
    np.testing.assert_array_equal(found.standard_errors(), 0)
    np.testing.assert_allclose(np.diag(found.correlation()), 1)
    np.testing.assert_array_equal(
        np.isinf(of_matrix(np.eye(12, 4)[:, [0, 0, 1, 1]], np.zeros(12)).standard_errors()), True
    )


@pytest.mark.parametrize("where", ["J", "r"])
def test_nan_stays_nan(where):
    j, r = generic(12, 4), np.ones(12)
    (j if where == "J" else r)[2] = np.nan
    found = of_matrix(j, r)
    assert np.all(np.isnan(found.standard_errors()))
    assert np.all(np.isnan(found.as_matrix()))
    assert np.all(np.isnan(found.prediction_errors(lambda q: q[:2])))


@pytest.mark.parametrize(
    ("n", "p", "rank", "dtype"), [(5, 9, 5, F64), (5, 9, 3, F32), (6, 6, 6, F64), (9, 5, 3, F64)]
)
def test_minimum_norm(n, p, rank, dtype):
    u, s, vt = np.linalg.svd(generic(n, p), full_matrices=False)
    j = ((u[:, :rank] * s[:rank]) @ vt[:rank]).astype(dtype)
    args = (jnp.asarray(j), jnp.ones(n, dtype))
    found = gramlm.uncertainty.minimum_norm_covariance(
        linear, jnp.zeros(p, dtype), args, noise_variance=dtype(0.5)
    )
    inverse = (vt[:rank].T / s[:rank]) @ u[:, :rank].T
    expected = 0.5 * inverse @ inverse.T
    assert found.rank == rank
    rtol = 1e-4 if dtype == F32 else 1e-10
    np.testing.assert_allclose(found.as_matrix(), expected, atol=rtol * np.abs(expected).max())
    np.testing.assert_allclose(found.standard_errors(), np.sqrt(np.diag(expected)), rtol=10 * rtol)


def test_minimum_norm_of_full_rank_is_the_covariance():
    args = (jnp.asarray(generic(12, 4)), jnp.arange(12.0))
    found = gramlm.uncertainty.minimum_norm_covariance(linear, jnp.zeros(4), args)
    expected = gramlm.uncertainty.covariance(linear, jnp.zeros(4), args)
    np.testing.assert_allclose(found.as_matrix(), expected.as_matrix(), rtol=1e-9)


def test_predictions_of_curves():
    params, data = noisy()
    found = gramlm.uncertainty.covariance(misfit, params, data)
    grid = jnp.linspace(0.0, 4.0, 50)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    a = np.asarray(jax.jacfwd(lambda q: decay(unravel(q), grid))(flat))
    expected = np.sqrt(np.diag(a @ np.asarray(found.as_matrix()) @ a.T))
    # More values than parameters, fewer, each a function of its own point, and some of each kind.
    np.testing.assert_allclose(found.prediction_errors(decay, grid), expected, rtol=1e-9)
    few = found.prediction_errors(lambda q: {"start": decay(q, 0.0), "end": decay(q, grid[-1:])})
    assert few["start"].shape == ()
    np.testing.assert_allclose(few["end"], expected[-1:], rtol=1e-9)
    by_rows = found.prediction_errors(gramlm.Rows(decay), grid)
    np.testing.assert_allclose(by_rows, expected, rtol=1e-9)

    def pair(q, x):
        return {"twice": 2 * decay(q, x), "both": jnp.stack([decay(q, x), -decay(q, x)])}

    many = jnp.linspace(0.0, 4.0, 300)  # more than one batch, and a rest
    both, again = found.prediction_errors(gramlm.Rows(pair, decay), (many, grid))
    np.testing.assert_allclose(again, expected, rtol=1e-9)
    np.testing.assert_allclose(both["twice"], 2 * both["both"][:, 0], rtol=1e-9)
    np.testing.assert_allclose(both["both"][-1], expected[-1], rtol=1e-9)
    np.testing.assert_array_equal(found.prediction_overestimates(decay, grid), 0)


def test_intervals_are_those_of_student():
    params, data = noisy()
    found = gramlm.uncertainty.covariance(misfit, params, data)

    @jax.jit
    def intervals(data):
        return gramlm.uncertainty.covariance(misfit, params, data).confidence_intervals(0.9)

    lower, upper = intervals(data)
    t = scipy.stats.t.ppf(0.95, X.size - 3)
    half = t * found.standard_errors()["rate"]
    np.testing.assert_allclose(upper["rate"], params["rate"] + half, rtol=1e-10)
    np.testing.assert_allclose(lower["rate"], params["rate"] - half, rtol=1e-10)
    known = gramlm.uncertainty.covariance(misfit, params, data, noise_variance=0.01)
    half = scipy.stats.norm.ppf(0.975) * known.standard_errors()["floor"]
    np.testing.assert_allclose(known.confidence_intervals()[1]["floor"], params["floor"] + half)


def test_samples_have_the_covariance():
    found = of_matrix(generic(12, 4), noise_variance=1.0)
    draws = np.asarray(found.sample(jax.random.key(4), 20_000))
    expected = np.asarray(found.as_matrix())
    # The relative standard error of a variance is √(2/20000) = 0.01.
    assert np.abs(np.cov(draws.T) - expected).max() < 0.05 * expected.max()
    assert np.abs(draws.mean(axis=0)).max() < 0.05 * np.sqrt(expected.max())


def test_refits_of_synthetic_data_scatter_as_predicted():
    params, (x, _) = noisy()
    count, noise = 400, 0.02
    clean = decay(params, x)
    errors = np.random.default_rng(8).normal(size=(count, X.size)) * noise

    flat, unravel = jax.flatten_util.ravel_pytree(params)

    @jax.jit
    @jax.vmap
    def refit(y):
        def residual(theta):
            return misfit(unravel(theta), (x, y))

        def improved(_, theta):  # Gauss-Newton, from the truth
            return theta - jnp.linalg.lstsq(jax.jacfwd(residual)(theta), residual(theta))[0]

        best = unravel(jax.lax.fori_loop(0, 8, improved, flat))
        found = gramlm.uncertainty.covariance(misfit, best, (x, y))
        lower, upper = found.confidence_intervals(0.9)
        inside = jax.tree.map(lambda a, b, t: (a <= t) & (t <= b), lower, upper, params)
        return best, found.standard_errors(), inside

    values, estimated, inside = refit(clean + errors)
    expected = gramlm.uncertainty.covariance(misfit, params, (x, clean), noise_variance=noise**2)
    for name, error in expected.standard_errors().items():
        # A standard deviation of 400 values is known to 1/√800 = 3.5 %.
        np.testing.assert_allclose(np.std(values[name]), error, rtol=0.15)
        np.testing.assert_allclose(np.mean(estimated[name]), error, rtol=0.1)
        assert abs(np.mean(inside[name]) - 0.9) < 0.06  # four standard deviations


def test_it_is_a_lineax_operator():
    found = of_matrix(generic(12, 4))
    matrix = np.asarray(found.as_matrix())
    assert lx.is_positive_semidefinite(found)
    assert not lx.is_diagonal(found)
    np.testing.assert_allclose(lx.diagonal(found), np.diag(matrix))
    np.testing.assert_allclose(lx.materialise(found).as_matrix(), matrix)
    np.testing.assert_allclose(lx.tridiagonal(found)[1], np.diag(matrix, -1))
    np.testing.assert_allclose(found.T.mv(jnp.ones(4)), matrix.sum(axis=0))
    solved = lx.linear_solve(found, jnp.ones(4), lx.Cholesky()).value
    np.testing.assert_allclose(matrix @ np.asarray(solved), 1.0, rtol=1e-9)


def test_it_goes_through_transformations():
    matrices = jnp.asarray(np.stack([generic(12, 4, seed) for seed in range(3)]))
    found = jax.vmap(lambda j: of_matrix(j).standard_errors())(matrices)
    np.testing.assert_allclose(
        found, [of_matrix(j).standard_errors() for j in matrices], rtol=1e-12
    )
    whole = jax.jit(of_matrix)(matrices[0])  # the object itself comes out
    np.testing.assert_allclose(whole.standard_errors(), found[0], rtol=1e-12)


PARAMS, DATA = noisy()
FOUND = gramlm.uncertainty.covariance(misfit, PARAMS, DATA)
ERRORS = {
    "n = 2 and p = 3.*Pass `noise_variance`": lambda: gramlm.uncertainty.covariance(
        misfit, PARAMS, (X[:2], X[:2])
    ),
    "n = 3 and p = 3": lambda: gramlm.uncertainty.minimum_norm_covariance(
        misfit, PARAMS, (X[:3], X[:3])
    ),
    "`noise_variance` must be positive": lambda: gramlm.uncertainty.covariance(
        misfit, PARAMS, DATA, noise_variance=0.0
    ),
    "`rtol` must be": lambda: gramlm.uncertainty.covariance(misfit, PARAMS, DATA, rtol=1.0),
    "`level` must be positive and below 1": lambda: FOUND.confidence_intervals(95.0),
    "`count` must be at least 1": lambda: FOUND.sample(jax.random.key(0), 0),
    "`function` returned no values": lambda: FOUND.prediction_errors(lambda q: None),
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors_name_the_argument(text):
    with pytest.raises(ValueError, match=text):
        ERRORS[text]()


def test_predictions_of_other_types_are_errors():
    with pytest.raises(TypeError, match="`function` returned int32 values for float64 parameters"):
        FOUND.prediction_errors(lambda q: jnp.zeros(2, jnp.int32))
