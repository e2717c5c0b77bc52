"""What a flat problem asks of a loss, and what it gets where only ρ is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._problem.build import flat_problem
from gramlm._problem.loss import UserLoss, known

SCALE = jnp.asarray(4.0)


class Quartic(gramlm.extend.AbstractLoss):
    """`s + s²`, by the one method that a loss of a user's needs."""

    slope: float = 1.0

    def rho(self, squares):
        # A Python number stays one, whatever is compiled.
        return squares * self.slope + squares**2 if self.slope > 0 else squares


def test_a_loss_of_the_package_is_known_as_it_is():
    huber = gramlm.Huber(0.5)
    assert known(huber) is huber
    assert isinstance(known(Quartic()), UserLoss)


def test_a_scale_is_divided_as_the_residual_is():
    loss, unit = gramlm.Huber(2.0).divided(SCALE)
    assert unit is None
    assert loss.scale == 0.5


@pytest.mark.parametrize("loss", [gramlm.L1(0.1), known(Quartic())])
def test_a_loss_without_a_scale_gets_residuals_in_their_unit(loss):
    assert loss.divided(SCALE) == (loss, SCALE)


def test_blocks_are_divided_as_the_loss_within():
    loss, unit = gramlm.PerBlock(gramlm.Huber(2.0), 3).divided(SCALE)
    assert (loss.size, loss.loss.scale, unit) == (3, 0.5, None)
    loss, unit = gramlm.PerBlock(Quartic(), 3).divided(SCALE)
    assert (loss.size, unit) == (3, SCALE)


def test_scales_are_spread_over_the_residuals_or_their_blocks():
    array = jax.ShapeDtypeStruct((2, 6), jnp.float64)
    rows = jnp.asarray([[1.0], [2.0]])
    assert gramlm.Huber(rows).fitted(array).scale.tolist() == [1.0] * 6 + [2.0] * 6
    each = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    blocks = gramlm.PerBlock(gramlm.Huber(each), 3).fitted(array)
    assert blocks.loss.scale.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert gramlm.Huber(3.0).fitted(array).scale == 3.0


def test_numbers_become_arrays_but_those_of_the_user():
    array = gramlm.PerBlock(gramlm.Huber(0.5), 2).with_arrays().loss.scale
    assert isinstance(array, jax.Array)
    assert array.weak_type
    assert isinstance(gramlm.L1(0.5).with_arrays().smoothing, jax.Array)
    quartic = Quartic()
    assert known(quartic).with_arrays() is quartic


def test_a_user_writes_rho_alone():
    def residual(params):
        return jnp.asarray([1.0, 3.0]) * params - 2.0

    problem, flat = flat_problem(gramlm.Problem(residual, loss=Quartic()), jnp.asarray(1.0))
    # Residuals −1 and 1: squares 1, ρ 2 each.
    assert problem.cost(problem.residual(flat)) == 2.0
    found = gramlm.solve(residual, jnp.asarray(1.0), loss=Quartic())
    slope = jax.grad(lambda q: jnp.sum(Quartic().rho(residual(q) ** 2)))
    np.testing.assert_allclose(slope(found.value), 0, atol=1e-6)
