"""The step protocol: what is accepted, what is not, and what is reported."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import gramlm
from support.problems import START, rosenbrock, sine, sine_problem

LM = gramlm.LevenbergMarquardt


def cost(residual):
    return 0.5 * float(jnp.sum(residual**2))


def loop(solver, residual_fn, params, steps, args=None):
    """The infos of several steps, and the parameters before each of them and at the end."""
    state = solver.init(residual_fn, params, args)
    step = eqx.filter_jit(solver.step)
    infos, points = [], [params]
    for _ in range(steps):
        params, state, info = step(residual_fn, params, state, args)
        infos.append(info)
        points.append(params)
    return infos, points


@pytest.mark.parametrize("correction", [None, gramlm.Geodesic()])
def test_diagnostics_are_what_they_say(correction):
    solver = LM(correction=correction, metric=gramlm.IdentityMetric())
    infos, points = loop(solver, rosenbrock, START, 6)
    for info, before, after in zip(infos, points, points[1:], strict=False):
        r, jacobian = rosenbrock(before), jax.jacfwd(rosenbrock)(before)
        np.testing.assert_allclose(info.cost_before, cost(r), rtol=1e-12)
        np.testing.assert_allclose(info.cost, cost(rosenbrock(after)), rtol=1e-12)
        gradient = jacobian.T @ r
        np.testing.assert_allclose(info.gradient_norm, jnp.linalg.norm(gradient), rtol=1e-10)
        largest = jnp.linalg.eigvalsh(jacobian @ jacobian.T)[-1]
        np.testing.assert_allclose(info.largest_eigenvalue, largest, rtol=0.1)
        cosines = gradient / jnp.linalg.norm(jacobian, axis=0) / jnp.linalg.norm(r)
        relative = jnp.max(jnp.abs(cosines))
        np.testing.assert_allclose(info.relative_gradient, relative, rtol=1e-10)
        assert info.trials >= 1
        assert info.trials <= info.evaluations <= 2 * info.trials
        assert info.products > 0
        assert info.linear_residual < 1e-12
        assert info.inner_iterations == 0
        assert not (info.used_acceleration and correction is None)
        if not info.accepted:
            continue
        assert info.cost == info.cost_candidate < info.cost_before
        np.testing.assert_allclose(info.step_norm, jnp.linalg.norm(after - before), rtol=1e-8)
        # The gain is measured against the decrease that the linear model promises for v.
        gram = jacobian @ jacobian.T + info.damping * jnp.eye(2)
        v = -jacobian.T @ jnp.linalg.solve(gram, r)
        promised = cost(r) - cost(r + jacobian @ v)
        np.testing.assert_allclose(info.gain_ratio, (cost(r) - info.cost) / promised, rtol=1e-6)
        if not info.used_acceleration:
            np.testing.assert_allclose(after, before + v, rtol=1e-8)


def wall(t, args=None):
    """NaN where the first parameter exceeds 1.5; its unconstrained minimum is beyond, at 2."""
    return jnp.where(t[0] < 1.5, 1.0, jnp.nan) * jnp.stack([t[0] - 2, t[1] - t[0]])


REJECTING = {
    "nothing is finite but the start": lambda t: jnp.where(jnp.all(t == START), 1.0, jnp.nan) * t,
    "every step is worse": lambda t: jnp.sin(t) + 10.0 * (~jnp.all(t == START)),
    "infinite beside the start": lambda t: t / jnp.where(jnp.all(t == START), 1.0, 0.0),
}


@pytest.mark.parametrize("name", REJECTING)
def test_a_rejected_step_leaves_the_parameters_untouched_bit_for_bit(name):
    (info,), (before, after) = loop(LM(max_trials=3), REJECTING[name], START, 1)
    assert not info.accepted
    assert np.asarray(before).tobytes() == np.asarray(after).tobytes()
    assert info.cost == info.cost_before
    assert np.isfinite(info.cost_before)
    assert info.trials == 3
    assert info.result == gramlm.RESULTS.running


def test_a_rejected_step_does_not_poison_the_ones_that_follow():
    solver = LM(damping=gramlm.Multiplicative(initial=1e-9), metric=gramlm.IdentityMetric())
    infos, points = loop(solver, wall, jnp.zeros(2), 15)
    assert any(info.trials > 1 for info in infos)
    assert all(bool(jnp.all(jnp.isfinite(point))) for point in points)
    assert all(np.isfinite(info.cost) and np.isfinite(info.damping) for info in infos)
    costs = [float(info.cost) for info in infos]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.2 * float(infos[0].cost_before)


@pytest.mark.parametrize("start", [-4.0, 4.0])
def test_the_largest_eigenvalue_of_a_single_parameter_is_exact(start):
    solver = LM(metric=gramlm.IdentityMetric())
    infos, _ = loop(solver, lambda t: jnp.stack([t[0] - 2, t[0] + 1]), jnp.asarray([start]), 2)
    np.testing.assert_allclose([info.largest_eigenvalue for info in infos], [2, 2], rtol=1e-12)


@pytest.mark.parametrize("start", [1.0, 0.0])
def test_a_region_that_is_never_finite_returns_the_finite_start(start):
    start = jnp.full(2, start)

    def island(t):
        return jnp.where(jnp.all(t == start), 1.0, jnp.nan) * (t + 1)

    solution = gramlm.solve(island, start, throw=False)
    np.testing.assert_array_equal(solution.value, start)
    assert solution.result == gramlm.RESULTS.nonfinite_trials
    assert np.isfinite(solution.stats["cost"])


@pytest.mark.parametrize(
    "residual",
    [
        lambda t: t * jnp.nan,
        lambda t: t / (t - START),
        lambda t: jnp.sqrt(t - START) + 1,  # finite, but its derivative is not
    ],
)
def test_a_start_that_is_not_finite_ends_at_once_untouched(residual):
    (info,), (before, after) = loop(LM(), residual, START, 1)
    assert info.result == gramlm.RESULTS.nonfinite_start
    assert info.criterion == gramlm.CRITERIA.none
    assert not info.accepted
    assert info.trials == 0
    assert np.asarray(before).tobytes() == np.asarray(after).tobytes()


def test_a_state_survives_a_batch_of_bad_data():
    problem = sine_problem(4, 6)
    features, target = problem.args
    solver = LM(metric=gramlm.MoreMetric())
    step = eqx.filter_jit(solver.step)
    params, state = problem.params, solver.init(sine, problem.params, problem.args)
    params, state, _ = step(sine, params, state, (features, target))
    params, state, info = step(sine, params, state, (features, target * jnp.nan))
    assert info.result == gramlm.RESULTS.nonfinite_start
    params, state, info = step(sine, params, state, (features, target))
    assert info.accepted
    assert info.cost < info.cost_before


def test_new_data_at_every_step_without_compiling_again():
    traces = 0

    def residual(t, args):
        nonlocal traces
        traces += 1
        return args[0] @ t - args[1]

    rng = np.random.default_rng(5)
    truth = jnp.arange(1.0, 4.0)
    solver, params = LM(), jnp.zeros(3)
    state, step = None, eqx.filter_jit(solver.step)
    counts = []
    for _ in range(5):
        features = jnp.asarray(rng.normal(size=(2, 3)))
        batch = (features, features @ truth)
        state = solver.init(residual, params, batch) if state is None else state
        before = params
        params, state, info = step(residual, params, state, batch)
        np.testing.assert_allclose(info.cost_before, cost(residual(before, batch)), rtol=1e-12)
        counts.append(traces)
    assert counts[1] - counts[0] == counts[-1] - counts[-2] == 1  # the check above, nothing else
    assert jnp.linalg.norm(params - truth) < 0.2 * jnp.linalg.norm(truth)
    assert state.step == 5


class Counts(eqx.Module):
    """What the solver below learns: solves with this Jacobian, and with those before it."""

    here: jax.Array
    before: jax.Array


class FixedFactorisation(gramlm.extend.AbstractFactorisation):
    rounding: jax.Array
    work: Counts

    def at(self, damping):
        return FixedSystem(damping)

    def damping_within(self, bound, work):
        return gramlm.extend.damping_by_solves(self, bound, work)

    def recycle(self, work):
        return work.here + work.before


class FixedSystem(gramlm.extend.AbstractDampedSystem):
    damping: jax.Array
    setup_products: int = 2

    def solve(self, rhs, work, tolerance):
        """Exact for the residual θ − 3, whose Jacobian is the identity."""
        step = -rhs / (1 + self.damping)
        zero = jnp.zeros((), jnp.int32)
        return gramlm.extend.LinearStep(
            step=step,
            image=step,
            relative_residual=jnp.zeros(()),
            iterations=zero + 7,
            products=zero + 11,
            solved=jnp.asarray(True),
            work=Counts(work.here + 1, work.before),
        )


class FixedSolver(gramlm.extend.AbstractGramSolver):
    def init(self, residual, params, form):
        return jnp.zeros((), jnp.int32)

    def linearise(self, memory, function, params):
        return memory.linearise(function, params)[0], 5

    def factorise(self, linearisation, metric, largest_eigenvalue, form, recycled):
        work = Counts(jnp.zeros((), jnp.int32), recycled)
        return FixedFactorisation(jnp.zeros_like(largest_eigenvalue), work)


class Ladder(gramlm.extend.AbstractDamping[jax.Array]):
    """1, 2, 3, … whatever happens."""

    def init(self, largest_eigenvalue):
        return jnp.ones_like(largest_eigenvalue)

    def propose(self, state, lengths):
        return lengths.at(state)

    def accepted(self, state, trial):
        return state + 1

    def rejected(self, state, trial):
        return state + 1

    def with_damping(self, state, damping):
        return damping


def test_solvers_and_damping_rules_of_ones_own():
    solver = LM(
        linear_solver=FixedSolver(),
        damping=Ladder(),
        metric=gramlm.IdentityMetric(),
        correction=None,
    )
    infos, points = loop(solver, lambda t: t - 3.0, jnp.zeros(2), 3)
    # 3 − 3·(1/2), then ·(2/3), then ·(3/4).
    expected = [0.0, 1.5, 2.0, 2.25]
    np.testing.assert_allclose([point[0] for point in points], expected, rtol=1e-14)
    assert [float(info.damping) for info in infos] == [1, 2, 3]
    assert [int(info.inner_iterations) for info in infos] == [7, 7, 7]
    # The first Jacobian is given more power iterations than those after it.
    products = [int(info.products) for info in infos]
    assert products[0] > products[1] == products[2] >= 5 + 2 + 11


@pytest.mark.parametrize("correction", [None, gramlm.Geodesic(10.0)])
def test_what_a_solver_learns_reaches_every_later_solve(correction):
    solver = LM(
        linear_solver=FixedSolver(),
        correction=correction,
        damping=Ladder(),
        max_trials=4,
    )
    params, step = jnp.full(2, 0.3), eqx.filter_jit(solver.step)
    state = solver.init(overshot, params)
    assert state.recycled == 0
    per_trial = 2 if isinstance(correction, gramlm.Geodesic) else 1
    solves = 0
    for _ in range(3):
        params, state, info = step(overshot, params, state)
        solves += per_trial * int(info.trials)
        assert state.recycled == solves
        assert info.inner_iterations == 7 * per_trial * info.trials
    assert solves > 3 * per_trial  # some trials were rejected


def overshot(t):
    return 10 * jnp.arctan(10 * t)


def test_vmap_over_starts_gives_what_a_loop_gives():
    solver = LM()
    starts = jnp.asarray([[-1.2, 1.0], [0.5, 0.5], [jnp.nan, 0.0]])

    def one_step(start):
        state = solver.init(rosenbrock, start)
        params, state, info = solver.step(rosenbrock, start, state)
        return params, state.probe, info.cost, info.damping, info.trials

    batch = eqx.filter_jit(jax.vmap(one_step))(starts)
    alone = eqx.filter_jit(one_step)
    for i, start in enumerate(starts):
        for together, single in zip(batch, alone(start), strict=True):
            np.testing.assert_allclose(together[i], single, rtol=1e-9)


@pytest.mark.parametrize(
    ("n", "p", "metric"), [(4, 7, gramlm.IdentityMetric()), (7, 4, gramlm.PowerMetric())]
)
def test_both_forms_take_the_same_steps(n, p, metric):
    problem = sine_problem(n, p)
    ends = []
    for form in (gramlm.Form.dual, gramlm.Form.normal):
        solver = LM(form=form, metric=metric)
        _, points = loop(solver, sine, problem.params, 3, problem.args)
        ends.append(points[-1])
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-8, atol=1e-9)


def test_the_form_is_that_of_the_smaller_system_unless_said_otherwise():
    form = gramlm.Form
    assert form.auto.resolve(3, 4) is form.auto.resolve(4, 4) is form.dual
    assert form.auto.resolve(5, 4) is form.normal
    assert form.dual.resolve(5, 4) is form.dual
    assert form.normal.resolve(3, 4) is form.normal


def test_damping_never_falls_below_its_floor():
    solver = LM(
        damping=gramlm.Multiplicative(decrease=1e-30),
        damping_floor=1e6,
        metric=gramlm.IdentityMetric(),
    )
    # A small system is factorised without squaring J, a larger one is not.
    for size, power in ((2, 2), (70, 1)):
        infos, _ = loop(solver, lambda t: jnp.sinh(t) - 3, jnp.ones(size), 3)
        rounding = jnp.finfo(float).eps ** power
        for info in infos[1:]:
            floor = 1e6 * rounding * info.largest_eigenvalue
            np.testing.assert_allclose(info.damping, floor, rtol=1e-12)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("linear_solver", "cholesky"),
        ("damping", 0.1),
        ("metric", jnp.eye(2)),
        ("correction", True),
        ("termination", 1e-6),
        ("memory", "keep"),
        ("form", "dual"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(field, value):
    with pytest.raises(Exception, match=field):
        LM(**{field: value})


def test_at_least_one_trial():
    with pytest.raises(ValueError, match="`max_trials` must be at least 1; got 0"):
        LM(max_trials=0)


def test_a_lineax_solver_is_wrapped():
    assert isinstance(LM(linear_solver=lx.LU()).linear_solver, gramlm.LineaxSolver)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_root_at_zero_is_a_success_though_its_squares_underflow(dtype):
    matrix = jnp.asarray([[2.0, 1.0], [1.0, 3.0], [0.5, -1.0]], dtype)
    solution = gramlm.solve(lambda t: matrix @ t, jnp.asarray([1.0, -2.0], dtype))
    assert jnp.max(jnp.abs(solution.value)) < 1e-15
