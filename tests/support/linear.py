"""Linear problems with a known exact step, for the tests of the Krylov solvers."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

import gramlm
from support.problems import F32, F64, METRICS, dense

Form = gramlm.Form
SOLVER = gramlm.KrylovSolver(block_size=4, recycle_block=8)
CASES = {
    "wide": (20, 30, "identity", F64),
    "tall": (30, 20, "identity", F64),
    "square": (25, 25, "diagonal", F64),
    "wide, dense metric": (20, 30, "dense", F64),
    "tall, dense metric": (30, 20, "dense", F64),
    "wide, float32": (20, 30, "identity", F32),
    "tall, float32": (30, 20, "diagonal", F32),
}


def decaying(n, p, condition=1e2, rank=None, seed=0):
    """A Jacobian whose singular values fall geometrically from 1, and then to zero."""
    rng = np.random.default_rng(seed)
    k = min(n, p)
    u, v = (np.linalg.qr(rng.normal(size=(size, k)))[0] for size in (n, p))
    values = np.geomspace(1, 1 / condition, k) * (np.arange(k) < (rank or k))
    return u * values @ v.T


class Case(NamedTuple):
    """A linear problem; the reference is computed in float64 from the matrix as it was rounded."""

    jacobian: jax.Array
    b: jax.Array
    metric: lx.AbstractLinearOperator
    solver: gramlm.extend.AbstractGramSolver = SOLVER
    form: Form = Form.auto

    @classmethod
    def of(cls, name, **changes):
        n, p, metric, dtype = CASES[name]
        rng = np.random.default_rng(7)
        b = rng.normal(size=n)
        return cls.from_arrays(decaying(n, p), b, dtype, metric)._replace(**changes)

    @classmethod
    def from_arrays(cls, jacobian, b, dtype=F64, metric="identity", **changes):
        p = jacobian.shape[1]
        structure = jax.ShapeDtypeStruct((p,), dtype)
        operator = METRICS[metric](p, dtype) or lx.IdentityLinearOperator(structure)
        return cls(jnp.asarray(jacobian, dtype), jnp.asarray(b, dtype), operator, **changes)

    @property
    def whitened(self):
        """`A = J L⁻ᵀ`, with `M = L Lᵀ`, and the factor L."""
        p = self.jacobian.shape[1]
        identity = isinstance(self.metric, lx.IdentityLinearOperator)
        factor = np.linalg.cholesky(np.asarray(dense(None if identity else self.metric, p), float))
        return np.linalg.solve(factor, np.asarray(self.jacobian, float).T).T, factor

    @property
    def largest(self):
        return np.linalg.norm(self.whitened[0], ord=2) ** 2

    @property
    def recycled(self):
        return self.solver.init(self.b, jnp.zeros(self.jacobian.shape[1], self.b.dtype), self.form)

    def solve(self, damping, tolerance, rhs=None, work=None, recycled=None):
        """The step at λ = `damping`·λmax(K)."""
        recycled = self.recycled if recycled is None else recycled
        dtype = self.b.dtype
        largest = jnp.asarray(np.nan_to_num(self.largest, nan=1.0), dtype)
        if work is None:
            work = factorised(self, largest, recycled).work
        rhs = self.b if rhs is None else jnp.asarray(rhs, dtype)
        damping = jnp.asarray(damping, dtype) * largest
        return solved(self, largest, rhs, damping, jnp.asarray(tolerance, dtype), recycled, work)

    def exact(self, damping, rhs=None):
        """The step, by an orthogonal factorisation of `[A; √λ I]`, and the decrease it brings."""
        a, factor = self.whitened
        b = np.asarray(self.b if rhs is None else rhs, float)
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        damping = damping * self.largest
        y = -vt.T @ (s / (s**2 + damping) * (u.T @ b))
        return np.linalg.solve(factor.T, y), 0.5 * np.sum(s**2 / (s**2 + damping) * (u.T @ b) ** 2)

    def missed(self, step, damping, rhs=None):
        """The part of the decrease of `½‖b + Jδ‖² + ½λ‖δ‖²_M` that a step misses."""
        a, factor = self.whitened
        exact, decrease = self.exact(damping, rhs)
        off = factor.T @ (np.asarray(step, float) - exact)
        return 0.5 * (np.sum((a @ off) ** 2) + damping * self.largest * off @ off) / decrease


def factorised(case, largest, recycled):
    at = gramlm.extend.MaterialisedLinearisation(case.b, case.jacobian)
    return case.solver.factorise(at, case.metric, largest, case.form, recycled)


@eqx.filter_jit
def solved(case, largest, rhs, damping, tolerance, recycled, work):
    return factorised(case, largest, recycled).at(damping).solve(rhs, work, tolerance)


@eqx.filter_jit
def recycled_by(case, work, recycled):
    largest = jnp.ones((), case.b.dtype)
    return factorised(case, largest, recycled).recycle(work)


def norm(x):
    return np.linalg.norm(np.asarray(x, float))
