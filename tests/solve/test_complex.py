"""Complex parameters and residuals are pairs of real ones, whatever is done with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._core.flatten import as_parameters, flatten_residual
from support.problems import linear

DENSE, KRYLOV = gramlm.DenseSolver(), gramlm.KrylovSolver(capacity=40, block_size=2)


def complex_normal(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def pairs(z):
    """Real parts, then imaginary parts, by NumPy alone."""
    z = np.asarray(z).reshape(-1)
    return np.concatenate([z.real, z.imag]) if np.iscomplexobj(z) else z


def problem(n, p, dtype=np.complex128, seed=0):
    """Intensities and conjugates, in complex z and real s: holomorphic in nothing."""
    rng = np.random.default_rng(seed)
    real = np.zeros((), dtype).real.dtype
    start = {"s": rng.normal(size=p).astype(real), "z": complex_normal(rng, p).astype(dtype)}
    matrices = [complex_normal(rng, n, p) / p**0.5 for _ in range(2)]
    target = {"b": 0.1 * rng.normal(size=n), "a": 0.1 * complex_normal(rng, n)}
    cast = {
        "A": matrices[0].astype(dtype),
        "B": matrices[1].astype(dtype),
        "b": target["b"].astype(real),
        "a": target["a"].astype(dtype),
    }
    return start, cast


def mixed(params, data):
    """A complex block beside a real one."""
    z, s = params["z"], params["s"]
    waves = data["A"] @ (z * s)
    return {
        "a": jnp.conj(data["B"] @ z) * waves + jnp.real(waves) - data["a"],
        "b": jnp.abs(waves) ** 2 + jnp.angle(2 + 1j * jnp.tanh(jnp.imag(waves))) - data["b"],
    }


def flat_by_hand(vector, p, data):
    """`mixed` between vectors of real numbers, in the order that is documented."""
    params = {"s": vector[:p], "z": vector[p : 2 * p] + 1j * vector[2 * p :]}
    residual = mixed(params, data)
    return np.concatenate([pairs(residual["a"]), pairs(residual["b"])])


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.complex128])
def test_flattening_returns_every_bit(dtype):
    odd = [-0.0 + 0.0j, complex(0.0, -0.0), complex(np.inf, np.nan), complex(-np.inf, -0.0)]
    real = jnp.finfo(dtype).dtype
    params = [
        jnp.asarray(odd, dtype).reshape(2, 2),
        jnp.asarray(-0.0, real),
        jnp.asarray(1j, dtype),
    ]
    spec, flat = as_parameters(params)
    assert flat.dtype == real
    assert flat.shape == (spec.size,) == (8 + 1 + 2,)
    for a, b in zip(jax.tree.leaves(spec.unflatten(flat)), params, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_residuals_are_real_parts_and_then_imaginary_parts():
    residual = [jnp.asarray([3 - 4j, 1j]), jnp.asarray([2.0])]
    np.testing.assert_array_equal(flatten_residual(residual), [3, 0, -4, 1, 2])


SHAPES = {"wide": (2, 4), "square": (4, 4), "tall": (6, 2)}  # 3n residuals, 3p parameters


@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian_of_a_residual_that_is_not_holomorphic(shape):
    n, p = SHAPES[shape]
    params, data = problem(n, p)
    flat = np.concatenate([params["s"], pairs(params["z"])])
    h = 1e-5
    units = np.eye(3 * p)
    columns = [
        (flat_by_hand(flat + h * e, p, data) - flat_by_hand(flat - h * e, p, data)) / (2 * h)
        for e in units
    ]
    expected = np.stack(columns, axis=1)
    kept = gramlm.linearise(mixed, params, data)
    np.testing.assert_allclose(kept.residual, flat_by_hand(flat, p, data), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(kept.jvp_block(jnp.asarray(units)).T, expected, atol=1e-8)
    np.testing.assert_allclose(kept.vjp_block(jnp.eye(3 * n)), expected, atol=1e-8)
    stored = gramlm.linearise(mixed, params, data, memory=gramlm.Materialise())
    np.testing.assert_allclose(stored.jacobian, expected, atol=1e-8)
    norms = gramlm.diagnostics.column_norms_squared(stored)
    np.testing.assert_allclose(norms.value, (expected**2).sum(0), rtol=1e-7)


def test_second_derivatives_of_a_residual_that_is_not_holomorphic():
    p, h = 3, 1e-5
    params, data = problem(2, p)
    flat, units = np.concatenate([params["s"], pairs(params["z"])]), np.eye(3 * p)
    direction = {"s": units[0, :p], "z": units[p, p : 2 * p] + 1j * units[2 * p, 2 * p :]}
    v = np.concatenate([direction["s"], pairs(direction["z"])])
    at, *ends = (gramlm.linearise(mixed, as_tree(flat + d * v, p), data) for d in (0, h, -h))
    difference = (ends[0].vjp(ends[0].residual) - ends[1].vjp(ends[1].residual)) / (2 * h)
    image = gramlm.diagnostics.hessian_product(mixed, params, direction, data)
    found = np.concatenate([image["s"], pairs(image["z"])])
    np.testing.assert_allclose(found, difference, rtol=1e-6, atol=1e-6)
    image = gramlm.diagnostics.gauss_newton_product(mixed, params, direction, data)
    found = np.concatenate([image["s"], pairs(image["z"])])
    np.testing.assert_allclose(found, at.vjp(at.jvp(jnp.asarray(v))), rtol=1e-12, atol=1e-12)


def as_tree(flat, p):
    return {"s": flat[:p], "z": flat[p : 2 * p] + 1j * flat[2 * p :]}


def split(params, data):
    """`mixed` as somebody without complex numbers has to write it."""
    re, im = params["z"]
    residual = mixed({"s": params["s"], "z": jax.lax.complex(re, im)}, data)
    return jnp.stack([residual["a"].real, residual["a"].imag]), residual["b"]


def test_steps_are_those_of_real_pairs():
    params, data = problem(3, 5)
    solver = gramlm.LevenbergMarquardt(linear_solver=DENSE)
    solve = functools.partial(gramlm.solve, solver=solver, max_steps=4, throw=False)
    found = solve(mixed, params, data)
    by_hand = {"s": params["s"], "z": np.stack([params["z"].real, params["z"].imag])}
    expected = solve(split, by_hand, data)
    np.testing.assert_allclose(found.history.cost, expected.history.cost, rtol=1e-11)
    np.testing.assert_allclose(pairs(found.value["z"]), expected.value["z"].ravel(), rtol=1e-8)
    assert found.stats["cost"] < 0.1 * found.stats["initial_cost"]


def product(params, data):
    return data["A"] @ params["z"] * jnp.conj(params["z"][0] + params["s"]) - data["a"]


FORMS = {
    "dense, normal": (9, 3, DENSE, np.complex64),
    "Krylov, dual": (4, 6, KRYLOV, np.complex64),
}


@pytest.mark.parametrize("case", FORMS)
def test_solutions_keep_structure_dtype_and_cost(case):
    n, p, linear_solver, dtype = FORMS[case]
    params, data = problem(n, p, dtype)
    params = {"s": params["s"][0], "z": params["z"]}
    solver = gramlm.LevenbergMarquardt(linear_solver=linear_solver)
    solution = gramlm.solve(product, params, data, solver=solver)
    assert jax.tree.map(signature, solution.value) == jax.tree.map(signature, params)
    residual = np.abs(product(solution.value, data))
    np.testing.assert_allclose(solution.stats["cost"], 0.5 * np.sum(residual**2), 1e-6, atol=1e-12)
    assert solution.stats["cost"] < 0.1 * solution.stats["initial_cost"]
    if "dual" in case:
        assert solution.stats["cost"] < 1e-10  # more parameters than residuals: a root


def signature(array):
    return np.shape(array), np.asarray(array).dtype


def test_linear_least_squares_of_complex_numbers():
    rng = np.random.default_rng(1)
    matrix = complex_normal(rng, 9, 4)
    target = complex_normal(rng, 9)
    solution = gramlm.solve(linear, np.zeros(4) + 0j, (matrix, target))
    expected = np.linalg.lstsq(matrix, target, rcond=None)[0]
    np.testing.assert_allclose(solution.value, expected, rtol=1e-13)


def intensities(z, args):
    matrix, measured = args
    return jnp.abs(matrix @ z) ** 2 - measured


def phase_problem(n, p, dtype=np.complex128):
    rng = np.random.default_rng(3)
    matrix = (complex_normal(rng, n, p) / p**0.5).astype(dtype)
    truth = complex_normal(rng, p).astype(dtype)
    start = (truth + 0.2 * complex_normal(rng, p)).astype(dtype)
    return truth, start, (matrix, np.abs(matrix @ truth) ** 2)


def error_up_to_phase(found, truth):
    overlap = np.vdot(found, truth)
    return np.linalg.norm(found * overlap / abs(overlap) - truth) / np.linalg.norm(truth)


AMBIGUOUS = {
    "normal matrix": (240, 36, DENSE, gramlm.Form.auto, np.complex128),
    "Golub-Kahan": (48, 6, KRYLOV, gramlm.Form.auto, np.complex128),
    "K of a tall J": (40, 5, DENSE, gramlm.Form.dual, np.complex64),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_global_phase_is_survived(case):
    n, p, linear_solver, form, dtype = AMBIGUOUS[case]
    truth, start, args = phase_problem(n, p, dtype)
    solver = gramlm.LevenbergMarquardt(linear_solver=linear_solver, form=form)
    solution = gramlm.solve(intensities, start, args, solver=solver, max_steps=60)
    assert solution.result == gramlm.RESULTS.successful
    assert error_up_to_phase(solution.value, truth) < 100 * np.finfo(dtype).eps
    # J has the phase in its null space: the solve had one to survive.
    at = gramlm.linearise(intensities, solution.value, args)
    turned = at.jvp(jnp.asarray(pairs(1j * np.asarray(solution.value))))
    assert jnp.max(jnp.abs(turned)) < 1e-5 * jnp.max(jnp.abs(at.jvp(jnp.ones(2 * p, turned.dtype))))


def test_jit_vmap_and_aux():
    truth, start, args = phase_problem(40, 5)

    def with_aux(z, args):
        return intensities(z, args), {"wave": args[0] @ z}

    @jax.jit
    @jax.vmap
    def solve(start):
        solution = gramlm.solve(with_aux, start, args, has_aux=True, throw=False)
        return solution.value, solution.aux["wave"]

    values, waves = solve(jnp.stack([start, jnp.conj(truth) * 0 + 1j * start]))
    assert values.dtype == waves.dtype == np.complex128
    assert waves.shape == (2, 40)
    for value in values:
        assert error_up_to_phase(value, truth) < 1e-13
    np.testing.assert_allclose(waves, values @ args[0].T, rtol=1e-12)


def point(params, x):
    row, target = x
    return jnp.dot(row, params["z"] * params["s"]) * jnp.conj(params["z"][0]) - target


def whole(params, data):
    return jax.vmap(point, in_axes=(None, 0))(params, data)


@pytest.mark.parametrize("memory", [gramlm.Materialise(), gramlm.RowBlocks(3)])
def test_rows_of_complex_numbers(memory):
    params, data = problem(7, 4)
    data = (data["A"], data["a"])
    rows = gramlm.linearise(gramlm.Rows(point), params, data, memory=memory)
    plain = gramlm.linearise(whole, params, data)
    # A point at a time: each has its real and its imaginary part.
    order = np.arange(14).reshape(2, 7).T.reshape(-1)
    np.testing.assert_allclose(rows.residual, plain.residual[order], rtol=1e-14)
    units = jnp.eye(12)
    expected = plain.jvp_block(units)[:, order]
    np.testing.assert_allclose(rows.jvp_block(units), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(rows.vjp_block(jnp.eye(14)).T, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        gramlm.diagnostics.gram_diagonal(rows).value, (expected**2).sum(0), rtol=1e-12
    )


def test_a_loop_of_ones_own_keeps_structure_and_dtype():
    params, data = problem(3, 5, np.complex64)
    solver = gramlm.LevenbergMarquardt(
        linear_solver=DENSE, acceptance=gramlm.Nonmonotone(), correction=None
    )
    state = solver.init(mixed, params, data)
    moved, state, info = jax.jit(functools.partial(solver.step, mixed))(params, state, data)
    assert info.accepted
    best = solver.best(moved, state)
    for tree in (moved, best):
        assert jax.tree.map(signature, tree) == jax.tree.map(signature, params)


def test_python_numbers_may_be_complex():
    solution = gramlm.solve(lambda z: jnp.stack([z**2 - 2j]), 1.5 + 0j)
    assert solution.value.dtype == np.complex128
    assert abs(solution.value - (1 + 1j)) < 1e-12


ERRORS = {
    "precision": (
        lambda: gramlm.solve(mixed, {"s": np.ones(2, np.float32), "z": np.ones(2) + 0j}),
        "`params` mixes the dtypes complex128, float32",
    ),
    "direction": (
        lambda: gramlm.diagnostics.hessian_product(
            lambda t: t["s"] * t["z"],
            {"s": np.ones(2), "z": 1j * np.ones(2)},
            {"s": 1j * np.ones(2), "z": np.ones(2)},
        ),
        "`vector` must be real where `params` is; got complex128",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_dtypes(name):
    make, text = ERRORS[name]
    with pytest.raises(TypeError, match=text):
        make()


def test_a_complex_scalar_is_no_residual():
    with pytest.raises(ValueError, match="returned a scalar"):
        gramlm.solve(lambda t: jnp.sum(t), np.ones(2) + 0j)
