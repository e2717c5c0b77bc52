"""What is not free is neither flattened nor differentiated, and comes back as it came."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._core.free import frozen, resolved
from gramlm._problem.residual.canonical import canonical

SOLVER = gramlm.LevenbergMarquardt(linear_solver=gramlm.DenseSolver(), correction=None)
solve = functools.partial(gramlm.solve, solver=SOLVER, throw=False)


@jax.custom_jvp
def no_derivative(x):
    return jnp.sort(x)


@no_derivative.defjvp
def _(primals, tangents):
    raise AssertionError("differentiated")


class Model(eqx.Module):
    """A bit of everything beside two arrays of parameters."""

    weight: jax.Array
    bias: jax.Array
    grid: np.ndarray  # fixed
    power: int  # a constant of the program
    name: str
    activation: object
    exact: bool = eqx.field(static=True)

    def __call__(self, x):
        knots = no_derivative(self.grid)
        powers = jnp.stack([x**k for k in range(1, self.power + 1)])
        assert self.name == "model"
        return self.activation(self.weight @ powers + self.bias * knots[0])


def model(weight=(0.5, 0.1, -0.2), bias=0.3, grid=(3.0, 1.0)):
    return Model(
        weight=jnp.asarray(weight),
        bias=jnp.asarray(bias),
        grid=np.asarray(grid),
        power=len(weight),
        name="model",
        activation=jnp.tanh,
        exact=True,
    )


X = np.linspace(-1, 1, 12)


def misfit(model, args):
    x, y = args
    return jax.vmap(model)(x) - y


def point_misfit(model, point):
    x, y = point
    return model(x) - y


DATA = (X, np.tanh(X - 0.4 * X**3 + 0.2))


@pytest.mark.parametrize("residual_fn", [misfit, gramlm.Rows(point_misfit)])
def test_a_model_with_parts_that_are_no_arrays(residual_fn):
    start = model()
    arrays = jax.tree.map(eqx.is_inexact_array, start)
    free = eqx.tree_at(lambda m: m.grid, arrays, False)
    solution = solve(residual_fn, start, DATA, free=free, max_steps=40)
    assert solution.result == gramlm.RESULTS.successful
    found = solution.value
    np.testing.assert_allclose(found.weight, [1, 0, -0.4], atol=1e-9)
    assert jax.tree.structure(found) == jax.tree.structure(start)
    for name in ("grid", "power", "name", "activation"):
        assert getattr(found, name) is getattr(start, name)


def test_networks_of_equinox():
    key, dtype = jax.random.key(0), jnp.float32
    start = eqx.nn.MLP(1, 1, 5, 1, jnp.tanh, dtype=dtype, key=key)
    data = tuple(np.asarray(x, dtype) for x in DATA)
    first = eqx.tree_at(lambda m: m.layers[0], jax.tree.map(lambda _: False, start), True)

    def residual(network, args):
        x, y = args
        return jax.vmap(network)(x[:, None])[:, 0] - y

    solution = solve(residual, start, data, free=first, max_steps=5)
    found = solution.value
    assert solution.stats["cost"] < 0.5 * solution.stats["initial_cost"]
    assert found.layers[0].weight.dtype == dtype
    assert not np.array_equal(found.layers[0].weight, start.layers[0].weight)
    assert found.layers[1].weight is start.layers[1].weight
    function, flat = canonical(residual, start, data, free=first)
    assert flat.shape == (10,)
    assert function.num_params == 10


def sines(params, args):
    features, target = args
    return jnp.sin(features @ jnp.concatenate([params["a"].reshape(-1), params["b"]])) - target


def sines_problem(n=9, p=6):
    rng = np.random.default_rng(4)
    features, target = rng.normal(size=(n, p)) / p**0.5, rng.normal(size=n)
    values = rng.normal(size=p)
    values[[1, 3]] = -0.0, 1e-310
    return {"a": values[:4].reshape(2, 2), "b": values[4:]}, (features, target)


MASKS = {"a": np.array([[True, False], [True, False]]), "b": True}


def test_single_entries_of_an_array():
    params, args = sines_problem()
    found = solve(sines, params, args, free=MASKS, max_steps=4)
    fixed = ~MASKS["a"]
    before, after = params["a"][fixed], np.asarray(found.value["a"])[fixed]
    assert before.tobytes() == after.tobytes()

    def reduced(free, args):
        features, target = args
        angles = features[:, [0, 2, 4, 5]] @ free + features[:, [1, 3]] @ before
        return jnp.sin(angles) - target

    start = np.concatenate([params["a"][:, 0], params["b"]])
    expected = solve(reduced, start, args, max_steps=4)
    np.testing.assert_allclose(found.history.cost, expected.history.cost, rtol=1e-12)
    value = np.concatenate([found.value["a"][:, 0], found.value["b"]])
    np.testing.assert_allclose(value, expected.value, rtol=1e-10)


def test_masks_of_complex_arrays():
    z = jnp.asarray([1 + 1j, complex(-0.0, np.nan), 2 - 1j])
    mask = np.array([True, False, True])

    def residual(z, args):
        return jnp.conj(z[::2]) ** 2 - args

    function, flat = canonical(residual, z, jnp.zeros(2), free=mask)
    np.testing.assert_array_equal(flat, [1, 2, 1, -1])
    back = function.params_spec.unflatten(flat)
    assert np.asarray(back).tobytes() == np.asarray(z).tobytes()
    value, jacobian = function.value_and_jacobian(flat)
    np.testing.assert_array_equal(value, [0, 3, -2, 4])
    expected = 2 * np.array([[1, 0, -1, 0], [0, 2, 0, 1], [-1, 0, -1, 0], [0, 1, 0, -2]])
    np.testing.assert_array_equal(jacobian, expected)


FREE_ENTRIES = {
    "everything": (None, (True, True, True)),
    "prefix": ({"a": True, "b": False}, (True, False, False)),
    "NumPy's booleans": ({"a": np.False_, "b": np.array(True)}, (False, True, True)),
    "a function": (lambda leaf: leaf.ndim == 1, (False, True, True)),
    "functions below": ({"a": eqx.is_inexact_array_like, "b": [False, callable]}, None),
    "masks of one kind": ({"a": np.ones((2, 2), bool), "b": np.zeros(2, bool)}, None),
}


@pytest.mark.parametrize("name", FREE_ENTRIES)
def test_specs(name):
    free, expected = FREE_ENTRIES[name]
    params = {"a": np.ones((2, 2)), "b": [np.ones(2), np.ones(2)]}
    found = resolved(free, params)
    assert found.entries == (expected or (True, False, False))
    again = resolved(free, params)
    assert found == again
    assert hash(found) == hash(again)
    assert resolved(found, params) is found


def test_fixed_values_are_no_part_of_the_program():
    traces = []

    def residual(params, args):
        traces.append(None)
        return params["k"] * params["c"] * jnp.sin(params["t"]) - args

    def at(c, t):
        params = {"c": c, "t": jnp.array([0.1, t]), "k": 2}
        free = {"c": False, "t": np.array([True, False]), "k": False}
        return solve(residual, params, jnp.array([0.5, 0.5]), free=free).value

    first = at(jnp.array([1.0, 2.0]), 0.3)
    count = len(traces)
    second = at(np.array([2.0, -1.0]), 0.4)
    assert len(traces) == count
    np.testing.assert_allclose(first["t"], [np.arcsin(0.25), 0.3], rtol=1e-12)
    np.testing.assert_allclose(second["t"], [np.arcsin(0.125), 0.4], rtol=1e-12)
    assert second["k"] == 2
    assert isinstance(second["k"], int)

    # And they may be mapped over, with other entries of the same mask.
    def mapped(c, t):
        return at(c, t)["t"]

    grid = jnp.array([[1.0, 2.0], [2.0, -1.0]])
    values = jax.jit(jax.vmap(mapped))(grid, jnp.array([0.3, 0.4]))
    np.testing.assert_allclose(values, [first["t"], second["t"]], rtol=1e-12)


def test_a_frozen_spec_may_be_an_argument_of_a_program():
    params, args = sines_problem()

    @eqx.filter_jit
    def value(params, free):
        function, flat = canonical(sines, params, args, free=free)
        assert flat.shape == (4,)
        return function(flat)

    np.testing.assert_allclose(value(params, frozen(MASKS)), sines(params, args), rtol=1e-14)


P = {"a": jnp.ones(3), "f": jnp.tanh, "n": 3}
ERRORS = {
    "nothing": (ValueError, "`free` leaves nothing free", P, False),
    "a number": (ValueError, "eqx.is_inexact_array_like", [1.0], eqx.is_inexact_array),
    "structure": (ValueError, "`free` is no prefix of `params`", P, {"a": True, "f": False}),
    "a list": (ValueError, "`free` is no prefix of `params`", P, [True, False, False]),
    "none": (ValueError, "`free` is no prefix of `params`", [jnp.ones(2)], [None]),
    "shape": (
        ValueError,
        r"mask in `free` for `params\['a'\]` has the shape \(2,\), but the parameter has \(3,\)",
        P,
        {"a": np.array([True, False]), "f": False, "n": False},
    ),
    "numbers": (
        TypeError,
        r"`free` at `params\['a'\]` is array\(\[1., 0., 1.\]\), of dtype float64. Pass a pytree",
        P,
        {"a": np.array([1.0, 0.0, 1.0]), "f": False, "n": False},
    ),
    "a word": (TypeError, r"`free` at `params\['a'\]` is 'yes', str", P, "yes"),
    "a function is free": (TypeError, r"`params\['f'\]` is <.*tanh.*free=eqx.is_inexact", P, True),
    "an integer is free": (
        TypeError,
        r"`params\['n'\]` is of dtype int64.*free=eqx.is_inexact_array",
        P,
        {"a": True, "f": False, "n": True},
    ),
    "an array of strings": (
        TypeError,
        r"`params\[1\]` is fixed, and an array of dtype <U1, which no compiled program can take",
        (jnp.ones(2), np.array(["a"])),
        (True, False),
    ),
    "no hash": (
        TypeError,
        r"`params\[1\]` is fixed, and \{3\}, of type set, which has no hash",
        (jnp.ones(2), {3}),
        (True, False),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_argument(name):
    kind, text, params, free = ERRORS[name]
    with pytest.raises(kind, match=text):
        gramlm.solve(lambda t: jnp.ones(2), params, free=free)


def test_a_traced_mask_is_named():
    @jax.jit
    def traced(mask):
        return gramlm.solve(lambda t: t - 1, jnp.zeros(2), free=mask).value

    with pytest.raises(TypeError, match=r"`free` at `params` is traced .* by NumPy"):
        traced(jnp.array([True, False]))


def test_a_failure_has_the_fixed_parts_and_aux():
    def residual(params, args):
        return jnp.exp(-params["t"]) + params["c"], params["c"] + params["t"][0]

    params = {"t": jnp.zeros(2), "c": np.float32(3)}
    with pytest.raises(gramlm.SolveError) as caught:
        solve(residual, params, free={"t": True, "c": False}, has_aux=True, max_steps=1, throw=True)
    solution = caught.value.solution
    assert solution.value["c"] is params["c"]
    assert solution.aux == 3 + solution.value["t"][0] > 3
