"""Products with K in either form, of factors of the metric or of its inverse."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from gramlm._model.gram import Gram
from gramlm._model.whitening import Inverse, whitening

SHAPES = {"wide": (4, 7), "tall": (7, 4), "square": (5, 5)}


def positive(size, rng):
    root = rng.normal(size=(size, size))
    return root @ root.T + np.eye(size)


def operator(kind, size, rng):
    """A metric, and its matrix."""
    if kind == "identity":
        structure = jax.ShapeDtypeStruct((size,), jnp.float64)
        return lx.IdentityLinearOperator(structure), np.eye(size)
    if kind == "diagonal":
        values = rng.uniform(0.5, 2.0, size)
        return lx.DiagonalLinearOperator(jnp.asarray(values)), np.diag(values)
    matrix = positive(size, rng)
    return lx.MatrixLinearOperator(jnp.asarray(matrix), lx.positive_semidefinite_tag), matrix


def linearisation(shape, rng):
    j = rng.normal(size=SHAPES[shape])
    return gramlm.extend.MaterialisedLinearisation(jnp.ones(len(j)), jnp.asarray(j)), j


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["identity", "diagonal", "dense"])
@pytest.mark.parametrize("dual", [True, False])
def test_whitened_products_are_those_with_b_and_its_transpose(shape, kind, dual, rng):
    at, j = linearisation(shape, rng)
    metric, matrix = operator(kind, j.shape[1], rng)
    gram = Gram.whitened(at, metric, dual)
    a = j @ np.linalg.inv(np.linalg.cholesky(matrix)).T
    b = a if dual else a.T
    x, y = rng.normal(size=(3, len(b))), rng.normal(size=(3, b.shape[1]))
    assert (gram.size, gram.other_size) == b.shape
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(gram.multiply_block(jnp.asarray(x)), x @ b @ b.T, **close)
    np.testing.assert_allclose(gram.leave(jnp.asarray(x)), x @ b, **close)
    np.testing.assert_allclose(gram.enter(jnp.asarray(y)), y @ b.T, **close)
    np.testing.assert_allclose(gram.multiply(jnp.asarray(x[0])), b @ b.T @ x[0], **close)
    np.testing.assert_allclose(gram.pull(jnp.asarray(x[0])), b.T @ x[0], **close)
    np.testing.assert_allclose(gram.push(jnp.asarray(y[0])), b @ y[0], **close)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["identity", "diagonal", "dense"])
def test_without_factors_the_metric_stays_whole(shape, kind, rng):
    at, j = linearisation(shape, rng)
    (metric, m), (damper, d) = (operator(kind, size, rng) for size in j.shape[::-1])
    u, v = rng.normal(size=(2, len(j))), rng.normal(size=(2, j.shape[1]))
    dual, normal = Gram.of(at, metric, damper=None), Gram.of(at, dual=False, damper=damper)
    k, sibling = j @ np.linalg.solve(m, j.T), j.T @ np.linalg.solve(d, j)
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(dual.multiply_block(jnp.asarray(u)), u @ k, **close)
    np.testing.assert_allclose(dual.multiply(jnp.asarray(u[0])), k @ u[0], **close)
    np.testing.assert_allclose(
        dual.pull(jnp.asarray(u[0])), np.linalg.solve(m, j.T @ u[0]), **close
    )
    np.testing.assert_allclose(normal.multiply_block(jnp.asarray(v)), v @ sibling, **close)
    np.testing.assert_allclose(normal.multiply(jnp.asarray(v[0])), sibling @ v[0], **close)


@pytest.mark.parametrize("kind", ["identity", "diagonal", "dense"])
def test_a_split_is_the_inverse(kind, rng):
    metric, matrix = operator(kind, 6, rng)
    g = rng.normal(size=(3, 6))
    expected = np.linalg.solve(matrix, g.T).T
    for split in (whitening(metric), Inverse(metric)):
        np.testing.assert_allclose(split.steps(split.rows(jnp.asarray(g))), expected, rtol=1e-9)
        np.testing.assert_allclose(split.step(split.row(jnp.asarray(g[0]))), expected[0], rtol=1e-9)


def test_a_metric_of_another_size_is_refused():
    at = gramlm.extend.MaterialisedLinearisation(jnp.ones(2), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="`metric` must be a square operator of size 3"):
        Gram.whitened(at, lx.DiagonalLinearOperator(jnp.ones(2)))


class Products(gramlm.extend.AbstractProductLinearisation):
    """As little as there can be."""

    residual: jax.Array
    matrix: jax.Array

    @property
    def num_params(self):
        return self.matrix.shape[1]

    def jvp(self, v):
        return self.matrix @ v

    def vjp(self, u):
        return u @ self.matrix


@pytest.mark.parametrize("shape", SHAPES)
def test_a_linearisation_of_products_has_all_that_is_asked(shape, rng):
    n, p = SHAPES[shape]
    j, b = jnp.asarray(rng.normal(size=(n, p))), jnp.asarray(rng.normal(size=n))
    at, stored = Products(b, j), gramlm.extend.MaterialisedLinearisation(b, j)
    v, u = jnp.asarray(rng.normal(size=(3, p))), jnp.asarray(rng.normal(size=(3, n)))
    np.testing.assert_allclose(at.jvp_block(v), stored.jvp_block(v), rtol=1e-12)
    np.testing.assert_allclose(at.vjp_block(u), stored.vjp_block(u), rtol=1e-12)
    assert at.kept() is at
    assert at.stored is at.source is at.sum_squared_rows() is None
    np.testing.assert_array_equal(stored.stored, j)
    # Also the dense solver takes it.
    form, metric = gramlm.Form.auto, operator("identity", p, rng)[0]
    steps = [
        gramlm.DenseSolver()
        .factorise(one, metric, jnp.ones(()), form, None)
        .at(jnp.asarray(0.1))
        .solve(b, None, jnp.asarray(0.1))
        .step
        for one in (at, stored)
    ]
    np.testing.assert_allclose(*steps, rtol=1e-9)
