"""Steps from one Krylov basis: right for every λ and right-hand side, or owned up to."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gramlm
from support.linear import CASES, F32, Case, decaying, factorised, norm, recycled_by, solved


def precision(case):
    """The tolerance asked for, and what the error of a step may then be."""
    return (1e-4, 5e-2) if case.b.dtype == F32 else (1e-9, 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_one_work_answers_every_damping(name):
    case = Case.of(name)
    tolerance, error = precision(case)
    work, products = None, []
    for damping in (1e-3, 1e-2, 0.1, 1.0, 100.0):
        step = case.solve(damping, tolerance, work=work)
        expected, _ = case.exact(damping)
        assert step.solved
        assert step.step.dtype == step.image.dtype == case.b.dtype
        assert np.linalg.norm(step.step - expected) <= error * np.linalg.norm(expected)
        image = np.asarray(case.jacobian, float) @ expected
        assert np.linalg.norm(step.image - image) <= error * np.linalg.norm(image)
        assert (step.iterations == 0) == (work is not None)
        products.append(int(step.products))
        work = step.work
    assert products[0] > 20
    assert max(products[1:]) <= 2


@pytest.mark.parametrize("name", CASES)
def test_the_image_is_that_of_the_step_whatever_rounding_made_of_it(name):
    """With a tiny λ, and a part of b that J does not reach, w is large and so is its rounding."""
    case = Case.of(name)
    step = case.solve(1e-13, 1e-3)
    jacobian, eps = np.asarray(case.jacobian, float), np.finfo(case.b.dtype).eps
    image, size = jacobian @ np.asarray(step.step, float), np.linalg.norm(step.step)
    error = np.linalg.norm(step.image - image)
    assert error <= 10 * eps * np.linalg.norm(jacobian) * size


@pytest.mark.parametrize("name", CASES)
def test_another_right_hand_side_starts_from_what_is_known(name, rng):
    case = Case.of(name)
    tolerance, error = precision(case)
    first = case.solve(1e-2, 0.1)
    rhs = rng.normal(size=case.b.size)
    step = case.solve(1e-2, tolerance, rhs=rhs, work=first.work)
    expected, _ = case.exact(1e-2, rhs)
    assert step.solved
    assert np.linalg.norm(step.step - expected) <= error * np.linalg.norm(expected)
    assert step.work.space.basis.count > first.work.space.basis.count > 0
    again = case.solve(1e-2, tolerance, rhs=rhs)
    assert step.products < again.products


@pytest.mark.parametrize("name", ["wide", "square", "wide, dense metric", "wide, float32"])
def test_the_step_is_the_galerkin_solution_and_its_residual_the_true_one(name):
    case, damping = Case.of(name), 1e-2
    step = case.solve(damping, 0.1)
    space, (a, factor) = step.work.space, case.whitened
    z, b = np.asarray(space.vectors, float), np.asarray(case.b, float)
    gram, shift = a @ a.T, damping * case.largest
    kept = z[: int(space.count)]
    w = kept.T @ np.linalg.solve(kept @ gram @ kept.T + shift * np.eye(len(kept)), kept @ b)
    rho = b - gram @ w - shift * w
    close = {"rtol": 1e-3} if case.b.dtype == F32 else {"rtol": 1e-8}
    np.testing.assert_allclose(step.relative_residual, norm(rho) / norm(b), **close)
    delta = -np.linalg.solve(factor.T, a.T @ w)
    assert norm(step.step - delta) <= close["rtol"] * norm(delta)
    left = 0.5 * b @ b - 0.5 * np.sum((b + np.asarray(case.jacobian, float) @ delta) ** 2)
    np.testing.assert_allclose(step.predicted_decrease(case.b), left, **close)


@pytest.mark.parametrize("name", ["tall", "tall, dense metric", "tall, float32"])
def test_the_residual_of_the_normal_form_is_the_true_one(name):
    case, damping = Case.of(name), 1e-2
    step = case.solve(damping, 0.3)
    a, factor = case.whitened
    y = -factor.T @ np.asarray(step.step, float)
    rho = a.T @ (np.asarray(case.b, float) - a @ y) - damping * case.largest * y
    relative = norm(rho) / norm(a.T @ np.asarray(case.b, float))
    np.testing.assert_allclose(step.relative_residual, relative, rtol=1e-3)
    assert relative > 1e-3


PROPERTIES = {
    "seed": st.integers(0, 2**31),
    "rank": st.integers(1, 20),
    "condition": st.floats(0, 6),
    "damping": st.floats(-8, 1),
    "tolerance": st.floats(-5, -0.4),
    "null": st.sampled_from([0.0, 1.0, 1e3]),
}


def drawn(name, seed, rank, condition, null):
    """A random problem; `null`: how much of b lies outside of the range of J."""
    n, p, metric, dtype = CASES[name]
    jacobian = decaying(n, p, 10**condition, rank, seed)
    rng = np.random.default_rng(seed)
    b = jacobian @ rng.normal(size=p)
    outside = rng.normal(size=n)
    outside -= jacobian @ np.linalg.lstsq(jacobian, outside, rcond=1e-9)[0]
    return Case.from_arrays(jacobian, b / norm(b) + null * outside, dtype, metric)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(name=st.sampled_from(["wide", "tall"]), **PROPERTIES)
def test_no_more_is_missed_than_was_allowed(name, damping, tolerance, **problem):
    case, damping, tolerance = drawn(name, **problem), 10**damping, 10**tolerance
    step = case.solve(damping, tolerance)
    decrease = case.exact(damping)[1]
    missed = case.missed(step.step, damping) * decrease
    size = 0.5 * norm(case.b) ** 2
    # What rounding takes: K is only known to ε, and an error of w is magnified by 1/λ.
    rounding = 1e-13 * size * max(1, 1e-2 / damping) if name == "wide" else 1e-13 * size
    assert step.solved
    assert missed <= tolerance**2 * decrease + rounding
    # Weak duality: the bound that the residual gives is one.
    if name == "wide":
        bound = 0.5 * (step.relative_residual * norm(case.b)) ** 2
    else:
        gradient = norm(case.jacobian.T @ case.b)
        bound = 0.5 * (step.relative_residual * gradient) ** 2 / (damping * case.largest)
    assert missed <= bound * (1 + 1e-6) + rounding


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(name=st.sampled_from(["wide, float32", "tall, float32"]), **PROPERTIES)
def test_what_is_called_solved_in_float32_is_worth_a_trial(name, damping, tolerance, **problem):
    case, damping = drawn(name, **problem), 10 ** max(damping, -5)
    step = case.solve(damping, 10**tolerance)
    size = 0.5 * norm(case.b) ** 2
    decrease = case.exact(damping)[1]
    if step.solved:
        missed = case.missed(step.step, damping) * decrease
        assert missed <= 0.5 * decrease + 0.01 * size
    else:
        assert decrease <= 1e-4 * size


@pytest.mark.parametrize("name", ["wide", "tall"])
def test_degenerate_systems(name, rng):
    case = Case.of(name)
    n, p = case.jacobian.shape
    zero = case._replace(b=jnp.zeros(n)).solve(1e-3, 1e-3)
    assert zero.solved
    assert zero.iterations == 0
    np.testing.assert_array_equal(zero.step, np.zeros(p))
    np.testing.assert_array_equal(zero.image, np.zeros(n))

    flat = case._replace(jacobian=jnp.zeros((n, p)))
    step = solved(
        flat, jnp.zeros(()), case.b, jnp.asarray(1e-3), jnp.asarray(1e-3), case.recycled,
        factorised(flat, jnp.zeros(()), case.recycled).work,
    )  # fmt: skip
    assert step.solved
    np.testing.assert_array_equal(step.step, np.zeros(p))

    u, v = rng.normal(size=(n, 1)), rng.normal(size=(1, p))
    single = Case.from_arrays(u @ v, case.b)
    step = single.solve(1e-3, 1e-6)
    assert step.solved
    np.testing.assert_allclose(step.step, single.exact(1e-3)[0], rtol=1e-9)
    across = case.b - u[:, 0] * (u[:, 0] @ case.b) / np.sum(u**2)
    nothing = single._replace(b=across).solve(1e-3, 1e-6)
    assert nothing.solved
    assert norm(nothing.step) <= 1e-10 * norm(step.step)

    repeated = Case.from_arrays(np.repeat(case.jacobian[:2], n // 2, 0), case.b)
    step = repeated.solve(1e-3, 1e-6)
    assert step.solved
    np.testing.assert_allclose(step.step, repeated.exact(1e-3)[0], rtol=1e-8)


@pytest.mark.parametrize("name", ["wide", "tall"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_no_solution_and_is_not_recycled(name, bad):
    case = Case.of(name)
    good = recycled_by(case, case.solve(1e-3, 1e-6).work, case.recycled)
    for broken in (
        case._replace(jacobian=case.jacobian.at[3, 4].set(bad)),
        case._replace(b=case.b.at[2].set(bad)),
    ):
        largest = jnp.ones(())
        fresh = factorised(broken, largest, good).work
        args = (jnp.asarray(1e-3), jnp.asarray(1e-6), good, fresh)
        step = solved(broken, largest, broken.b, *args)
        assert not step.solved
        kept = recycled_by(broken, step.work, good)
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(kept))


@pytest.mark.parametrize("name", ["wide, float32", "tall, float32"])
@pytest.mark.parametrize("scale", [2.0**-40, 2.0**-13, 2.0**40])
def test_the_scale_of_the_right_hand_side_does_not_matter(name, scale):
    case = Case.of(name)
    one, other = case.solve(1e-3, 1e-3), case._replace(b=case.b * scale).solve(1e-3, 1e-3)
    assert other.solved
    assert other.iterations == one.iterations
    assert norm(other.step / scale - one.step) <= 1e-5 * norm(one.step)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (6, 9)])
def test_systems_smaller_than_a_block(shape, rng):
    case = Case.from_arrays(
        rng.normal(size=shape), rng.normal(size=shape[0]), solver=gramlm.KrylovSolver()
    )
    for damping in (1e-6, 1.0):
        step = case.solve(damping, 1e-6)
        assert step.solved
        assert step.iterations <= 2
        np.testing.assert_allclose(step.step, case.exact(damping)[0], rtol=1e-8)


@pytest.mark.parametrize("name", ["wide", "tall"])
def test_too_little_room_is_owned_up_to(name):
    small = gramlm.KrylovSolver(capacity=8, block_size=4, recycle_block=4, max_iterations=0)
    case = Case.of(name, solver=small)
    verdicts = []
    for damping in (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-6):
        step = case.solve(damping, 1e-6)
        missed = case.missed(step.step, damping)
        assert step.work.space.basis.count <= 8
        assert missed <= 0.5 or not step.solved
        verdicts.append(bool(step.solved))
    assert verdicts[0]
    assert not verdicts[-1]
    assert verdicts == sorted(verdicts, reverse=True)


@pytest.mark.parametrize("name", ["wide", "tall", "wide, float32", "tall, float32"])
def test_conjugate_gradients_finish_what_a_full_basis_leaves(name):
    small = gramlm.KrylovSolver(capacity=12, block_size=4, recycle_block=4)
    tolerance = 1e-3 if "float32" in name else 1e-6
    case = Case.of(name, solver=small)
    for damping in (1e-2, 1e-4):
        step = case.solve(damping, tolerance)
        assert step.solved
        assert step.work.space.basis.count <= 12
        assert step.iterations > 3
        assert step.products >= 2 * step.iterations
        assert case.missed(step.step, damping) <= 4 * tolerance**2
        # From the basis: fewer iterations than without one.
        alone = gramlm.KrylovSolver(capacity=1, block_size=1, recycle_block=0)
        without = Case.of(name, solver=alone).solve(damping, tolerance)
        assert without.solved
        assert step.iterations < without.iterations


def test_without_room_to_spare_the_whole_space_is_reached():
    case = Case.from_arrays(decaying(30, 40, 1e4), np.ones(30), solver=gramlm.KrylovSolver())
    step = case.solve(1e-12, 1e-6)  # needs all of the 30 vectors; the second block is cut short
    assert step.solved
    assert case.missed(step.step, 1e-12) <= 1e-8


def test_a_kernel_takes_a_fraction_of_the_products_of_conjugate_gradients(rng):
    x, centres = np.linspace(-1, 1, 200), np.linspace(-1.1, 1.1, 250)
    jacobian = np.exp(-0.5 * ((x[:, None] - centres) / 0.1) ** 2)
    b = np.sin(4 * np.cos(3 * x)) + 0.1 * rng.normal(size=200)
    case, damping = Case.from_arrays(jacobian, b, solver=gramlm.KrylovSolver(block_size=8)), 1e-9
    step = case.solve(damping, 1e-6)
    assert step.relative_residual <= 1e-6
    assert case.missed(step.step, damping) <= 1e-12
    shifted = jacobian @ jacobian.T + damping * case.largest * np.eye(200)
    operator = lx.MatrixLinearOperator(jnp.asarray(shifted), lx.positive_semidefinite_tag)
    plain = gramlm.ConjugateGradient(rtol=1e-6, max_steps=5000)
    cg = lx.linear_solve(operator, case.b, plain, throw=False)
    assert cg.result == lx.RESULTS.successful
    assert 5 * step.products < 2 * cg.stats["num_steps"]


@pytest.mark.parametrize("b", ["generic", "consistent"])
def test_the_normal_form_is_as_accurate_as_least_squares_by_qr(b, rng):
    n, p, damping = 160, 100, 1e-9
    jacobian = decaying(n, p, 1e4)
    right = rng.normal(size=n) if b == "generic" else jacobian @ rng.normal(size=p)
    case = Case.from_arrays(jacobian, right, F32, solver=gramlm.KrylovSolver(block_size=16))
    exact = case.exact(damping)[0]
    shift = np.float32(np.sqrt(damping * case.largest)) * np.eye(p, dtype=np.float32)
    j, r = np.asarray(case.jacobian), np.asarray(case.b)
    q, triangle = np.linalg.qr(np.concatenate([j, shift]))
    by_qr = -np.linalg.solve(triangle, q[:n].T @ r)
    squared = -np.linalg.solve(j.T @ j + shift**2, j.T @ r)
    step = case.solve(damping, 1e-5)
    found, qr, normal = (norm(d - exact) / norm(exact) for d in (step.step, by_qr, squared))
    assert step.solved
    assert case.missed(step.step, damping) <= 1e-7
    assert qr <= found <= (2e-3 if b == "generic" else 0.1)
    assert normal > 0.2
    assert case.missed(squared, damping) > 1e-7


@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_a_basis_with_room_for_the_whole_space_solves_any_right_hand_side(shape, rng):
    """Blocks that bring no more than one new vector use up no more room than for that."""
    n = shape[0]
    solver = gramlm.KrylovSolver(block_size=16, recycle_block=0)
    # Four distinct eigenvalues: after four blocks only the residual of a new one is new.
    u, v = (np.linalg.qr(rng.normal(size=(size, 40)))[0] for size in shape)
    jacobian = u * np.repeat([1.0, 0.5, 0.2, 0.1], 10) @ v.T
    case, work = Case.from_arrays(jacobian, rng.normal(size=n), solver=solver), None
    for _ in range(6):
        rhs = rng.normal(size=n)
        step = case.solve(1e-6, 1e-6, rhs=rhs, work=work)
        work = step.work
        assert step.solved
        assert case.missed(step.step, 1e-6, rhs=rhs) <= 1e-12
        assert work.space.basis.count <= 40
    assert work.space.basis.count == 40
