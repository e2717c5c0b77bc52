"""The linear step and the λ of a length, against NumPy, for random systems."""

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gramlm
from gramlm._linear.solver.dense import DenseFactorisation
from gramlm._linear.solver.spectral import SpectralFactorisation
from gramlm._model.whitening import whitening
from support.nasty import F32, F64, SEEDS, examples


class ByCholesky(gramlm.extend.AbstractGramSolver):
    """The way of the dense solver for large systems, taken for small ones."""

    def init(self, residual, params, form):
        return None

    def linearise(self, memory, function, params):
        return gramlm.DenseSolver().linearise(memory, function, params)

    def factorise(self, linearisation, metric, largest_eigenvalue, form, recycled):
        assert isinstance(linearisation, gramlm.extend.MaterialisedLinearisation)
        side, factor = form.resolve(*linearisation.jacobian.shape), whitening(metric)
        rows = factor.rows(linearisation.jacobian)
        gram = rows @ rows.T if side is gramlm.Form.dual else rows.T @ rows
        return DenseFactorisation(
            rows=rows,
            gram=gram,
            whitening=factor,
            rounding=largest_eigenvalue * jnp.finfo(rows.dtype).eps,
            form=side,
        )


class BySingularValues(gramlm.extend.AbstractGramSolver):
    """The way of the dense solver for few equations and many parameters."""

    def init(self, residual, params, form):
        return None

    def linearise(self, memory, function, params):
        return gramlm.DenseSolver().linearise(memory, function, params)

    def factorise(self, linearisation, metric, largest_eigenvalue, form, recycled):
        assert isinstance(linearisation, gramlm.extend.MaterialisedLinearisation)
        factor = whitening(metric)
        rows = factor.rows(linearisation.jacobian)
        return SpectralFactorisation.of(rows, factor, largest_eigenvalue)


SOLVERS = {
    "QR": gramlm.DenseSolver(),
    "singular values": BySingularValues(),
    "Cholesky": ByCholesky(),
    "Krylov": gramlm.KrylovSolver(block_size=4, recycle_block=4),
}
# The Krylov solver is compiled for seconds, and has float32 tests of its own.
ALL_SHAPES = [(3, 10), (12, 5), (7, 7)]
WIDE_SHAPES = [(3, 10), (7, 8)]
LINEAR_CASES = [
    ("QR", F64, ALL_SHAPES),
    ("QR", F32, ALL_SHAPES),
    ("singular values", F64, WIDE_SHAPES),
    ("singular values", F32, WIDE_SHAPES),
    ("Cholesky", F64, ALL_SHAPES),
    ("Cholesky", F32, ALL_SHAPES),
    ("Krylov", F64, ALL_SHAPES[:2]),
]


@eqx.filter_jit
def linear(solver, jacobian, b, weights, largest, damping, radius, guess, least):
    """The step at `damping`, and the λ of the length `radius`."""
    form = gramlm.Form.auto
    at = gramlm.extend.MaterialisedLinearisation(b, jacobian)
    recycled = solver.init(b, jnp.zeros_like(weights), form)
    metric = lx.DiagonalLinearOperator(weights)
    factors = solver.factorise(at, metric, largest, form, recycled)
    tolerance = jnp.asarray(1e-10 if b.dtype == F64 else 1e-4, b.dtype)
    step = factors.at(damping).solve(b, factors.work, tolerance)
    bound = gramlm.extend.LengthBound(b, metric, radius, guess, least, tolerance)
    found = factors.damping_within(bound, factors.work)
    return step.step, step.image, step.solved, found.damping


@st.composite
def systems(draw, shapes):
    """A linear system with numbers that float32 holds, and powers of two as scales."""
    n, p = draw(st.sampled_from(shapes))
    rng = np.random.default_rng(draw(SEEDS))
    rank = draw(st.integers(0, min(n, p)))
    condition = draw(st.sampled_from([1.0, 10.0, 1e3]))
    u, v = (np.linalg.qr(rng.normal(size=(size, min(n, p))))[0] for size in (n, p))
    values = np.geomspace(1, 1 / condition, min(n, p)) * (np.arange(min(n, p)) < rank)
    weights = np.asarray(10.0 ** rng.uniform(-1, 1, p), np.float32)
    jacobian = np.asarray(u * values @ v.T, np.float32)
    b = np.asarray(rng.normal(size=n), np.float32)
    scales = st.sampled_from([2.0**-20, 1.0, 2.0**20])
    damping = draw(st.sampled_from([1e-3, 1e-2, 0.3, 10.0]))
    part = draw(st.sampled_from([1e-3, 0.1, 0.9, 3.0]))
    guess = draw(st.sampled_from([1e-6, 1e-2, 100.0]))
    return jacobian, b, weights, draw(scales), draw(scales), damping, part, guess


def whitened(jacobian, weights):
    return np.asarray(jacobian, float) / np.sqrt(np.asarray(weights, float))


def length(a, b, damping):
    """`‖δ(λ)‖_M` by a singular value decomposition."""
    u, s, _ = np.linalg.svd(a, full_matrices=False)
    return np.linalg.norm(s / (s**2 + damping) * (u.T @ b))


@pytest.mark.parametrize(("name", "dtype", "shapes"), LINEAR_CASES)
def test_linear_steps_and_lengths_are_those_of_numpy(name, dtype, shapes):
    @examples(30)
    @given(systems(shapes))
    def check(system):
        jacobian, b, weights, scale, size, damping, part, guess = system
        a, right = whitened(jacobian, weights), np.asarray(b, float)
        largest = np.linalg.norm(a, ord=2) ** 2 or 1.0
        # In float32 a length by solves is lost for less: see the failure expected below.
        least = (1e-2 if name == "Cholesky" and dtype == F32 else 1e-4) * largest
        damping, guess, radius = (
            damping * largest,
            guess * largest,
            part * (length(a, right, least) or 1.0),
        )
        numbers = (largest, damping, guess, least)
        largest_, damping_, guess_, least_ = (
            jnp.asarray(x * scale * scale, dtype) for x in numbers
        )
        step, image, solved, found = linear(
            SOLVERS[name],
            jnp.asarray(jacobian, dtype) * dtype(scale),
            jnp.asarray(b, dtype) * dtype(size),
            jnp.asarray(weights, dtype),
            largest_,
            damping_,
            jnp.asarray(radius * size / scale, dtype),
            guess_,
            least_,
        )
        # Powers of two scale a step exactly.
        step, image = np.asarray(step, float) * scale / size, np.asarray(image, float) / size
        assert solved
        stacked = np.concatenate([a, np.sqrt(damping) * np.eye(a.shape[1])])
        exact = np.linalg.lstsq(stacked, np.append(-right, 0 * a[0]), rcond=None)[0]
        off = np.sqrt(np.asarray(weights, float)) * step - exact
        missed = np.sum((a @ off) ** 2) + damping * np.sum(off**2)
        # ½‖b‖² less the minimum of ½‖b + Jδ‖² + ½λ‖δ‖²_M
        decrease = -right @ (a @ exact)
        accuracy = 1e-14 if dtype == F64 else 1e-6
        assert missed <= accuracy * decrease
        error = np.linalg.norm(image - np.asarray(jacobian, float) @ step)
        assert error <= np.sqrt(accuracy) * np.linalg.norm(b)

        found = float(found) / scale / scale
        assert np.isfinite(found)
        assert found >= least * (1 - 1e-6)
        reached = length(a, right, found)
        slack = 1.001 if dtype == F64 else 1.01
        if not np.any(a):
            assert found <= max(guess, least) * 1.001  # any λ has the step zero
        elif part > 1:
            np.testing.assert_allclose(found, least, rtol=1e-5)
        else:
            assert abs(reached - radius) <= 0.1 * slack * radius

    check()


def test_a_length_by_solves_survives_a_small_damping_in_float32(rng):
    for _ in range(5):
        u, v = (np.linalg.qr(rng.normal(size=(7, 7)))[0] for _ in range(2))
        jacobian = np.asarray(u[:, :2] @ v[:, :2].T, np.float32)  # singular values 1, 1, 0, …
        b, weights = np.asarray(rng.normal(size=7), np.float32), jnp.ones(7, F32)
        radius = 1e-2 * length(whitened(jacobian, weights), np.asarray(b, float), 1e-4)
        numbers = (jnp.asarray(x, F32) for x in (1.0, 1e-2, radius, 1e-6, 1e-4))
        arrays = (jnp.asarray(jacobian), jnp.asarray(b), weights)
        found = linear(SOLVERS["Cholesky"], *arrays, *numbers)[-1]
        reached = length(np.asarray(jacobian, float), np.asarray(b, float), float(found))
        assert abs(reached - radius) <= 0.11 * radius


@pytest.mark.parametrize(("n", "p"), [(12, 5)])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_parameters_of_any_size_side_by_side(n, p, power, rng):
    """Columns of 1e21 and of 1, nearly dependent: what is rounding in one is not in all."""
    plain = rng.normal(size=(n, 1)) + 1e-4 * rng.normal(size=(n, p))
    columns = 10.0 ** np.linspace(-3, 21, p)
    b = rng.normal(size=n)
    weights = columns ** (2 * power)
    # In units of the columns' own: min ‖plain y + b‖² + λ‖D y‖².
    damper = np.sqrt(weights) / columns
    damping = 1e-9 / np.median(damper) ** 2
    stacked = np.concatenate([plain, np.sqrt(damping) * np.diag(damper)])
    exact = np.linalg.lstsq(stacked, np.append(-b, np.zeros(p)), rcond=None)[0]
    numbers = (1.0, damping, np.linalg.norm(damper * exact), 1e3 * damping, 0.0)
    arrays = (jnp.asarray(x) for x in (plain * columns, b, weights))
    step, _, solved, found = linear(
        gramlm.DenseSolver(), *arrays, *(jnp.asarray(x) for x in numbers)
    )
    assert solved
    error = np.linalg.norm(np.asarray(step) * columns - exact)
    assert error <= 1e-9 * np.linalg.norm(exact)
    np.testing.assert_allclose(found, damping, rtol=1e-2)
