"""Any pytree goes in and out unchanged, and bad input is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._core.flatten import as_parameters, flatten_residual
from gramlm._problem.residual.canonical import canonical

PYTREES = {
    "array": jnp.arange(3.0),
    "scalar": jnp.asarray(1.5),
    "dict": {"b": jnp.ones((2, 3)), "a": -jnp.arange(2.0)},
    "nested": [jnp.asarray(-0.0), (jnp.ones((1, 2, 2)), None, {"x": jnp.full(2, 1e-310)})],
    "empty_leaf": {"used": jnp.ones(2), "empty": jnp.ones((0, 3))},
}


@pytest.mark.parametrize("name", PYTREES)
def test_flattening_returns_every_bit(name):
    params = PYTREES[name]
    spec, flat = as_parameters(params)
    back = spec.unflatten(flat)
    assert flat.shape == (spec.size,)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_solutions_have_the_structure_and_dtype_of_the_start(dtype):
    start = {"w": jnp.ones((2, 2), dtype), "b": (jnp.zeros((), dtype), np.ones(1, dtype))}
    solution = gramlm.solve(lambda t: jax.tree.map(lambda x: x - 2, t), start)
    assert jax.tree.structure(solution.value) == jax.tree.structure(start)
    for a, b in zip(jax.tree.leaves(solution.value), jax.tree.leaves(start), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, 2, rtol=1e-6)


def test_residuals_of_any_structure_are_one_vector():
    residual = {"b": jnp.ones((2, 2)), "a": (jnp.zeros(()), jnp.arange(2.0))}
    np.testing.assert_array_equal(flatten_residual(residual), [0, 0, 1, 1, 1, 1, 1])


class _Callable:
    def __call__(self, params, args):
        return params - args


CONVENTIONS = {
    "params alone": (lambda t: t - 1, None),
    "params and args": (lambda t, a: t - a, jnp.ones(2)),
    "args with a default": (lambda t, a=1.0: t - a, jnp.ones(2)),
    "variadic": (lambda *x: x[0] - (x[1] if len(x) > 1 else 1), jnp.ones(2)),
    "variadic without args": (lambda *x: x[0] - (x[1] if len(x) > 1 else 1), None),
    "an object": (_Callable(), jnp.ones(2)),
    "a partial": (jax.tree_util.Partial(lambda s, t, a: s * t - a, 1.0), jnp.ones(2)),
    "keyword only": (lambda t, *, scale=1.0: scale * t - 1, None),
    "a jitted function": (jax.jit(lambda t, a: t - a), jnp.ones(2)),
    "args of pytrees": (lambda t, a: t - a["x"] * a["y"], {"x": jnp.ones(2), "y": 1.0}),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_calling_conventions(name):
    function, args = CONVENTIONS[name]
    residual, flat = canonical(function, jnp.zeros(2), args)
    np.testing.assert_array_equal(residual(flat), [-1, -1])


def test_args_none_reaches_a_residual_that_takes_args():
    seen = []
    canonical(lambda t, a: seen.append(a) or t, jnp.zeros(2))
    assert seen
    assert all(a is None for a in seen)


X = jnp.ones(3)
BAD_RESIDUALS = {
    "nothing": (lambda t: None, ValueError, "returned None: is a `return` missing"),
    "no arrays": (lambda t: {}, ValueError, "returned no arrays"),
    "a scalar": (lambda t: jnp.sum(t**2), ValueError, r"returned a scalar.*shape \(1,\)"),
    "empty": (lambda t: t[:0], ValueError, r"empty arrays, of shapes \[\(0,\)\]"),
    "integers": (lambda t: jnp.arange(3), TypeError, "dtype int64; it must be of a floating"),
    "booleans": (lambda t: t > 0, TypeError, "dtype bool; it must be of a floating"),
    "single complex": (
        lambda t: t.astype(jnp.complex64),
        TypeError,
        "returned complex64 residuals for float64 parameters",
    ),
    "half": (lambda t: t.astype(jnp.float16), TypeError, "supported are float32 and float64"),
    "another dtype": (
        lambda t: t.astype(jnp.float32),
        TypeError,
        "returned float32 residuals for float64 parameters",
    ),
    "mixed dtypes": (
        lambda t: (t, t.astype(jnp.float32)),
        TypeError,
        "arrays of the dtypes float32, float64; all must have one precision",
    ),
    "args not taken": (lambda t: t, TypeError, "`args` was given, but `residual_fn` takes the"),
}


@pytest.mark.parametrize("name", BAD_RESIDUALS)
@pytest.mark.parametrize("front", ["solve", "init", "linearise"])
def test_bad_residuals_are_named(name, front):
    function, error, message = BAD_RESIDUALS[name]
    entry = {
        "solve": gramlm.solve,
        "init": gramlm.LevenbergMarquardt().init,
        "linearise": gramlm.linearise,
    }[front]
    args = X if name == "args not taken" else None
    with pytest.raises(error, match=message):
        entry(function, X, args)


BAD_PARAMS = {
    "none": (None, ValueError, "`params` has no entries"),
    "empty dict": ({}, ValueError, "`params` has no entries"),
    "empty array": (jnp.ones(0), ValueError, "`params` has no entries"),
    "integers": ({"k": jnp.arange(3)}, TypeError, r"`params\['k'\]` is of dtype int64"),
    "a Python integer": ({"k": 3}, TypeError, r"`params\['k'\]` is of dtype int64"),
    "booleans": (jnp.ones(2, bool), TypeError, "`params` is of dtype bool"),
    "mixed with complex": (
        (X, X.astype(jnp.complex64)),
        TypeError,
        "`params` mixes the dtypes complex64, float64",
    ),
    "mixed": (
        (X, X.astype(jnp.float32)),
        TypeError,
        "`params` mixes the dtypes float32, float64",
    ),
    "half": (X.astype(jnp.bfloat16), TypeError, "bfloat16; supported are float32 and float64"),
    "a string": ({"k": "hello"}, TypeError, r"`params\['k'\]` is 'hello', of type str"),
    "a function": ((X, len), TypeError, r"`params\[1\]` is <built-in function len>"),
}


@pytest.mark.parametrize("name", BAD_PARAMS)
@pytest.mark.parametrize("front", [gramlm.solve, gramlm.linearise])
def test_bad_parameters_are_named(name, front):
    params, error, message = BAD_PARAMS[name]
    with pytest.raises(error, match=message):
        front(lambda t: jnp.ones(2), params)


def test_a_residual_that_is_no_function_is_named():
    with pytest.raises(Exception, match="residual_fn"):
        gramlm.solve(3.0, X)


def test_another_shape_at_another_point_is_an_error():
    lengths = iter([3, 4])

    def residual(t):
        return jnp.zeros(next(lengths)) + t[0]

    function, flat = canonical(residual, X, None)
    with pytest.raises(ValueError, match="returned 4 residuals where it had returned 3 before"):
        function(flat)


class _OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [_OwnError, ValueError, TypeError, KeyError])
def test_what_a_residual_raises_comes_through(error):
    def residual(t):
        raise error("from the residual")

    with pytest.raises(error, match="from the residual"):
        gramlm.solve(residual, X)


def point(t, x):
    return t[0] * x - 1


BAD_ROWS = {
    "no data": ((point,), None, ValueError, "data set 0 .* is empty"),
    "no points": ((point,), jnp.ones(0), ValueError, "at least one point"),
    "a scalar": ((point,), jnp.asarray(1.0), ValueError, "leading axis"),
    "ragged": ((point,), (jnp.ones(3), jnp.ones(4)), ValueError, r"shapes \[\(3,\), \(4,\)\]"),
    "not a tuple": ((point, point), jnp.ones(2), ValueError, "must be a tuple of 2 data sets"),
    "too few": ((point, point), (jnp.ones(2),), ValueError, "got a tuple of 1"),
    "nothing": ((lambda t, x: None,), X, ValueError, "is a `return` missing"),
    "integers": ((lambda t, x: 3,), X, TypeError, "floating or complex dtype"),
    "dtype": (
        (lambda t, x: t[0].astype(jnp.float32),),
        X,
        TypeError,
        "function of `Rows` returned float32 residuals for float64",
    ),
    "empty": ((lambda t, x: t[:0],), X, ValueError, "empty arrays"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_named(name):
    functions, data, error, message = BAD_ROWS[name]
    with pytest.raises(error, match=message):
        gramlm.solve(gramlm.Rows(*functions), X, data)


@pytest.mark.parametrize("functions", [(), (3.0,), (point, "f")])
def test_rows_takes_functions(functions):
    with pytest.raises(Exception, match="function"):
        gramlm.Rows(*functions)


def test_rows_have_no_aux():
    with pytest.raises(ValueError, match="does not go with `Rows`"):
        gramlm.solve(gramlm.Rows(point), X, X, has_aux=True)
