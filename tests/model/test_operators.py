"""The Gram and normal operators are the dense matrices they stand for, to lineax as well."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from support.problems import (
    METRICS,
    POLICIES,
    SHAPES,
    definite,
    dense,
    diagonal,
    sine,
    sine_problem,
)

SOLVERS = {
    "cholesky": lx.Cholesky(),
    "lu": lx.LU(),
    "qr": lx.QR(),
    "svd": lx.SVD(),
    "auto": lx.AutoLinearSolver(well_posed=True),
    "cg": lx.CG(rtol=1e-12, atol=1e-12),
    "gmres": lx.GMRES(rtol=1e-12, atol=1e-12),
    "own_cg": gramlm.ConjugateGradient(rtol=1e-12),
}
KINDS = {"gram": gramlm.GramOperator, "normal": gramlm.NormalOperator}
LAMBDA = 0.3


def make(kind, n, p, metric="identity", damper="identity", block_size=256, memory=None):
    """An operator, and its matrix by dense algebra."""
    problem = sine_problem(n, p)
    at = gramlm.linearise(problem.residual_fn, problem.params, problem.args, memory=memory)
    m, d = METRICS[metric](p), METRICS[damper](n)
    operator = KINDS[kind](at, LAMBDA, m, d, block_size=block_size)
    jacobian, M, D = problem.jacobian, dense(m, p), dense(d, n)
    if kind == "gram":
        return operator, jacobian @ jnp.linalg.solve(M, jacobian.T) + LAMBDA * D
    return operator, jacobian.T @ jnp.linalg.solve(D, jacobian) + LAMBDA * M


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("metric", "damper"),
    [("identity", "identity"), ("dense", "diagonal"), ("diagonal", "dense")],
)
def test_products_and_matrix_agree_with_dense_algebra(kind, shape, metric, damper, rng):
    operator, expected = make(kind, *SHAPES[shape], metric, damper)
    size = expected.shape[0]
    vector, block = rng.normal(size=size), rng.normal(size=(3, size))
    np.testing.assert_allclose(operator.mv(jnp.asarray(vector)), expected @ vector, rtol=1e-12)
    np.testing.assert_allclose(
        operator.mv_block(jnp.asarray(block)), block @ expected, rtol=1e-11, atol=1e-13
    )
    np.testing.assert_allclose(operator.as_matrix(), expected, rtol=1e-11, atol=1e-13)
    assert operator.in_size() == operator.out_size() == size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_size", [1, 3, 5, 100])
def test_any_block_size_gives_the_same_exactly_symmetric_matrix(kind, block_size):
    operator, expected = make(kind, 5, 7, "dense", "dense", block_size)
    matrix = operator.as_matrix()
    np.testing.assert_allclose(matrix, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(matrix, matrix.T)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_undamped_operator_is_positive_semidefinite(kind, shape):
    operator, _ = make(kind, *SHAPES[shape], "dense", "diagonal")
    eigenvalues = jnp.linalg.eigvalsh(eqx.tree_at(lambda o: o.damping, operator, 0.0).as_matrix())
    assert eigenvalues[0] >= -1e-13 * eigenvalues[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_everything_that_lineax_dispatches_on_is_registered(kind, policy):
    operator, expected = make(kind, 5, 7, memory=POLICIES[policy])
    assert lx.is_symmetric(operator)
    assert lx.is_positive_semidefinite(operator)
    for question in (
        lx.is_negative_semidefinite,
        lx.is_diagonal,
        lx.is_tridiagonal,
        lx.is_lower_triangular,
        lx.is_upper_triangular,
        lx.has_unit_diagonal,
    ):
        assert not question(operator)
    close = {"rtol": 1e-11, "atol": 1e-13}
    np.testing.assert_allclose(lx.diagonal(operator), jnp.diag(expected), **close)
    for found, offset in zip(lx.tridiagonal(operator), (0, -1, 1), strict=True):
        np.testing.assert_allclose(found, jnp.diag(expected, offset), **close)
    for same in (lx.linearise, lx.materialise, lx.conj, lambda o: o.transpose(), lambda o: o.T):
        np.testing.assert_allclose(same(operator).as_matrix(), expected, **close)
        assert lx.is_positive_semidefinite(same(operator))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_lineax_solvers_agree_with_a_dense_solve_under_jit(kind, solver, rng):
    operator, expected = make(kind, 5, 8, "diagonal", "diagonal")
    b = jnp.asarray(rng.normal(size=expected.shape[0]))
    solve = eqx.filter_jit(lambda op, rhs: lx.linear_solve(op, rhs, SOLVERS[solver]).value)
    np.testing.assert_allclose(solve(operator, b), jnp.linalg.solve(expected, b), rtol=1e-9)


def _solution(solver, policy, params, features, target, damping):
    at = gramlm.linearise(sine, params, (features, target), memory=policy)
    operator = gramlm.GramOperator(at, damping, diagonal(params.size), definite(target.size))
    return lx.linear_solve(operator, at.residual, solver).value


def _dense_solution(params, features, target, damping):
    jacobian = jax.jacfwd(sine)(params, (features, target))
    gram = jacobian @ (jacobian / lx.diagonal(diagonal(params.size))).T
    gram = gram + damping * definite(target.size).as_matrix()
    return jnp.linalg.solve(gram, sine(params, (features, target)))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("solver", ["cholesky", "own_cg"])
def test_jvp_and_grad_through_a_solve_agree_with_dense_autodiff(policy, solver, rng):
    problem = sine_problem(4, 6)
    point = (problem.params, *problem.args, jnp.asarray(LAMBDA))
    tangent = tuple(jnp.asarray(rng.normal(size=x.shape)) for x in point)

    def f(*x):
        return _solution(SOLVERS[solver], POLICIES[policy], *x)

    value, derivative = jax.jit(lambda x, t: jax.jvp(f, x, t))(point, tangent)
    expected_value, expected = jax.jvp(_dense_solution, point, tangent)
    np.testing.assert_allclose(value, expected_value, rtol=1e-8)
    np.testing.assert_allclose(derivative, expected, rtol=1e-7)

    def scalar(function):
        return lambda *x: jnp.sum(jnp.sin(function(*x)))

    arguments = (0, 1, 2, 3)
    found = jax.jit(jax.grad(scalar(f), arguments))(*point)
    wanted = jax.grad(scalar(_dense_solution), arguments)(*point)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("solver", ["cholesky", "own_cg"])
def test_vmap_over_parameters_and_over_damping(policy, solver, rng):
    problem = sine_problem(4, 6)
    starts = jnp.asarray(rng.normal(size=(3, 6)))
    dampings = jnp.asarray([0.1, 1.0, 10.0])

    def f(params, damping):
        return _solution(SOLVERS[solver], POLICIES[policy], params, *problem.args, damping)

    for axes in ((0, None), (None, 0), (0, 0)):
        inputs = [
            x if axis == 0 else x[0] for x, axis in zip((starts, dampings), axes, strict=True)
        ]
        found = jax.jit(jax.vmap(f, axes))(*inputs)
        for i in range(3):
            params, damping = (
                x[i] if a == 0 else x[0] for x, a in zip((starts, dampings), axes, strict=True)
            )
            expected = _dense_solution(params, *problem.args, damping)
            np.testing.assert_allclose(found[i], expected, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_operators_stay_float32(kind):
    problem = sine_problem(5, 8, jnp.float32)
    at = gramlm.linearise(problem.residual_fn, problem.params, problem.args)
    operator = KINDS[kind](at, LAMBDA)
    jacobian = np.asarray(problem.jacobian, np.float64)
    product = jacobian @ jacobian.T if kind == "gram" else jacobian.T @ jacobian
    matrix = operator.as_matrix()
    assert matrix.dtype == operator.mv(matrix[0]).dtype == jnp.float32
    np.testing.assert_allclose(matrix, product + LAMBDA * np.eye(len(product)), atol=2e-6)
    solution = lx.linear_solve(operator, matrix[0], lx.Cholesky()).value
    np.testing.assert_allclose(solution, np.eye(len(product))[0], atol=2e-5)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda at: gramlm.GramOperator(at, metric=diagonal(4)), "`metric` must be a square"),
        (lambda at: gramlm.GramOperator(at, damper=diagonal(8)), "`damper` must be a square"),
        (
            lambda at: gramlm.NormalOperator(at, metric=lx.MatrixLinearOperator(jnp.ones((8, 8)))),
            "tagged as positive definite",
        ),
        (lambda at: gramlm.GramOperator(at, block_size=0), "`block_size` must be at least 1"),
    ],
)
def test_operators_say_what_is_wrong_with_their_parts(make_bad, message):
    problem = sine_problem(5, 8)
    at = gramlm.linearise(problem.residual_fn, problem.params, problem.args)
    with pytest.raises(ValueError, match=message):
        make_bad(at)
