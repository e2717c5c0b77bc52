"""The loss of a whole residual: squares, and segments that differ."""

import jax
import jax.numpy as jnp
import numpy as np

import gramlm
from gramlm._problem.flat_loss import FlatLoss, Squares
from gramlm._problem.segment import Layout, LossSegment, SquaresSegment

BEFORE = jnp.asarray([3.0, -4.0, 0.5, 2.0])
AFTER = jnp.asarray([1.0, 2.0, 0.5, -1.0])
JACOBIAN = jnp.asarray([[1.0, 2.0], [0.0, 1.0], [-1.0, 3.0], [2.0, 2.0]])


def huber_after(start):
    """Squares up to `start`, and Huber's loss with scale 1 from there on."""
    layout = Layout(1, 1, 4 - start, 1)
    huber = LossSegment(start=start, stop=4, layout=layout, loss=gramlm.Huber(1.0))
    return FlatLoss((SquaresSegment.of_range(0, start), huber))


def test_squares_cost_half_of_their_sum():
    loss = Squares()
    assert loss.cost(BEFORE) == 0.5 * (9 + 16 + 0.25 + 4)
    assert loss.decrease(BEFORE, AFTER) == 0.5 * (29.25 - 6.25)
    assert loss.divided(jnp.asarray(2.0)) is loss


def test_squares_change_nothing():
    corrected, factor = Squares().corrected(BEFORE)
    assert corrected is BEFORE
    assert factor.identity


def test_squares_are_blocks_by_themselves():
    blocks = Squares().blocks(BEFORE, BEFORE, JACOBIAN)
    np.testing.assert_array_equal(blocks.sizes, [3.0, 4.0, 0.5, 2.0])
    np.testing.assert_array_equal(blocks.rows, [[1, 2], [0, -1], [-1, 3], [2, 2]])
    np.testing.assert_array_equal(blocks.excess, 0)
    np.testing.assert_array_equal(blocks.sizes @ blocks.rows, BEFORE @ JACOBIAN)


def test_squares_segments_are_squares():
    segments = FlatLoss((SquaresSegment.of_range(0, 1), SquaresSegment.of_range(1, 4)))
    assert segments.cost(BEFORE) == Squares().cost(BEFORE)
    assert segments.decrease(BEFORE, AFTER) == Squares().decrease(BEFORE, AFTER)
    corrected, factor = segments.corrected(BEFORE)
    np.testing.assert_array_equal(corrected, BEFORE)
    np.testing.assert_array_equal(factor.times(JACOBIAN), JACOBIAN)


def test_segments_add_up():
    # Squares of 3 and −4; Huber's of ½, below its scale 1, and of 2, 2·2 − 1.
    loss = huber_after(2)
    assert loss.cost(BEFORE) == 0.5 * (9 + 16 + 0.25 + 3)
    assert loss.decrease(BEFORE, AFTER) == 0.5 * (25 - 5 + 3 - 1)


def test_a_divided_loss_is_divided_by_the_square():
    scale = jnp.asarray(8.0)
    for loss in (Squares(), huber_after(2), FlatLoss((l1_segment(),))):
        of_divided = loss.divided(scale).cost(BEFORE / scale)
        np.testing.assert_allclose(of_divided * scale**2, loss.cost(BEFORE), rtol=1e-14)


def l1_segment():
    return LossSegment(start=0, stop=4, layout=Layout(1, 1, 4, 1), loss=gramlm.L1(0.1))


def test_no_equation_is_compiled_for_what_is_not_there():
    def corrected(r):
        r, factor = Squares().divided(jnp.asarray(2.0)).corrected(r)
        return factor.times(r)

    assert jax.make_jaxpr(corrected)(BEFORE).eqns == []
