"""What work costs adds up."""

import jax
import jax.numpy as jnp

from gramlm._core.spent import Spent


def told(spent):
    return int(spent.evaluations), int(spent.iterations), int(spent.products)


def test_each_number_is_added_to_its_like():
    assert told(Spent(1, 20, 300) + Spent(4, 50, 600)) == (5, 70, 900)


def test_what_is_not_said_is_nothing():
    assert told(Spent()) == (0, 0, 0)
    assert told(Spent(evaluations=1) + Spent(iterations=2) + Spent(products=3)) == (1, 2, 3)
    assert told(sum([Spent(1, 2, 3)] * 3, Spent())) == (3, 6, 9)


def test_numbers_of_python_and_of_a_program_give_one_structure():
    """Loops carry it, so that its dtypes do not depend on where the numbers come from."""
    mixed = Spent(1, jnp.asarray(2, jnp.int64), 3) + Spent(products=1)
    assert jax.tree.structure(mixed) == jax.tree.structure(Spent())
    assert {(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(mixed)} == {((), "int32")}
    assert told(mixed) == (1, 2, 4)
