"""Every kind of residual keeps the same promises, whatever the rows of its Jacobian cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._core.flatten import flatten_residual
from gramlm._problem.residual.canonical import canonical

PARAMS = {"a": jnp.asarray([0.3, -0.7]), "b": jnp.asarray(1.1)}


def wave(params, x):
    """Three residuals of a point: two of one array and one of another."""
    pair = jnp.stack([jnp.sin(params["a"] @ x["t"]), params["b"] * x["t"][0]])
    return {"pair": pair, "one": jnp.exp(params["b"]) - x["y"]}


def slope(params, x):
    return params["a"][0] * x - params["b"] ** 2


rng = np.random.default_rng(3)
WAVES = {"t": jnp.asarray(rng.normal(size=(5, 2))), "y": jnp.asarray(rng.normal(size=5))}
SLOPES = jnp.asarray(rng.normal(size=4))


def both(params, args):
    waves, slopes = args
    pairs = jax.vmap(wave, in_axes=(None, 0))(params, waves)
    return pairs, jax.vmap(slope, in_axes=(None, 0))(params, slopes)


KINDS = {
    "function": both,
    "rows": gramlm.Rows(wave, slope),
    "one function": lambda params, args: both(params, args)[1],
    "rows of one function": gramlm.Rows(slope),
}
WAYS = {
    "as it is": lambda residual: residual,
    "in blocks": lambda residual: residual.in_blocks(2),
    "by points": lambda residual: residual.by_points(2),
    "divided": lambda residual: residual.divided(jnp.asarray(2.0)),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def made(kind):
    args = SLOPES if kind == "rows of one function" else (WAVES, SLOPES)
    return canonical(KINDS[kind], PARAMS, args)


@pytest.fixture(params=WAYS)
def case(request, kind):
    """A residual, the flat parameters, and J by other means."""
    residual, flat = made(kind)
    residual = WAYS[request.param](residual)
    return residual, flat, jax.jacfwd(residual)(flat)


def test_the_jacobian_is_that_of_forward_differentiation(case):
    residual, flat, jacobian = case
    value, found = residual.value_and_jacobian(flat)
    np.testing.assert_allclose(value, residual(flat), rtol=1e-14)
    np.testing.assert_allclose(found, jacobian, rtol=1e-12, atol=1e-14)


def test_the_triangle_squares_to_the_normal_matrix(case):
    residual, flat, jacobian = case
    triangle = residual.triangle(flat)
    np.testing.assert_allclose(triangle.T @ triangle, jacobian.T @ jacobian, rtol=1e-12, atol=1e-14)


def test_blocks_of_vectors_are_multiplied(case):
    residual, flat, jacobian = case
    n, p = jacobian.shape
    v, u = jnp.asarray(rng.normal(size=(4, p))), jnp.asarray(rng.normal(size=(4, n)))
    np.testing.assert_allclose(residual.rows_times(flat, v), v @ jacobian.T, rtol=1e-12)
    np.testing.assert_allclose(residual.times_rows(flat, u), u @ jacobian, rtol=1e-12, atol=1e-14)


def test_rows_are_mapped_in_their_order(case):
    residual, flat, jacobian = case
    sums, squares = residual.map_rows(
        flat, lambda rows: (jnp.sum(rows, axis=1), jnp.sum(rows**2, axis=1))
    )
    np.testing.assert_allclose(sums, jnp.sum(jacobian, axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(squares, jnp.sum(jacobian**2, axis=1), rtol=1e-12)


def test_columns_are_squared_where_rows_are_cheap(case):
    residual, flat, jacobian = case
    weights = jnp.linspace(0, 2, len(jacobian))
    found = residual.sum_squared_rows(flat, weights)
    assert (found is not None) == residual.cheap_rows
    if found is not None:
        np.testing.assert_allclose(found, weights @ jacobian**2, rtol=1e-12)


def test_outputs_go_back_and_forth(kind):
    residual, flat = made(kind)
    numbers = jnp.arange(1.0, residual.size + 1)
    tree = residual.unflatten_output(numbers, flat)
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, residual.structure(flat))
    np.testing.assert_array_equal(residual.flatten_output(tree), numbers)


def test_parts_are_all_of_the_residual(kind):
    residual, flat = made(kind)
    parts = jax.tree.leaves(residual.parts(flat)[0])
    assert sum(part.size for part in parts) == residual.size
    # A point of the first function has three residuals; an array of a function stands alone.
    sizes = {"function": [5, 10, 4], "rows": [15, 4]}.get(kind, [4])
    assert [part.size for part in parts] == sizes
    points = {"rows": [5, 4], "rows of one function": [4]}.get(kind, [1] * len(parts))
    assert [part.points for part in parts] == points


def test_the_parts_of_complex_arrays_of_a_point_cannot_be_told_apart():
    rows = gramlm.Rows(lambda params, x: (params * x, 1j * params * x))
    residual, flat = canonical(rows, jnp.asarray([1.0 + 0j]), jnp.ones((3, 1)))
    part = residual.parts(flat)[0]
    assert (part.points, part.size, part.array) == (3, 12, None)


def test_a_sample_is_of_the_first_points():
    residual, flat = made("rows")
    sample = residual.sample(2)
    assert sample.size == 2 * 3 + 2
    np.testing.assert_array_equal(sample(flat)[:6], residual(flat)[:6])
    plain = made("function")[0]
    assert plain.sample(2) is plain


def test_a_flat_output_is_that_of_the_function():
    residual, flat = made("function")
    output = both(PARAMS, (WAVES, SLOPES))
    np.testing.assert_array_equal(residual(flat), flatten_residual(output))
