"""Settings shared by all tests: float64, runtime types, seeds, and the `gpu` marker."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

# The tests compile thousands of small programs and run each a few times: compiling them with less
# care takes a third off the whole. `XLA_FLAGS` of one's own, empty ones too, are left alone.
_QUICK_COMPILATION = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1"
    " --xla_cpu_parallel_codegen_split_count=1"
)


def _xla_takes(flags: str) -> bool:
    """Whether this version of XLA knows `flags`: one that it does not know aborts the process."""
    tried = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


# Processes of pytest-xdist inherit what the first one sets here.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = _QUICK_COMPILATION if _xla_takes(_QUICK_COMPILATION) else ""

jax.config.update("jax_enable_x64", True)

# Every annotation of the package, shapes included, is checked while it is tested: all of it is
# imported here, where names would wait until they are asked for.
os.environ["EAGER_IMPORT"] = "1"
with install_import_hook("gramlm", "beartype.beartype"):
    import gramlm  # noqa: F401
del os.environ["EAGER_IMPORT"]


def _has_gpu() -> bool:
    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


def pytest_collection_modifyitems(items):
    marked = [item for item in items if "gpu" in item.keywords]
    if marked and not _has_gpu():
        skip = pytest.mark.skip(reason="needs a GPU")
        for item in marked:
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Compiled programs of a file go with it: a process may map only so many pieces of memory."""
    yield
    jax.clear_caches()


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed, anew for each test."""
    return np.random.default_rng(20240229)


@pytest.fixture
def getkey():
    """Random keys, the same ones in each run of a test."""
    key = jax.random.key(20240229)

    def draw():
        nonlocal key
        key, sub = jax.random.split(key)
        return sub

    return draw
