"""Steps by preconditioned conjugate gradients, and when the preconditioner is built."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from support.linear import F32, Case, decaying, factorised, norm
from support.problems import sine, sine_problem

PCG = gramlm.PreconditionedCG
PLAIN = gramlm.NoPreconditioner()


@eqx.filter_jit
def steps_with(case, dampings, tolerance, recycled):
    """A `LinearStep` for each λ with one Jacobian, and what is recycled."""
    factors = factorised(case, jnp.ones((), case.b.dtype), recycled)
    steps, work = [], factors.work
    for damping in dampings:
        steps.append(factors.at(damping).solve(case.b, work, tolerance))
        work = steps[-1].work
    return steps, factors.recycle(work)


def sequence(case, jacobians, dampings, tolerance=1e-4):
    """The steps for each of several Jacobians with λmax(K) about one, and what was recycled."""
    dtype = case.b.dtype
    dampings, tolerance = jnp.asarray(dampings, dtype), jnp.asarray(tolerance, dtype)
    found, states = [], [case.recycled]
    for jacobian in jacobians:
        moved = case._replace(jacobian=jnp.asarray(jacobian, dtype))
        steps, recycled = steps_with(moved, dampings, tolerance, states[-1])
        found.append(steps)
        states.append(recycled)
    return found, states


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("wide, dense metric", gramlm.Form.auto),
        ("tall, float32", gramlm.Form.dual),
        ("tall, dense metric", gramlm.Form.auto),
    ],
)
def test_the_step_is_that_of_dense_algebra(name, form):
    case = Case.of(name, solver=PCG(), form=form)
    single = case.b.dtype == F32
    tolerance, error = (1e-3, 1e-2) if single else (1e-6, 1e-5)
    work, products = None, []
    for damping in (1e-2, 2e-2, 1.0):
        step = case.solve(damping, tolerance, work=work)
        work = step.work
        expected, _ = case.exact(damping)
        assert step.solved
        assert step.step.dtype == case.b.dtype
        assert norm(step.step - expected) <= error * norm(expected)
        image = case.whitened[0] @ case.whitened[1].T @ np.asarray(step.step, float)
        assert norm(step.image - image) <= error * norm(image)
        assert case.missed(step.step, damping) <= tolerance**2 + 1e-9 * single
        assert step.products >= 2 * step.iterations + 1
        products.append(int(step.products))
    # Another λ starts from what is known.
    assert 2 * max(products[1:]) <= products[0]
    nothing = case.solve(1e-2, tolerance, rhs=jnp.zeros_like(case.b))
    np.testing.assert_array_equal(nothing.step, np.zeros(len(nothing.step)))
    assert nothing.solved
    assert nothing.iterations == nothing.relative_residual == 0


def test_without_room_for_directions_nothing_is_learnt(rng):
    case = Case.of("wide", solver=PCG(gramlm.RecycledDirections(4), num_directions=0))
    found, states = sequence(case, [case.jacobian] * 2, [1e-2], 1e-3)
    assert all(step.solved for (step,) in found)
    np.testing.assert_array_equal(states[-1].state.vectors, 0)


def test_a_step_that_was_cut_short_is_not_trusted(rng):
    """Nearly all of b lies where K has nothing, so that little is left of it from the start."""
    jacobian = decaying(60, 80, 1e6)
    b = jacobian @ rng.normal(size=80)
    b = b / np.linalg.norm(b) + np.linalg.svd(jacobian)[0][:, 40:] @ rng.normal(size=20)
    for iterations, solved in ((3, False), (500, True)):
        solver = PCG(gramlm.NoPreconditioner(), max_iterations=iterations)
        case = Case.from_arrays(jacobian, b, solver=solver)
        step = case.solve(1e-9, 0.1)
        assert bool(step.solved) == solved
        missed = case.missed(step.step, 1e-9)
        assert (missed <= 0.1) == solved


@pytest.mark.parametrize("preconditioner", [gramlm.Jacobi(), gramlm.RecycledDirections(32)])
def test_steps_over_several_jacobians_of_which_one_is_not_finite(preconditioner, rng):
    jacobians = [decaying(60, 80, 1e3)]
    for _ in range(4):
        jacobians.append(jacobians[-1] * rng.uniform(0.9, 1.1, size=(60, 1)))
    jacobians[2] = np.where(np.arange(80) == 4, np.nan, jacobians[2])
    jacobians[3:] = [np.nan_to_num(jacobian, nan=0.1) for jacobian in jacobians[3:]]
    case = Case.from_arrays(jacobians[0], rng.normal(size=60), F32, solver=PCG(preconditioner))
    found, states = sequence(case, jacobians, [1e-4], 1e-2)
    assert [bool(step.solved) for (step,) in found] == [True, True, False, True, True]
    for i in (0, 1, 3, 4):
        moved = case._replace(jacobian=jnp.asarray(jacobians[i], F32))
        assert moved.missed(found[i][0].step, 1e-4 / moved.largest) <= 1e-4
    assert states[-1].step == 5
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(states[-1].state))
    if isinstance(preconditioner, gramlm.Jacobi):  # free with J stored, so built each time
        built = [np.asarray(state.state) for state in states[1:]]
        for i in (0, 1, 3, 4):
            np.testing.assert_allclose(built[i], np.sum(jacobians[i] ** 2, axis=1), rtol=1e-4)
        np.testing.assert_array_equal(built[2], built[1])


# When a preconditioner is built.


class Counting(gramlm.extend.AbstractPreconditioner[jax.Array]):
    """The identity, at a price; its state is the number of times it was built."""

    cost: int = eqx.field(static=True)

    def init(self, like):
        return jnp.zeros(())

    def price(self, system):
        return self.cost

    def build(self, system, damping, seed, state):
        return state + 1, self.cost

    def at(self, system, damping, state):
        return lambda x: x

    def harvest(self, state, directions):
        return state


def test_it_is_built_when_the_further_iterations_have_paid_for_it(rng):
    easy, hard = decaying(40, 50, 3.0), decaying(40, 50, 1e3)
    solver = PCG(Counting(100), num_directions=0)
    case = Case.from_arrays(easy, rng.normal(size=40), solver=solver)
    found, states = sequence(case, [easy] * 5 + [hard] * 4, [1e-4])
    reference, debt, built, expected = 0, 0, 0, []
    for (step,) in found:  # the rule, in Python
        if debt >= 100:
            built, reference, debt = built + 1, int(step.iterations), 0
        else:
            debt += 2 * max(int(step.iterations) - reference, 0)
        expected.append((built, reference, debt))
    seen = [(int(s.state), int(s.reference), int(s.debt)) for s in states[1:]]
    assert seen == expected
    assert expected[0][0] == 0  # not before it has paid
    assert 2 <= built < len(found)
    # What it costs is reported, once, by the next solve.
    for i, (step,) in enumerate(found):
        bought = expected[i][0] - (expected[i - 1][0] if i else 0)
        plain = 2 * (step.iterations + 1) + 1
        assert step.products in (plain + 100 * bought, plain + 100 * bought + 2)


def test_a_solve_cut_short_is_no_measure_and_no_success(rng):
    solver = PCG(Counting(10), max_iterations=5, num_directions=0)
    case = Case.from_arrays(decaying(200, 220, 1e3), rng.normal(size=200), solver=solver)
    found, states = sequence(case, [case.jacobian] * 4, [1e-8])
    assert all(not step.solved and step.iterations == 5 for (step,) in found)
    assert [int(s.state) for s in states[1:]] == [0, 1, 1, 2]


# Derivatives.


@pytest.mark.parametrize(
    ("form", "solver"), [("wide", PCG(gramlm.Nystrom(4))), ("tall", PCG(PLAIN, num_directions=0))]
)
def test_the_derivative_of_a_step_is_that_of_the_exact_one(form, solver, rng):
    n, p = (6, 9) if form == "wide" else (9, 6)
    case = Case.from_arrays(decaying(n, p, 10.0), rng.normal(size=n), solver=solver)
    known = eqx.tree_at(lambda r: r.debt, case.recycled, 10**6)  # so that it is built
    direction = jnp.asarray(rng.normal(size=(n, p))), jnp.asarray(rng.normal(size=n)), 0.3

    def found(jacobian, b, damping):
        moved = case._replace(jacobian=jacobian, b=b)
        factors = factorised(moved, jnp.ones(()), known)
        step = factors.at(damping).solve(b, factors.work, jnp.asarray(1e-10))
        return step.step, step.image

    def expected(jacobian, b, damping):
        step = -jnp.linalg.solve(jacobian.T @ jacobian + damping * jnp.eye(p), jacobian.T @ b)
        return step, jacobian @ step

    at = (case.jacobian, case.b, 0.2)
    push = jax.jit(lambda f, at, d: jax.jvp(f, at, d), static_argnums=0)
    for ours, theirs in zip(push(found, at, direction), push(expected, at, direction), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


# Whole solves.

ALL = {
    "none": PLAIN,
    "jacobi": gramlm.Jacobi(),
    "block": gramlm.BlockJacobi(8),
    "nystrom": gramlm.Nystrom(8, block_size=4),
    "cholesky": gramlm.PivotedCholesky(8, block_size=4),
    "recycled": gramlm.RecycledDirections(16),
}  # that of a user goes through a whole solve in the documentation


@pytest.mark.parametrize("name", ALL)
def test_whole_solves(name, rng):
    n, p = (24, 12) if name in ("block", "cholesky", "recycled") else (12, 24)
    problem = sine_problem(n, p)
    features, truth = problem.args[0], 0.5 * problem.params
    data = (features, jnp.sin(features @ truth))
    solver = gramlm.LevenbergMarquardt(
        linear_solver=PCG(ALL[name], num_directions=16 if name in ("nystrom", "recycled") else 0),
        metric=gramlm.IdentityMetric(),
        correction=None,
        memory=gramlm.Materialise() if name in ("block", "jacobi") else gramlm.Keep(),
    )
    solution = gramlm.solve(sine, jnp.zeros(p), data, solver=solver)
    assert solution.stats["cost"] < 1e-12 * solution.stats["initial_cost"]
    assert solution.stats["inner_iterations"] > 0
    if n > p:
        np.testing.assert_allclose(solution.value, truth, rtol=1e-4, atol=1e-5)


def test_what_is_no_preconditioner_is_named():
    psd = lx.positive_semidefinite_tag
    with pytest.raises(TypeError, match="reconditioner"):
        PCG(preconditioner=lx.MatrixLinearOperator(jnp.eye(4), psd))
    for settings in ({"max_iterations": 0}, {"num_directions": -1}):
        with pytest.raises(ValueError, match="must"):
            PCG(**settings)
