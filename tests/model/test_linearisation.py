"""Three memory policies, one linear map; and row blocks bound the memory."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from gramlm._problem.residual.canonical import canonical
from support.problems import POLICIES

SEED = jnp.asarray(3, jnp.int32)


def scalar_row(t, x):
    return jnp.sum(t["w"] * jnp.sin(t["c"] * x)) - x


def vector_row(t, x):
    return {"a": t["w"] * x["u"], "b": jnp.tanh(x["v"] @ t["c"])}


PARAMS = {"w": jnp.asarray([0.3, -1.2]), "c": jnp.asarray([0.7, 2.0])}
POINTS = jnp.linspace(-1.0, 1.0, 7)
STRUCTURED = {"u": jnp.linspace(0.5, 1.5, 5), "v": jnp.cos(jnp.arange(10.0)).reshape(5, 2)}


RESIDUALS = {
    "scalar rows": (gramlm.Rows(scalar_row), POINTS),
    "array rows of structured data": (gramlm.Rows(vector_row), STRUCTURED),
    "several blocks": (gramlm.Rows(scalar_row, vector_row), (POINTS, STRUCTURED)),
    "plain": (lambda t, x: jax.vmap(lambda y: scalar_row(t, y))(x), POINTS),
}
EACH = POLICIES | {"one block": gramlm.RowBlocks(1000)}


def dense_jacobian(residual_fn, args):
    """The residual and its Jacobian, point by point."""
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)

    def rows(vector, function, data):
        count = len(jax.tree.leaves(data)[0])
        points = [jax.tree.map(lambda x, i=i: x[i], data) for i in range(count)]
        values = [function(unravel(vector), point) for point in points]
        return jnp.concatenate([jax.flatten_util.ravel_pytree(value)[0] for value in values])

    def residual(vector):
        if not isinstance(residual_fn, gramlm.Rows):
            return residual_fn(unravel(vector), args)
        several = len(residual_fn.functions) > 1
        pairs = zip(residual_fn.functions, args if several else (args,), strict=True)
        return jnp.concatenate([rows(vector, *pair) for pair in pairs])

    return jax.jit(residual)(flat), jax.jit(jax.jacfwd(residual))(flat)


@pytest.mark.parametrize("name", RESIDUALS)
def test_all_policies_give_the_same_residual_and_products(name, rng):
    residual_fn, args = RESIDUALS[name]
    expected, jacobian = dense_jacobian(residual_fn, args)
    n, p = jacobian.shape
    v, u = jnp.asarray(rng.normal(size=(3, p))), jnp.asarray(rng.normal(size=(3, n)))
    close = {"rtol": 1e-12, "atol": 1e-13}
    for policy in EACH.values():

        @jax.jit
        def products(v, u, policy=policy):
            at = gramlm.linearise(residual_fn, PARAMS, args, memory=policy)
            assert (at.num_residuals, at.num_params) == (n, p)
            return at.residual, at.jvp(v[0]), at.vjp(u[0]), at.jvp_block(v), at.vjp_block(u)

        wanted = (expected, jacobian @ v[0], jacobian.T @ u[0], v @ jacobian.T, u @ jacobian)
        for a, b in zip(products(v, u), wanted, strict=True):
            np.testing.assert_allclose(a, b, **close)


@pytest.mark.parametrize("name", RESIDUALS)
def test_all_policies_assemble_the_same_jacobian(name):
    residual_fn, args = RESIDUALS[name]
    expected, jacobian = dense_jacobian(residual_fn, args)
    function, flat = canonical(residual_fn, PARAMS, args)
    for policy in EACH.values():
        prepared = policy.prepare(function)
        value, rows = jax.jit(lambda t, f=prepared: f.value_and_jacobian(t))(flat)
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(rows, jacobian, rtol=1e-12, atol=1e-13)
        squares = jax.jit(lambda t, f=prepared: f.sum_squared_rows(t))(flat)
        if name == "plain":
            assert squares is None
        else:
            np.testing.assert_allclose(squares, jnp.sum(jacobian**2, 0), rtol=1e-12)


@pytest.mark.parametrize(("n", "p"), [(3, 8), (8, 3)])
def test_plain_jacobians_of_every_shape(n, p, rng):
    matrix = jnp.asarray(rng.normal(size=(n, p)))
    function, flat = canonical(lambda t: jnp.sin(matrix @ t), jnp.ones(p))
    expected = jnp.cos(matrix @ flat)[:, None] * matrix
    for policy in EACH.values():
        rows = policy.prepare(function).value_and_jacobian(flat)[1]
        np.testing.assert_allclose(rows, expected, rtol=1e-12)


def test_rows_are_the_residual_function_they_say():
    residual_fn, data = gramlm.Rows(scalar_row, vector_row), (POINTS, STRUCTURED)
    first, second = residual_fn(PARAMS, data)
    np.testing.assert_allclose(first, [scalar_row(PARAMS, x) for x in POINTS], rtol=1e-14)
    assert second["a"].shape == (5, 2)
    assert second["b"].shape == (5,)
    np.testing.assert_array_equal(gramlm.Rows(scalar_row)(PARAMS, POINTS), first)


@pytest.mark.parametrize("policy", POLICIES)
def test_column_norms_are_exact_where_rows_are_declared(policy):
    residual_fn, args = RESIDUALS["several blocks"]
    jacobian = dense_jacobian(residual_fn, args)[1]
    at = gramlm.linearise(residual_fn, PARAMS, args, memory=POLICIES[policy])
    found, products = at.column_norms_squared(SEED, 1)
    np.testing.assert_allclose(found, jnp.sum(jacobian**2, 0), rtol=1e-12)
    assert products >= 1


@pytest.mark.parametrize("policy", POLICIES)
def test_column_norms_are_estimated_without_bias_otherwise(policy, rng):
    matrix, probes = jnp.asarray(rng.normal(size=(40, 12))), 400
    at = gramlm.linearise(lambda t: matrix @ t, jnp.ones(12), memory=POLICIES[policy])
    found, products = at.column_norms_squared(SEED, probes)
    exact = jnp.sum(matrix**2, 0)
    assert products == probes
    # The variance of one probe is 2(‖c‖⁴ − ‖c‖₄⁴) for a column c: five standard deviations.
    deviation = jnp.sqrt(2 * (exact**2 - jnp.sum(matrix**4, 0)) / probes)
    assert jnp.all(jnp.abs(found - exact) <= 5 * deviation)
    assert jnp.any(found != exact)
    np.testing.assert_array_equal(found, at.column_norms_squared(SEED, probes)[0])
    assert jnp.any(found != at.column_norms_squared(SEED + 1, probes)[0])


# Memory. A kernel evaluated inside of the residual: its matrix, n × p, must never be stored.
CENTRES = 256


def kernel(t, x):
    return jnp.dot(t["w"], jnp.exp(-jnp.square((x - t["c"]) * 3.0)))


def temporaries(f, *args):
    """Bytes of temporaries of a compiled program."""
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


def product_memory(policy, n, which):
    x = jnp.linspace(-1, 1, n)
    params = {"w": jnp.ones(CENTRES), "c": jnp.linspace(-1, 1, CENTRES)}

    def product(params, x, argument):
        at = gramlm.linearise(gramlm.Rows(kernel), params, x, memory=policy)
        return which(at, argument)

    return product, params, x


def vjp_memory(policy, n):
    f, params, x = product_memory(policy, n, lambda at, u: at.vjp(u))
    return temporaries(f, params, x, jnp.ones(n))


def jvp_memory(policy, n):
    f, params, x = product_memory(policy, n, lambda at, v: at.jvp_block(v))
    return temporaries(f, params, x, jnp.ones((2, 2 * CENTRES)))


@pytest.mark.parametrize("memory", [vjp_memory, jvp_memory])
def test_row_blocks_bound_the_memory_of_products(memory):
    small, large = 2048, 8192
    kernel_bytes = 8 * large * CENTRES
    keep = [memory(gramlm.Keep(), n) for n in (small, large)]
    blocks = [memory(gramlm.RowBlocks(64), n) for n in (small, large)]
    wider = memory(gramlm.RowBlocks(512), large)
    assert keep[1] > 2 * keep[0]
    assert keep[1] >= kernel_bytes
    # What is left that grows with n are a few vectors of its length.
    assert blocks[1] - blocks[0] <= 8 * 8 * (large - small)
    assert blocks[1] < kernel_bytes / 10
    assert blocks[1] < wider < keep[1]


def test_row_blocks_bound_the_memory_of_a_conjugate_gradient_solve():
    def memory(policy):
        def solve(at, b):
            operator = gramlm.GramOperator(at, 1.0)
            return lx.linear_solve(operator, b, gramlm.ConjugateGradient(), throw=False).value

        f, params, x = product_memory(policy, 8192, solve)
        return temporaries(f, params, x, jnp.ones(8192))

    assert memory(gramlm.RowBlocks(64)) < memory(gramlm.Keep()) / 10


def test_row_blocks_lower_the_memory_of_assembling_a_plain_jacobian():
    n, width = 64, 32
    x, params = jnp.linspace(-1, 1, n), [jnp.ones((1, width)), jnp.ones((width, width))]

    def network(t, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x[:, None] @ t[0]) @ t[1]), axis=1)

    def memory(policy):
        def jacobian(params, x):
            function, flat = canonical(network, params, x)
            return policy.prepare(function).value_and_jacobian(flat)[1]

        return temporaries(jacobian, params, x)

    # A backward pass for each of the n rows, each with temporaries for all n points.
    assert memory(gramlm.Keep()) > 8 * n * n * width
    assert memory(gramlm.RowBlocks(4)) < memory(gramlm.Keep()) / 2


def test_a_block_holds_at_least_one_point():
    with pytest.raises(ValueError, match="must be at least 1; got 0"):
        gramlm.RowBlocks(0)
