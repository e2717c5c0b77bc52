"""What is chosen for a problem of some size, and that the choice changes no result."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gramlm
from gramlm._problem.build import flat_problem
from gramlm._problem.residual.canonical import canonical

LM = gramlm.LevenbergMarquardt
ProductCosts = gramlm.extend.ProductCosts
Size = gramlm.extend.ProblemSize
MIB = 2**20
LIMITS = [1, 1000, 10**5, MIB, 32 * MIB, 2**31, 2**36, 2**60]


def size_of(n, p, **changes):
    defaults = {
        "itemsize": 8,
        "cheap_rows": True,
        "accelerator": False,
        "memory_limit": 2**31,
    }
    return Size(residuals=n, params=p, **{**defaults, **changes})


def chosen(size):
    return gramlm.AutoSolver().choose(size), gramlm.AutoMemory().choose(size)


@pytest.mark.parametrize(
    ("size", "solver", "memory"),
    [
        (size_of(10, 20), gramlm.DenseSolver, gramlm.Materialise),
        (size_of(512, 4000), gramlm.DenseSolver, gramlm.Materialise),
        (size_of(4000, 512), gramlm.DenseSolver, gramlm.Materialise),
        # K takes 2·m²·max(n, p) operations, and with cheap rows nothing else.
        (size_of(1000, 4999), gramlm.DenseSolver, gramlm.Materialise),
        (size_of(4999, 1000), gramlm.DenseSolver, gramlm.Materialise),
        (size_of(1000, 5001), gramlm.KrylovSolver, gramlm.Materialise),
        (size_of(5001, 1000), gramlm.KrylovSolver, gramlm.Materialise),
        (size_of(513, 4000, cheap_rows=False), gramlm.KrylovSolver, gramlm.Keep),
        (size_of(4000, 513, cheap_rows=False), gramlm.KrylovSolver, gramlm.Keep),
        (size_of(100_000, 100_000), gramlm.KrylovSolver, gramlm.RowBlocks),
        # J = 16 MiB, and the dense solver wants two of it and more.
        (size_of(512, 4096, memory_limit=80 * MIB), gramlm.DenseSolver, gramlm.Materialise),
        (size_of(512, 4096, memory_limit=30 * MIB), gramlm.KrylovSolver, gramlm.RowBlocks),
        (size_of(512, 2048, memory_limit=40 * MIB), gramlm.DenseSolver, gramlm.Materialise),
        (size_of(10, 20, cheap_rows=False), gramlm.DenseSolver, gramlm.Keep),
        (size_of(1000, 2000, cheap_rows=False), gramlm.KrylovSolver, gramlm.Keep),
        (size_of(10**5, 10**5, cheap_rows=False), gramlm.KrylovSolver, gramlm.Recompute),
        (size_of(1000, 10**6, cheap_rows=False), gramlm.KrylovSolver, gramlm.Recompute),
    ],
)  # fmt: skip
def test_each_branch(size, solver, memory):
    linear, policy = chosen(size)
    assert type(linear) is solver
    assert type(policy) is memory


def test_where_dense_ends_may_be_set():
    choose = gramlm.AutoSolver(dense_order=10, dense_operations=0).choose
    assert isinstance(choose(size_of(10, 4000)), gramlm.DenseSolver)
    assert isinstance(choose(size_of(11, 4000)), gramlm.KrylovSolver)
    choose = gramlm.AutoSolver(dense_order=0, dense_operations=1e6).choose
    assert isinstance(choose(size_of(100, 50)), gramlm.DenseSolver)
    assert isinstance(choose(size_of(100, 51)), gramlm.DenseSolver)
    assert isinstance(choose(size_of(100, 100)), gramlm.KrylovSolver)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    n=st.integers(1, 10**7),
    p=st.integers(1, 10**7),
    itemsize=st.sampled_from([4, 8]),
    cheap_rows=st.booleans(),
    accelerator=st.booleans(),
    costs=st.one_of(
        st.none(),
        st.builds(ProductCosts, st.floats(1e-9, 1e9), st.floats(0, 1e9), st.booleans()),
    ),
)
def test_no_memory_limit_gives_nonsense(n, p, **rest):
    before = None
    for limit in LIMITS:
        size = size_of(n, p, memory_limit=limit, **rest)
        linear, policy = chosen(size)
        if isinstance(policy, gramlm.RowBlocks):
            assert 1 <= policy.block_size <= (512 if policy.assemble else 4096)
        if isinstance(linear, gramlm.DenseSolver):
            assert 2 * size.jacobian_bytes <= limit
        if not isinstance(linear, gramlm.KrylovSolver):
            before = None
            continue
        assert 1 <= linear.capacity <= min(n, p)
        assert 1 <= linear.block_size <= 64
        assert linear.recycle_block == 0 or linear.block_size <= linear.recycle_block <= 256
        held = 4 * linear.capacity * min(n, p) * size.itemsize
        assert held <= limit or linear.capacity <= 32
        # More memory never makes anything smaller, except that J itself needs no large blocks.
        if before is not None:
            assert linear.capacity >= before[0].capacity
            if type(policy) is type(before[1]):
                assert linear.block_size >= before[0].block_size
                if isinstance(policy, gramlm.RowBlocks):
                    assert policy.block_size >= before[1].block_size
        before = linear, policy


def test_vectors_join_a_product_where_that_is_cheap():
    costs = [0.0, 0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 3.0]

    def solver(cost):
        return gramlm.AutoSolver().choose(
            size_of(10**4, 10**4, costs=ProductCosts(1.0, cost, True))
        )

    blocks = [solver(cost).block_size for cost in costs]
    assert blocks == sorted(blocks, reverse=True)
    assert blocks[0] == 64
    assert blocks[-2:] == [1, 1]
    assert solver(1.0).recycle_block == 0


def test_cheap_products_that_share_nothing_are_conjugate_gradients():
    def costs(seconds, vector=1.0):
        return ProductCosts(seconds, vector, False)

    def choice(n, p, *given):
        return type(gramlm.AutoSolver().choose(size_of(n, p, costs=costs(*given))))

    # 8 passes over 256 vectors of 10⁵ numbers, at 10 GB a second.
    assert choice(10**5, 10**6, 0.16) is gramlm.PreconditionedCG
    assert choice(10**5, 10**6, 0.17) is gramlm.KrylovSolver
    assert choice(10**6, 10**5, 0.5 * 1.8) is gramlm.PreconditionedCG
    assert choice(10**5, 10**6, 0.01, 0.05) is gramlm.KrylovSolver
    assert choice(100, 200, 0.0) is gramlm.DenseSolver
    # Sharing counts, not how many vectors there is memory for.
    assert choice(10**5, 3 * 10**6, 0.05, 0.0) is gramlm.KrylovSolver
    gpu = size_of(10**5, 10**6, costs=costs(0.01), accelerator=True)
    assert isinstance(gramlm.AutoSolver().choose(gpu), gramlm.KrylovSolver)
    unmeasured = size_of(10**5, 10**6)
    assert isinstance(gramlm.AutoSolver().choose(unmeasured), gramlm.KrylovSolver)


def test_row_blocks_hold_what_a_part_of_the_limit_holds():
    for limit in (MIB, 64 * MIB, 2**30):
        policy = gramlm.AutoMemory().choose(size_of(10**6, 10**5, memory_limit=limit))
        rows = policy.block_size * 10**5 * 8
        assert rows <= limit / 32 or policy.block_size == 8
    sparse = size_of(10**6, 10**5, costs=ProductCosts(1.0, 1.0, False))
    assert not gramlm.AutoMemory().choose(sparse).assemble


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, "1 GiB", None])
def test_a_bad_memory_limit_is_named(limit):
    with pytest.raises(Exception, match="memory_limit"):
        LM(memory_limit=limit)


CENTRES = jnp.linspace(-1.1, 1.1, 12)


def row(t, point):
    x, y = point
    return jnp.dot(t["w"], jnp.exp(-jnp.square((x - CENTRES) * 3))) - t["c"] * y


def slope(t, x):
    return jnp.stack([jnp.dot(t["w"], jnp.cos(CENTRES * x)), t["c"] - 1]) / 3


PARAMS = {"w": jnp.zeros(12), "c": jnp.asarray(0.5)}
X = jnp.linspace(-1, 1, 23)
POINTS = ((X, jnp.sin(3 * X)), X[:4] + 0.1)
ROWS = gramlm.Rows(row, slope)  # 23 and 2·4 residuals, 13 parameters


@pytest.mark.parametrize("limit", [1, 10**4, 2**31])
def test_a_plan_says_what_was_chosen_and_is_followed(limit):
    solver = LM(memory_limit=limit)
    plan = solver.plan(ROWS, PARAMS, POINTS)
    assert (plan.size.residuals, plan.size.params, plan.size.itemsize) == (31, 13, 8)
    assert plan.size.cheap_rows
    text = str(plan)
    for module in (plan.linear_solver, plan.memory):
        assert type(module).__name__ in text
        for field in dataclasses.fields(module):
            assert f"{field.name}={getattr(module, field.name)}" in text
    assert "n = 31, p = 13" in text
    following = solver.following(plan)
    assert following.linear_solver == plan.linear_solver
    assert following.memory == plan.memory
    assert following.plan(ROWS, PARAMS, POINTS).linear_solver == plan.linear_solver
    # A second plan is the same one, whatever was measured for the first.
    again = solver.plan(gramlm.Rows(row, slope), PARAMS, POINTS)
    assert str(again) == text


def test_what_is_given_is_not_chosen():
    given_ = LM(linear_solver=gramlm.KrylovSolver(7), memory=gramlm.RowBlocks(3), memory_limit=1)
    plan = given_.plan(ROWS, PARAMS, POINTS)
    assert plan.linear_solver == gramlm.KrylovSolver(7)
    assert plan.memory == gramlm.RowBlocks(3)
    plain = LM().plan(lambda t: t**2, jnp.ones(3))
    assert not plain.size.cheap_rows


class Halves(gramlm.extend.AbstractSolverChoice):
    """A choice of one's own."""

    def choose(self, size):
        return gramlm.KrylovSolver(block_size=max(size.order // 2, 1))


def test_a_choice_of_ones_own():
    plan = LM(linear_solver=Halves()).plan(ROWS, PARAMS, POINTS)
    assert plan.linear_solver == gramlm.KrylovSolver(block_size=6)


def test_the_solution_names_its_plan():
    solution = gramlm.solve(lambda t: t - 1, jnp.zeros(2))
    assert solution.plan == str(LM().plan(lambda t: t - 1, jnp.zeros(2)))


# Whatever is chosen, the solution is the same.
KRYLOV = gramlm.KrylovSolver(block_size=4)
CHOICES = {
    "materialise": (KRYLOV, gramlm.Materialise()),
    "blocks of 7": (KRYLOV, gramlm.RowBlocks(7)),
    "keep": (KRYLOV, gramlm.Keep()),
    "recompute": (KRYLOV, gramlm.Recompute()),
}


def solution_of(linear, memory):
    solver = LM(
        linear_solver=linear,
        memory=memory,
        forcing=gramlm.FixedForcing(1e-6, 1e-6),
        damping=gramlm.Nielsen(),  # a radius is met to a tenth, by each solver in its own way
        correction=None,
    )
    return gramlm.solve(ROWS, PARAMS, POINTS, solver=solver, max_steps=40)


@pytest.fixture(scope="module")
def by_dense():
    return solution_of(gramlm.DenseSolver(), gramlm.Materialise())


@pytest.mark.parametrize("name", CHOICES)
def test_all_choices_solve_alike(name, by_dense):
    solution = solution_of(*CHOICES[name])
    np.testing.assert_allclose(solution.stats["cost"], by_dense.stats["cost"], rtol=1e-9)
    steps = min(len(solution.history.cost), len(by_dense.history.cost), 5)
    np.testing.assert_allclose(
        solution.history.cost[:steps], by_dense.history.cost[:steps], rtol=1e-6
    )
    for found, expected in zip(
        jax.tree.leaves(solution.value), jax.tree.leaves(by_dense.value), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, 4, 5, 23, 100])
@pytest.mark.parametrize("assemble", [True, False])
def test_blocks_of_every_size_multiply_alike(count, assemble, rng):
    """Dividing the data sets or not: two functions, one of them with two residuals a point."""
    u, v = jnp.asarray(rng.normal(size=(3, 31))), jnp.asarray(rng.normal(size=(3, 13)))

    @eqx.filter_jit
    def products(policy):
        at = gramlm.linearise(ROWS, PARAMS, POINTS, memory=policy)
        return at.residual, at.jvp_block(v), at.vjp_block(u), at.jvp(v[0]), at.vjp(u[0])

    expected = products(gramlm.Materialise())
    policy = gramlm.RowBlocks(count, assemble)
    for found, wanted in zip(products(policy), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
    at = gramlm.linearise(ROWS, PARAMS, POINTS, memory=policy)
    wanted = gramlm.linearise(ROWS, PARAMS, POINTS, memory=gramlm.Materialise())
    np.testing.assert_allclose(wanted.jvp_block(v), v @ wanted.jacobian.T, rtol=1e-12)
    _, cost = at.column_norms_squared(jnp.asarray(0, jnp.int32), 4)
    assert cost >= 1


def test_a_policy_says_what_its_linearisation_cost():
    function, flat = canonical(ROWS, PARAMS, POINTS)
    plain, start = canonical(lambda t: jnp.outer(t, t)[0], jnp.ones(5))
    for policy, rows, each in (
        (gramlm.Materialise(), 2, 5),
        (gramlm.Keep(), 0, 0),
        (gramlm.Recompute(), 0, 0),
        (gramlm.RowBlocks(3), 0, 0),
    ):
        assert policy.linearise(policy.prepare(function), flat)[1] == rows
        assert policy.linearise(policy.prepare(plain), start)[1] == each


# Memory of a whole step, compiled but not run: J would take 61 MiB, K 15 MiB.
N, P, LIMIT = 2000, 8000, 32 * MIB


def step_memory(policy, linear):
    solver = LM(
        linear_solver=linear,
        memory=policy,
        memory_limit=LIMIT,
        metric=gramlm.IdentityMetric(),
        correction=None,
    )
    frequencies = jnp.linspace(1, 50, P, dtype=jnp.float32)

    def pointwise(t, point):
        return jnp.dot(t, jnp.sin(point[0] * frequencies)) - point[1]

    residual = gramlm.Rows(pointwise)
    params, points = jnp.zeros(P, jnp.float32), jnp.zeros((N, 2), jnp.float32)
    problem, flat = flat_problem(residual, params, points)
    state = jax.eval_shape(lambda: solver.init_flat(problem, flat))

    def step(params, state, points):
        return solver.step(residual, params, state, points)[:2]

    compiled = jax.jit(step).lower(params, state, points).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_a_step_stays_within_a_fraction_of_the_jacobian():
    size = size_of(N, P, itemsize=4, memory_limit=LIMIT)
    linear, policy = chosen(size)
    assert isinstance(policy, gramlm.RowBlocks)
    bounded = step_memory(policy, linear)
    assert bounded < 0.75 * LIMIT < 0.5 * size.jacobian_bytes
