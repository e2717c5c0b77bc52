"""The diagnostics agree with dense linear algebra, and their error bounds hold."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from support.problems import METRICS, SHAPES, dense, sine

api = gramlm.diagnostics

LARGER = {"wide": (60, 90), "square": (60, 60), "tall": (90, 60)}
KEY = jax.random.key(3)
FEW_STEPS = {"num_probes": 8, "basis_size": 16, "num_steps": 8, "key": KEY}


def host(tree):
    """Results as NumPy arrays: to compare them is then no program to compile."""
    return jax.tree.map(np.asarray, tree)


def given(jacobian):
    """A linearisation with a given Jacobian; those of one shape share what is compiled."""
    ones = np.ones(len(jacobian), jacobian.dtype)
    return gramlm.extend.MaterialisedLinearisation(jnp.asarray(ones), jnp.asarray(jacobian))


def matrix(n, p, rate=0.2, dtype=np.float64):
    """A matrix with the singular values `exp(−rate·i)`."""
    rng = np.random.default_rng(5)
    m = min(n, p)
    left = np.linalg.qr(rng.normal(size=(n, m)))[0]
    right = np.linalg.qr(rng.normal(size=(p, m)))[0]
    return ((left * np.exp(-rate * np.arange(m))) @ right.T).astype(dtype)


def gram(jacobian, metric=None):
    """K in float64, by dense algebra."""
    j = np.asarray(jacobian, np.float64)
    return j @ np.linalg.solve(np.asarray(dense(metric, j.shape[1]), np.float64), j.T)


def leading(k, rank):
    return np.linalg.eigvalsh(k)[::-1][:rank]


def dimension(k, damping):
    mu = np.maximum(np.linalg.eigvalsh(k), 0)
    return np.sum(mu / (mu + damping))


def assert_spectrum(found, k, dtype):
    """Values, vectors and bounds against the dense K."""
    rank, eps = len(found.values), np.finfo(dtype).eps
    expected = leading(k, rank)
    slack = 20 * eps * expected[0]
    assert found.values.dtype == found.errors.dtype == found.vectors.dtype == dtype
    assert np.all(found.values <= expected + slack)
    assert np.all(abs(found.values - expected) <= found.errors + slack)
    vectors = found.vectors.astype(float)
    residuals = np.linalg.norm(vectors @ k - found.values[:, None] * vectors, axis=1)
    # For n > p the errors are those of the eigenvectors of the smaller matrix.
    errors = found.errors * np.sqrt(expected[0] / expected)
    assert np.all(residuals <= 1.1 * errors + slack)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(rank), atol=100 * eps)


@pytest.mark.parametrize(("shape", "dtype"), [("square", np.float32), ("tall", np.float64)])
def test_largest_eigenvalue_and_its_error(shape, dtype):
    j = matrix(*LARGER[shape], dtype=dtype)
    k = gram(j)
    found = host(jax.jit(lambda j: api.largest_eigenvalue(given(j), basis_size=40))(j))
    (expected,) = leading(k, 1)
    assert found.value.dtype == found.error.dtype == found.vector.dtype == dtype
    assert found.converged
    assert found.error <= 1e-3 * found.value
    assert abs(found.value - expected) <= 1e-5 * expected  # quadratic in the error
    residual = np.linalg.norm(k @ found.vector - found.value * found.vector)
    assert residual <= 1.1 * found.error + 1e-5 * expected
    assert 0 < found.products < 60


@pytest.mark.parametrize(("shape", "metric"), [("wide", "dense"), ("tall", "diagonal")])
def test_spectrum_of_a_krylov_basis(shape, metric):
    n, p = LARGER[shape]
    j, m = matrix(n, p), METRICS[metric](p)
    found = host(api.spectrum(given(j), m, rank=4, basis_size=40))
    assert found.converged
    assert found.products < 2 * 40
    assert_spectrum(found, gram(j, m), np.float64)


@pytest.mark.parametrize(
    ("shape", "dtype"), [("wide", np.float32), ("square", np.float64), ("tall", np.float32)]
)
def test_spectrum_of_a_basis_that_fills_the_space(shape, dtype):
    n, p = SHAPES[shape]
    j = matrix(n, p, dtype=dtype)
    found = host(api.spectrum(given(j), METRICS["dense"](p), rank=5))  # a float64 metric
    k = gram(j, METRICS["dense"](p))
    assert_spectrum(found, k, dtype)
    np.testing.assert_allclose(found.values, leading(k, 5), rtol=2e-5)


def test_spectrum_that_has_not_converged_says_so_and_bounds_its_error():
    j = np.random.default_rng(0).normal(size=(60, 90))
    found = host(api.spectrum(given(j), rank=3, basis_size=12))
    assert not found.converged
    assert_spectrum(found, gram(j), np.float64)


@pytest.mark.parametrize(("shape", "dtype"), [("wide", np.float32), ("tall", np.float64)])
@pytest.mark.parametrize("kind", ["zero", "rank one", "identity"])
def test_degenerate_spectra(kind, shape, dtype):
    n, p = LARGER[shape]
    rng = np.random.default_rng(2)
    j = {
        "zero": np.zeros((n, p)),
        "rank one": np.outer(rng.normal(size=n), rng.normal(size=p)),
        "identity": np.eye(n, p),
    }[kind].astype(dtype)
    at, k = given(j), gram(j)
    found = host(api.spectrum(at, rank=6, basis_size=24))
    np.testing.assert_allclose(found.values, leading(k, 6), atol=1e-5 * leading(k, 1)[0])
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(6), atol=1e-5)
    assert found.converged
    found = host(api.effective_dimension(at, 1e-3, **FEW_STEPS))
    np.testing.assert_allclose(found.value, dimension(k, 1e-3), rtol=1e-4, atol=1e-6)
    assert found.standard_error < 1e-4
    assert found.truncation_error < 1e-4


@pytest.mark.parametrize(
    ("shape", "metric", "dtype"),
    [
        ("wide", "identity", np.float64),
        ("square", "diagonal", np.float32),
        ("tall", "dense", np.float32),
        ("tall", "diagonal", np.float64),
    ],
)
def test_exact_effective_dimension(shape, metric, dtype):
    n, p = SHAPES[shape]
    j = matrix(n, p, dtype=dtype)
    k = gram(j, METRICS[metric](p))
    dampings = leading(k, 1)[0] * np.asarray([1.0, 1e-2, 1e-6])
    found = host(api.effective_dimension(given(j), dampings, METRICS[metric](p)))
    expected = [dimension(k, damping) for damping in dampings]
    rtol = {np.float32: 1e-5, np.float64: 1e-9}[dtype]  # of `expected`, by eigenvalues of K
    np.testing.assert_allclose(found.value, expected, rtol=rtol)
    assert found.value.dtype == dtype
    assert not np.any(found.standard_error)
    assert not np.any(found.truncation_error)


def test_exact_effective_dimension_does_not_square_the_jacobian():
    j = matrix(12, 20, rate=1.0, dtype=np.float32)
    mu = np.linalg.svd(j.astype(float), compute_uv=False) ** 2
    damping = 1e-9  # μ goes down to 10⁻⁹ of the largest, and ε is 10⁻⁷
    found = api.effective_dimension(given(j), damping)
    np.testing.assert_allclose(found.value, np.sum(mu / (mu + damping)), rtol=2e-3)
    assert api.effective_dimension(given(0 * j), damping).value == 0


@pytest.mark.parametrize(
    ("shape", "metric", "dtype"),
    [("wide", "dense", np.float64), ("tall", "diagonal", np.float32)],
)
def test_estimated_effective_dimension(shape, metric, dtype):
    n, p = LARGER[shape]
    j, m = matrix(n, p, rate=0.05, dtype=dtype), METRICS[metric](p)
    dampings = np.asarray([1e-1, 1e-2], dtype)
    expected = np.asarray([dimension(gram(j, m), damping) for damping in dampings])

    @jax.jit
    def estimate(j, dampings):
        return api.effective_dimension(
            given(j), dampings, m, num_probes=32, basis_size=24, num_steps=32, key=KEY
        )

    found = host(estimate(j, dampings))
    assert found.value.shape == found.standard_error.shape == (2,)
    assert found.value.dtype == found.standard_error.dtype == found.truncation_error.dtype == dtype
    bound = 4 * found.standard_error + found.truncation_error + 1e-4
    assert np.all(abs(found.value - expected) <= bound)
    assert np.all(found.standard_error < 0.1 * expected)
    assert np.all(found.truncation_error < 0.01 * expected)


def test_truncation_error_bounds_what_few_steps_miss():
    j = matrix(90, 60, rate=0.1)
    found = host(api.effective_dimension(given(j), 1e-5, **FEW_STEPS))
    assert found.truncation_error > 1
    error = abs(found.value - dimension(gram(j), 1e-5))
    assert error <= found.truncation_error + 4 * found.standard_error


class OfTheUser(gramlm.extend.AbstractProductLinearisation):
    """Nothing but products."""

    residual: jax.Array
    jacobian: jax.Array

    @property
    def num_params(self):
        return self.jacobian.shape[1]

    def jvp(self, v):
        return self.jacobian @ v

    def vjp(self, u):
        return self.jacobian.T @ u


def interior(theta, x):
    return jnp.stack([jnp.sin(x @ theta), jnp.exp(-jnp.sum((x - theta) ** 2))])


def boundary(theta, x):
    return jnp.cos(jnp.sum(theta) * x)


ROWS = gramlm.Rows(interior, boundary)


def rows_problem(p=7):
    """A point, the data of `ROWS`, and the residual as one function of a flat vector."""
    rng = np.random.default_rng(4)
    theta = jnp.asarray(rng.normal(size=p))
    data = (jnp.asarray(rng.normal(size=(9, p))), jnp.asarray(rng.normal(size=4)))
    return theta, data, lambda q: jnp.concatenate([block.reshape(-1) for block in ROWS(q, data)])


def by_rows(memory=None):
    theta, data, flat = rows_problem()
    at = eqx.filter_jit(gramlm.linearise)(ROWS, theta, data, memory=memory)
    return at, jax.jit(jax.jacfwd(flat))(theta)


def plain(n, p):
    theta, data = jnp.asarray(np.linspace(-1, 1, p)), (jnp.asarray(matrix(n, p)), np.ones(n))
    at = eqx.filter_jit(gramlm.linearise)(sine, theta, data)
    return at, jax.jit(jax.jacfwd(sine))(theta, data)


def of_the_user(n, p):
    j = matrix(n, p)
    return OfTheUser(jnp.asarray(np.ones(n)), jnp.asarray(j)), j


# A linearisation of every kind, and its dense Jacobian; those of the user take several blocks.
LINEARISATIONS = {
    "rows": by_rows,
    "row blocks": lambda: by_rows(gramlm.RowBlocks(2)),
    "plain wide": lambda: plain(5, 9),
    "plain tall": lambda: plain(9, 5),
    "of the user, wide": lambda: of_the_user(130, 135),
    "of the user, tall": lambda: of_the_user(135, 130),
    "matrix": lambda: (given(matrix(5, 9)), matrix(5, 9)),
}


@pytest.mark.parametrize("kind", LINEARISATIONS)
def test_exact_values_of_every_linearisation(kind):
    at, j = LINEARISATIONS[kind]()
    j, metric = np.asarray(j), METRICS["dense"](j.shape[1])
    rows, columns = host((api.gram_diagonal(at, metric), api.column_norms_squared(at)))
    np.testing.assert_allclose(rows.value, np.diag(gram(j, metric)), rtol=1e-10)
    np.testing.assert_allclose(columns.value, np.sum(j**2, axis=0), rtol=1e-10)
    assert not np.any(rows.standard_error)
    assert not np.any(columns.standard_error)
    found = host(api.effective_dimension(at, 0.1, metric))
    np.testing.assert_allclose(found.value, dimension(gram(j, metric), 0.1), rtol=1e-10)


@pytest.mark.parametrize(("metric", "dtype"), [("dense", np.float32), ("identity", np.float64)])
def test_estimated_diagonals(metric, dtype):
    j = np.random.default_rng(6).normal(size=(30, 50)).astype(dtype)
    at, m = given(j), METRICS[metric](50)
    rows = host(api.gram_diagonal(at, m, num_probes=64, key=KEY))
    columns = host(api.column_norms_squared(at, num_probes=64, key=KEY))
    for found, expected in (
        (rows, np.diag(gram(j, m))),
        (columns, np.sum(j.astype(float) ** 2, axis=0)),
    ):
        assert found.value.dtype == found.standard_error.dtype == dtype
        score = (found.value - expected) / found.standard_error
        assert np.max(abs(score)) < 5
        assert 0.5 < np.sqrt(np.mean(score**2)) < 1.5
        relative = found.standard_error / expected
        assert np.sqrt(np.mean(relative**2)) < 1.5 * np.sqrt(2 / 64)


def test_estimated_diagonals_without_any_spread():
    column = np.arange(1.0, 5.0, dtype=np.float32)[:, None]
    for j in (column, np.zeros_like(column)):
        found = host(api.gram_diagonal(given(j), num_probes=4, key=KEY))
        np.testing.assert_allclose(found.value, j[:, 0] ** 2, rtol=1e-6)
        np.testing.assert_allclose(found.standard_error, 0, atol=1e-6)


def test_second_derivatives_of_a_pytree():
    rng = np.random.default_rng(8)
    params = {"a": rng.normal(size=3).astype(np.float32), "b": np.float32(0.5)}
    vector = {"a": rng.normal(size=3).astype(np.float32), "b": np.float32(-2.0)}
    x = rng.normal(size=(6, 3)).astype(np.float32)

    def residual(params, x):
        return {"u": jnp.sin(x @ params["a"]) + params["b"] ** 2, "v": params["b"] * params["a"]}

    @jax.jit
    def expected(q, v):
        def flat(q):
            return jnp.concatenate(list(residual({"a": q[:3], "b": q[3]}, x).values()))

        j = jax.jacfwd(flat)(q)
        return jax.hessian(lambda q: 0.5 * jnp.sum(flat(q) ** 2))(q) @ v, j.T @ (j @ v)

    q, v = (np.append(tree["a"], tree["b"]) for tree in (params, vector))
    full, gauss_newton = expected(q, v)
    for found, by_matrix in (
        (jax.jit(lambda *a: api.hessian_product(residual, *a))(params, vector, x), full),
        (api.gauss_newton_product(residual, params, vector, x), gauss_newton),
    ):
        assert found["a"].dtype == found["b"].dtype == np.float32
        assert found["b"].shape == ()
        np.testing.assert_allclose(np.append(found["a"], found["b"]), by_matrix, rtol=1e-5)


@pytest.mark.parametrize("memory", [None, gramlm.RowBlocks(2)], ids=["keep", "row blocks"])
def test_second_derivatives_of_rows(memory):
    theta, data, flat = rows_problem()
    v = np.linspace(-1, 1, theta.size)
    j = np.asarray(jax.jit(jax.jacfwd(flat))(theta))
    hessian = jax.jit(jax.hessian(lambda q: 0.5 * jnp.sum(flat(q) ** 2)))(theta)
    found = api.hessian_product(ROWS, theta, v, data, memory=memory)
    np.testing.assert_allclose(found, np.asarray(hessian) @ v, rtol=1e-10)
    found = api.gauss_newton_product(ROWS, theta, v, data, memory=memory)
    np.testing.assert_allclose(found, j.T @ (j @ v), rtol=1e-10)


def test_second_derivatives_with_aux():
    def residual(theta):
        return theta**2, "aux"

    theta, v = np.asarray([1.0, 2.0]), np.asarray([1.0, -1.0])
    found = api.hessian_product(residual, theta, v, has_aux=True)
    np.testing.assert_allclose(found, 6 * theta**2 * v)
    found = api.gauss_newton_product(residual, theta, v, has_aux=True)
    np.testing.assert_allclose(found, 4 * theta**2 * v)


def residual_of_a(params):
    return params["a"]


AT = given(matrix(5, 9))
PARAMS = {"a": np.ones(3)}
ERRORS = {
    "`rank` must be between 1 and .* = 5; got 6": lambda: api.spectrum(AT, rank=6),
    "`basis_size` must be at least `rank`": lambda: api.spectrum(AT, rank=3, basis_size=2),
    "`block_size` must be": lambda: api.spectrum(AT, rank=3, block_size=0),
    "`metric` must be a square operator of size 9": lambda: api.gram_diagonal(
        AT, METRICS["diagonal"](5)
    ),
    "`metric` must be tagged": lambda: api.largest_eigenvalue(
        AT, lx.MatrixLinearOperator(jnp.asarray(np.eye(9)))
    ),
    "`num_probes` must be at least 2": lambda: api.gram_diagonal(AT, num_probes=1, key=KEY),
    "but no `key`": lambda: api.column_norms_squared(AT, num_probes=4),
    "`key` was given without": lambda: api.effective_dimension(AT, 1.0, key=KEY),
    "`damping` must be positive": lambda: api.effective_dimension(AT, 0.0),
    "`num_steps` must be at least 1": lambda: api.effective_dimension(
        AT, 1.0, num_probes=4, num_steps=0, key=KEY
    ),
    "`vector` must be a pytree like": lambda: api.hessian_product(
        residual_of_a, PARAMS, np.ones(3)
    ),
    "`vector` must have arrays of the shapes": lambda: api.gauss_newton_product(
        residual_of_a, PARAMS, {"a": np.ones(4)}
    ),
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors_name_the_argument(text):
    with pytest.raises(ValueError, match=text):
        ERRORS[text]()


def test_a_complex_direction_is_an_error():
    with pytest.raises(TypeError, match="`vector` must be real where `params` is; got"):
        api.hessian_product(residual_of_a, PARAMS, {"a": np.ones(3) + 1j})
