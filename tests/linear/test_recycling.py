"""What one Jacobian teaches about the next, and whole solves with the Krylov solver."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from support.linear import Case, decaying, factorised, norm, recycled_by

LM = gramlm.LevenbergMarquardt
FORMS = ["wide", "tall"]


def kernel(form, width):
    """A Gaussian kernel, wide or tall, and a smooth right-hand side."""
    n, p = {"wide": (80, 120), "tall": (120, 80)}[form]
    x, centres = np.linspace(-1, 1, n), np.linspace(-1.1, 1.1, p)
    jacobian = np.exp(-0.5 * ((x[:, None] - centres) / width) ** 2)
    return Case.from_arrays(jacobian, np.sin(4 * np.cos(3 * x)))


@pytest.mark.parametrize("form", FORMS)
def test_a_jacobian_like_the_last_one_takes_fewer_passes(form):
    damping, tolerance = 1e-6, 1e-3
    before, now = kernel(form, 0.1), kernel(form, 0.1005)
    first = before.solve(damping, tolerance)
    known = recycled_by(before, first.work, before.recycled)
    assert known.count > 0
    assert known.basis_size == first.work.space.basis.count
    fresh = now.solve(damping, tolerance)
    step = now.solve(damping, tolerance, recycled=known)
    assert fresh.solved
    assert step.solved
    assert 2 * step.iterations <= fresh.iterations
    assert now.missed(step.step, damping) <= tolerance**2
    # λ, the right-hand side and the Jacobian of the past do not matter for what is right.
    other = kernel(form, 0.13)
    step = other.solve(1e-3, tolerance, rhs=jnp.cos(other.b), recycled=known)
    assert step.solved
    assert other.missed(step.step, 1e-3, rhs=jnp.cos(other.b)) <= tolerance**2


@pytest.mark.parametrize("name", ["wide", "square", "wide, dense metric", "wide, float32", "tall"])
def test_after_a_large_basis_the_gram_matrix_is_formed(name):
    """It gives the same step, for n products; in float32 and for n > p it is not formed."""
    tolerance = 1e-3 if "float32" in name else 1e-6
    may = gramlm.KrylovSolver(block_size=4, recycle_block=8, may_form=True)
    case = Case.of(name, solver=may)
    n = case.b.size
    formable = n <= case.jacobian.shape[1] and "float32" not in name
    first = case.solve(1e-2, tolerance)
    known = recycled_by(case, first.work, case.recycled)
    assert known.basis_size > n / 3
    second = case.solve(1e-3, tolerance, recycled=known)
    assert second.solved
    assert case.missed(second.step, 1e-3) <= 2 * tolerance**2
    plain = Case.of(name).solve(1e-3, tolerance, recycled=known)
    if formable:
        assert second.products == n + 2
        again = case.solve(1e-4, tolerance, recycled=known, work=second.work)
        assert again.products == 2
        assert case.missed(again.step, 1e-4) <= tolerance**2
    else:
        assert second.products == plain.products
    np.testing.assert_allclose(second.step, plain.step, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_vectors_that_a_larger_damping_makes_useless_are_dropped(form):
    case = kernel(form, 0.1)
    work = case.solve(1e-6, 1e-3).work
    counts = []
    for damping in (1e-6, 1e-4, 1e-2, 1.0, 1e3):
        raised = case.solve(damping, 1e-3, work=work)
        known = recycled_by(case, raised.work, case.recycled)
        shift = damping * case.largest  # what `recycled_by` compares with
        assert known.count == np.sum(np.asarray(known.values)[: len(known.vectors)] > 0.1 * shift)
        counts.append(int(known.count))
        effective = np.sum(known.values / (known.values + shift))
        np.testing.assert_allclose(known.effective_dimension, effective, rtol=1e-10)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2] > counts[-1] == 0


@pytest.mark.parametrize("form", FORMS)
def test_recycled_vectors_are_ritz_vectors_and_those_kept_are_the_largest(form):
    case = kernel(form, 0.2)
    step = case.solve(1e-4, 1e-6)
    known = recycled_by(case, step.work, case.recycled)
    a, _ = case.whitened
    gram = a @ a.T if form == "wide" else a.T @ a
    count = min(int(known.count), len(known.vectors))
    np.testing.assert_allclose(
        known.values[:count], np.linalg.eigvalsh(gram)[::-1][:count], rtol=1e-6
    )
    kept = np.asarray(known.vectors)[:count]
    np.testing.assert_allclose(kept @ kept.T, np.eye(count), atol=1e-12)
    assert norm(kept @ gram - known.values[:count, None] * kept) <= 1e-6 * case.largest


@pytest.mark.parametrize("form", FORMS)
def test_zeros_and_nonsense_that_are_recycled_do_no_harm(form, rng):
    case = kernel(form, 0.1)
    known = recycled_by(case, case.solve(1e-6, 1e-3).work, case.recycled)
    noise = jnp.asarray(rng.normal(size=known.vectors.shape))
    states = {
        "nothing": jax.tree.map(jnp.zeros_like, known),
        "zero vectors": eqx.tree_at(lambda k: k.vectors, known, 0 * known.vectors),
        "one vector again and again": eqx.tree_at(
            lambda k: k.vectors, known, 0 * known.vectors + known.vectors[0]
        ),
        "noise": eqx.tree_at(lambda k: k.vectors, known, 1e8 * noise),
    }
    for name, state in states.items():
        step = case.solve(1e-4, 1e-3, recycled=state)
        assert step.solved, name
        assert case.missed(step.step, 1e-4) <= 1e-6, name


def test_nothing_is_recycled_if_not_wanted():
    solver = gramlm.KrylovSolver(block_size=4, recycle_block=0)
    case = kernel("wide", 0.1)._replace(solver=solver)
    step = case.solve(1e-3, 1e-3)
    known = recycled_by(case, step.work, case.recycled)
    assert known.vectors.shape == (0, 80)
    assert step.solved
    assert case.solve(1e-3, 1e-3, recycled=known).iterations == step.iterations


@pytest.mark.parametrize("form", FORMS)
def test_the_derivative_of_a_step_is_that_of_the_exact_one(form, rng):
    n, p = (6, 9) if form == "wide" else (9, 6)
    case = Case.from_arrays(decaying(n, p, 10.0), rng.normal(size=n))
    direction = (
        jnp.asarray(rng.normal(size=(n, p))),
        jnp.asarray(rng.normal(size=n)),
        jnp.asarray(0.3),
    )

    def found(jacobian, b, damping):
        moved = case._replace(jacobian=jacobian, b=b)
        factors = factorised(moved, jnp.ones(()), case.recycled)
        step = factors.at(damping).solve(b, factors.work, jnp.asarray(1e-10))
        return step.step, step.image, step.predicted_decrease(b)

    def expected(jacobian, b, damping):
        step = -jnp.linalg.solve(jacobian.T @ jacobian + damping * jnp.eye(p), jacobian.T @ b)
        image = jacobian @ step
        return step, image, 0.5 * jnp.sum(b**2) - 0.5 * jnp.sum((b + image) ** 2)

    at = (case.jacobian, case.b, jnp.asarray(0.2))
    push = jax.jit(lambda f, at, d: jax.jvp(f, at, d), static_argnums=0)
    for ours, theirs in zip(push(found, at, direction), push(expected, at, direction), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


# Whole solves.
KRYLOV = gramlm.KrylovSolver(block_size=2, recycle_block=4)
SOLVER = LM(linear_solver=KRYLOV, correction=None)
MATRIX = jnp.asarray(decaying(6, 6, 10.0))


def bent(t, target):
    """Its only minimum is `MATRIX⁻¹ arsinh(target)`, and the residual is zero there."""
    return jnp.sinh(MATRIX @ t) - target


def minimum(target):
    return jnp.linalg.solve(MATRIX, jnp.arcsinh(target))


def test_solves_in_a_batch_within_jit(rng):
    starts, targets = jnp.asarray(rng.normal(size=(2, 3, 6)))

    @eqx.filter_jit
    @jax.vmap
    def run(start, target):
        solution = gramlm.solve(bent, start, target, solver=SOLVER, throw=False, max_steps=30)
        return solution.value, solution.stats["cost"], solution.state.recycled.vectors

    values, costs, recycled = run(starts, targets)
    np.testing.assert_allclose(values, jax.vmap(minimum)(targets), rtol=1e-6, atol=1e-8)
    assert jnp.all(costs < 1e-12)
    assert jnp.all(jnp.isfinite(recycled))


@pytest.mark.parametrize("form", [gramlm.Form.dual, gramlm.Form.normal])
def test_the_forward_derivative_of_a_solution(form, rng):
    target, direction = jnp.asarray(rng.normal(size=(2, 6)))
    solver = LM(linear_solver=KRYLOV, correction=None, form=form)

    def solution(target):
        return gramlm.solve(bent, jnp.zeros(6), target, solver=solver, throw=False).value

    found = jax.jvp(solution, (target,), (direction,))
    expected = jax.jvp(minimum, (target,), (direction,))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_loop_with_new_data_at_each_step_stays_right(rng):
    """Batches of rows, one of them not finite, and at last one of another size."""

    def residual(t, batch):
        features, target = batch
        return jnp.tanh(features @ t) - target

    truth = jnp.asarray(rng.normal(size=12)) / 3
    solver = LM(linear_solver=KRYLOV, correction=None)
    params, state, step = jnp.zeros(12), None, eqx.filter_jit(solver.step)
    recycled = []
    for i in range(14):
        features = jnp.asarray(rng.normal(size=(8 if i < 12 else 5, 12)))
        batch = features, jnp.tanh(features @ truth) * (jnp.nan if i == 6 else 1)
        state = solver.init(residual, params, batch) if state is None else state
        before = params
        params, state, info = step(residual, params, state, batch)
        leaves = jax.tree.leaves((params, state.recycled))
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in leaves)
        if i == 6:
            assert info.result == gramlm.RESULTS.nonfinite_start
            np.testing.assert_array_equal(params, before)
            continue
        r = residual(before, batch)
        np.testing.assert_allclose(info.cost_before, 0.5 * jnp.sum(r**2), rtol=1e-12)
        assert info.accepted
        assert info.linear_residual < 0.5
        recycled.append(int(state.recycled.count))
    assert max(recycled) > 0
    assert norm(params - truth) < 0.05 * norm(truth)
