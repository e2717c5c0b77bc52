"""How the programs of a solve are compiled."""

import os
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # where JAX has it elsewhere
    from jax.core import get_opaque_trace_state  # pyright: ignore[reportAttributeAccessIssue]

# What XLA is asked for on a CPU, by the names of its flags. The programs of a solve are long, and
# most of their time goes into products of matrices, which are called and not compiled. Measured on
# an exponential fit, residuals of 200 000 data, an ODE, networks and kernels: half of the time to
# compile or less, and steps as fast, at worst slower by a twelfth (an RBF network). At level 0 they
# compile in two thirds of that, and steps take a third to four times longer.
_QUICK = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_backend_optimization_level": 1,
    "xla_cpu_parallel_codegen_split_count": 1,
}

_OUTSIDE = get_opaque_trace_state()


def outside() -> bool:
    """Whether nothing is being transformed now, so that all values are known.

    False may also be said where all are.
    """
    return get_opaque_trace_state() == _OUTSIDE


@cache
def compiler_options() -> tuple[tuple[str, Any], ...]:
    """Options for `jax.jit`, as pairs: those of `_QUICK` that this XLA knows, and that `XLA_FLAGS`
    leaves open; none on other devices than a CPU.
    """
    if jax.default_backend() != "cpu":
        return ()
    set_already = os.environ.get("XLA_FLAGS", "")
    options = {name: value for name, value in _QUICK.items() if name not in set_already}
    if not _known(options):
        options = {name: value for name, value in options.items() if _known({name: value})}
    return tuple(options.items())


def _known(options: dict[str, Any]) -> bool:
    # XLA says so when it compiles; the least of programs takes a hundredth of a second.
    program = jax.jit(lambda x: x, compiler_options=options)
    try:
        program.lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except Exception:
        return False
    return True
