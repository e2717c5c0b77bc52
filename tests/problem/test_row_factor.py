"""Row factors multiply as their matrices do, and the identity is nothing."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from gramlm._problem.flat_loss import BlockFactor
from gramlm._problem.row_factor import (
    DiagonalFactor,
    InverseTriangle,
    OperatorFactor,
    ProductFactor,
    Unweighted,
    product,
)
from gramlm._problem.segment import Layout, SquaresSegment

VALUES = jnp.asarray([1.0, 2.0, 0.5])
TRIANGLE = jnp.asarray([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, -1.0, 4.0]])
MATRIX = jnp.asarray([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])

FACTORS = {
    "identity": (Unweighted(), np.eye(3)),
    "diagonal": (DiagonalFactor(VALUES), np.diag(VALUES)),
    "triangle": (InverseTriangle(TRIANGLE), np.linalg.inv(TRIANGLE)),
    "operator": (OperatorFactor(lx.MatrixLinearOperator(MATRIX)), MATRIX),
    "product": (
        ProductFactor(DiagonalFactor(VALUES), DiagonalFactor(VALUES)),
        np.diag(VALUES**2),
    ),
    # One block of the first two entries along (0.6, 0.8), and the third by itself.
    "blocks": (
        BlockFactor(
            weight=jnp.asarray([3.0, 3.0, 1.0]),
            turn=jnp.asarray([2.0, 2.0, 0.0]),
            unit=jnp.asarray([0.6, 0.8, 1.0]),
            segments=(
                SquaresSegment(start=0, stop=2, layout=Layout(1, 1, 1, 2)),
                SquaresSegment.of_range(2, 3),
            ),
        ),
        np.asarray([[3 - 2 * 0.36, -2 * 0.48, 0], [-2 * 0.48, 3 - 2 * 0.64, 0], [0, 0, 1]]),
    ),
}


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_multiplies_vectors_and_columns_by_its_matrix(name):
    factor, matrix = FACTORS[name]
    x = jnp.asarray([[1.0, -2.0], [3.0, 0.25], [-1.0, 5.0]])
    u = x[: matrix.shape[0]]
    np.testing.assert_allclose(factor.times(x), matrix @ x, rtol=1e-14)
    np.testing.assert_allclose(factor.times(x[:, 0]), matrix @ x[:, 0], rtol=1e-14)
    np.testing.assert_allclose(factor.transposed(u), matrix.T @ u, rtol=1e-14)
    np.testing.assert_allclose(factor.transposed(u[:, 1]), matrix.T @ u[:, 1], rtol=1e-14)


@pytest.mark.parametrize("name", FACTORS)
def test_a_diagonal_factor_knows_its_squares(name):
    factor, matrix = FACTORS[name]
    assert factor.diagonal == (name in ("identity", "diagonal", "product"))
    assert factor.identity == (name == "identity")
    weights = jnp.asarray([1.0, 0.0, 3.0])
    if factor.diagonal:
        np.testing.assert_allclose(factor.squares(weights), np.diag(matrix) ** 2 * weights)
        found = factor.squares(None)
        np.testing.assert_allclose(1.0 if found is None else found, np.diag(matrix) ** 2)
    else:
        with pytest.raises(TypeError, match="diagonal"):
            factor.squares(weights)


def test_only_an_operator_makes_other_rows():
    assert {name: factor.new_rows for name, (factor, _) in FACTORS.items()} == {
        **dict.fromkeys(FACTORS),
        "operator": 2,
    }


def test_the_identity_is_nothing_in_a_product():
    diagonal = DiagonalFactor(VALUES)
    assert product(Unweighted(), diagonal) is diagonal
    assert product(diagonal, Unweighted()) is diagonal
    assert product(Unweighted(), Unweighted()).identity
    assert product(diagonal, diagonal).squares(None).tolist() == [1.0, 16.0, 0.0625]


def test_the_identity_compiles_to_nothing():
    def several(x):
        one = Unweighted()
        return one.guarding(one.transposed(one.times(x)))

    assert jax.make_jaxpr(several)(VALUES).eqns == []


def test_rows_of_weight_zero_do_not_count():
    assert DiagonalFactor(jnp.asarray([1.0, 0.0, 2.0, 0.0])).count(4) == 2
    assert Unweighted().count(4) == InverseTriangle(jnp.eye(4)).count(4) == 4
