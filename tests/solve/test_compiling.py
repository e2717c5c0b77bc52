"""The programs of a solve are compiled with options that this XLA knows, and with nobody else's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gramlm._solve import compiling
from gramlm._solve.program import Program, Split

LEVEL = {"xla_backend_optimization_level": 1}


@pytest.fixture
def options_of(monkeypatch):
    """What is asked for with these `XLA_FLAGS`, and with these wishes."""

    def ask(flags="", **wishes):
        monkeypatch.setenv("XLA_FLAGS", flags)
        monkeypatch.setattr(compiling, "_QUICK", wishes or compiling._QUICK)
        compiling.compiler_options.cache_clear()
        return dict(compiling.compiler_options())

    yield ask
    monkeypatch.undo()
    compiling.compiler_options.cache_clear()


def test_what_this_xla_does_not_know_is_left_out(options_of, monkeypatch):
    assert options_of(**LEVEL, xla_no_such_flag=3) == LEVEL
    assert options_of(**LEVEL) == LEVEL
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert options_of(**LEVEL) == {}


def test_what_the_user_has_set_is_left_to_them(options_of):
    wishes = LEVEL | {"xla_cpu_use_fusion_emitters": False}
    assert options_of("--xla_backend_optimization_level=3", **wishes) == {
        "xla_cpu_use_fusion_emitters": False
    }


def test_a_program_has_them_alone_and_none_within_a_transformation(options_of):
    options_of(**LEVEL)
    program = Program(lambda tree, given: tree["a"] * given)
    split = Split.of({"a": jnp.asarray(3.0), "name": "b"})
    assert program(split, jnp.asarray(2.0)) == 6.0

    def within(x):
        assert not compiling.outside()
        return program(split, x)

    np.testing.assert_allclose(jax.jit(within)(2.0), 6.0)
    np.testing.assert_allclose(jax.grad(within)(2.0), 3.0)
    np.testing.assert_allclose(jax.vmap(within)(jnp.asarray([2.0, 1.0])), [6.0, 3.0])
    assert compiling.outside()
