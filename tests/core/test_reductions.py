"""Sums, norms and maxima over residuals or parameters, and that they are taken in one place."""

import ast
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._core import reductions as red

PACKAGE = Path(gramlm.__file__).parent

# Reductions of NumPy's names, which over residuals or parameters belong into `_core.reductions`.
REDUCTIONS = {
    "all", "amax", "amin", "any", "argmax", "argmin", "average", "count_nonzero", "dot", "einsum",
    "inner", "matmul", "max", "mean", "min", "nanmax", "nanmin", "nansum", "norm", "prod", "std",
    "sum", "tensordot", "var", "vdot",
}  # fmt: skip

# What reduces something else, by module.
OTHER_AXES = {
    "_linear.algebra.basis": "vectors of a basis",
    "_linear.algebra.finish": "vectors of a basis",
    "_linear.algebra.growth": "vectors of a basis",
    "_linear.algebra.low_rank": "vectors of a basis",
    "_linear.algebra.secular": "eigenvalues",
    "_linear.preconditioner.block_jacobi": "residuals of one block",
    "_linear.solver.pcg": "leaves of a state",
    "_step.candidate": "steps that are tried",
    "_step.state": "leaves of a state",
    "_step.verdict": "conditions",
    "_analysis.diagnostics": "eigenvalues and probes",
    "_analysis.krylov": "vectors of a block",
}

# Rooms that are not looked at.
OTHER_ROOMS = ("_demo", "_solve", "_analysis.covariance", "_problem")


def reductions_of(source: str) -> set[str]:
    """The reductions of `jax.numpy` that a module calls."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = ast.unparse(node.func.value)
        if owner in ("jnp", "jnp.linalg", "jax.numpy") and node.func.attr in REDUCTIONS:
            found.add(node.func.attr)
    return found


def _modules() -> dict[str, Path]:
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts): path for name, path in paths.items()}


@pytest.mark.parametrize("name", sorted(_modules()))
def test_reductions_stand_in_one_place(name):
    if name == "_core.reductions" or name in OTHER_AXES or name.startswith(OTHER_ROOMS):
        return
    assert not reductions_of(_modules()[name].read_text())


def test_what_is_excused_has_something_to_excuse():
    modules = _modules()
    for name in OTHER_AXES:
        assert name.startswith(OTHER_ROOMS) or reductions_of(modules[name].read_text())


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("jnp.sum(x)", {"sum"}),
        ("jnp.linalg.norm(x) + jax.numpy.vdot(a, b)", {"norm", "vdot"}),
        ("jnp.maximum(a, b) + sum(x) + np.sum(x)", set()),
    ],
)
def test_a_reduction_is_seen(source, caught):
    assert reductions_of(source) == caught


def test_by_hand():
    x = jnp.asarray([3.0, 0.0, -4.0])
    assert red.sum_squares(x) == 25
    assert red.norm(x) == 5
    assert red.dot(x, x + 1) == 24
    assert red.largest(x) == 3
    assert red.magnitude(x) == 4
    assert red.count(x != 0) == 2
    assert not red.is_zero(x)
    assert red.is_zero(0 * x)
    assert red.all_finite(x)
    assert not red.all_finite(x.at[0].set(jnp.inf))


def test_what_is_not_finite_is_not_overlooked():
    x = jnp.asarray([1.0, jnp.nan, 2.0])
    assert jnp.isnan(red.magnitude(x))
    assert jnp.isnan(red.largest(x))
    assert not red.is_zero(x)


def test_rows_and_columns_by_hand():
    matrix = jnp.asarray([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(red.row_sum_squares(matrix), [25, 0])
    np.testing.assert_array_equal(red.row_magnitudes(matrix), [4, 0])
    np.testing.assert_array_equal(red.nonzero_rows(matrix), [True, False])
    np.testing.assert_array_equal(red.column_sum_squares(matrix), [9, 0, 16])
    np.testing.assert_array_equal(red.column_lengths(1e200 * matrix), [3e200, 0, 4e200])
    assert red.sum_all_squares(matrix) == 25
