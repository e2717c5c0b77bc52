"""Trees survive being packed, within programs, outside of them, and many at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gramlm
from gramlm._solve.packed import Packed

TREE = {
    "cost": jnp.asarray(2.5),
    "flat": jnp.arange(3.0),
    "half": jnp.asarray(0.5, jnp.float32),
    "result": gramlm.RESULTS.stalled,
    "steps": (jnp.asarray(7), jnp.asarray(True), jnp.asarray(-1.0)),
    "empty": None,
    "key": jax.random.key(3),
}


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert bool(jnp.all(x == y))


def test_scalars_of_one_dtype_travel_together_and_the_rest_as_it_is():
    packed = Packed.of(TREE)
    lengths = {str(vector.dtype): len(vector) for vector in packed.vectors}
    assert lengths == {"bool": 1, "float32": 1, "float64": 2, "int32": 1, "int64": 1}
    assert [array.shape for array in packed.arrays] == [(3,), ()]
    same(packed.tree(), TREE)


def test_a_program_takes_and_returns_them():
    @jax.jit
    def doubled(packed):
        tree = packed.tree()
        return Packed.of(tree | {"cost": 2 * tree["cost"]})

    packed = Packed.of(TREE)
    for _ in range(2):
        packed = doubled(packed)
    same(packed.tree(), TREE | {"cost": jnp.asarray(10.0)})
    assert doubled._cache_size() <= 2  # arrays of NumPy's, and of JAX


def test_many_at_once_have_their_axis_in_front():
    packed = jax.vmap(lambda x: Packed.of({"a": x, "b": x[0], "c": -x[1]}))(
        jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    )
    tree = packed.tree()
    np.testing.assert_array_equal(tree["b"], [1, 3, 5])
    np.testing.assert_array_equal(tree["c"], [-2, -4, -6])
    assert tree["a"].shape == (3, 2)


@pytest.mark.parametrize("tree", [{}, {"flat": jnp.arange(2)}, {"cost": jnp.asarray(1.0)}])
def test_nothing_and_little_can_be_packed(tree):
    same(Packed.of(tree).tree(), tree)
