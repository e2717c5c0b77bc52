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
# products of matrices are not compiled but called. Measured by benchmarks of this package, with
# 200 000 data and with an ODE among them: less than half of the time to compile, and the same time
# a step, to 2 %. `xla_backend_optimization_level=0` would halve it again, and make steps slower by
# a third.
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
