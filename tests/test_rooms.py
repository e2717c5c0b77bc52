"""The rooms of the package stand above one another, and imports run downward only."""

import ast
from pathlib import Path

import pytest

import gramlm

PACKAGE = Path(gramlm.__file__).parent

# Public names, and the entry of the main job: above all rooms.
STREET = ("__init__", "__main__", "diagnostics", "extend", "uncertainty")

# From the street down to the ground. A room may import from those after it.
ROOMS = (
    "_demo",
    "_analysis",
    "_solve",
    "_step",
    "_linear",
    "_model",
    "_problem",
    "_core",
)


def _modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, `_step.point` for example."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts): path for name, path in paths.items()}


def imports_of(name: str, source: str) -> set[str]:
    """The dotted names, without that of the package, of what a module imports from it.

    Imports within functions count, and those that only a type checker reads.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {name.partition(".")[2] for name in names if name.split(".")[0] == "gramlm"}
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 0:
            package, _, module = (node.module or "").partition(".")
            if package != "gramlm":
                continue
            base = module
        else:
            above = name.split(".")[: -node.level]
            base = ".".join([*above, *([node.module] if node.module else [])])
        found |= {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
    return found


def upward(name: str, source: str) -> set[str]:
    """What a module imports from a room above its own, or from the street."""
    room = name.split(".")[0]
    if room not in ROOMS:
        return set()
    rank = ROOMS.index(room)
    below = ROOMS[rank:]
    return {other for other in imports_of(name, source) if other.split(".")[0] not in below}


@pytest.mark.parametrize("name", sorted(_modules()))
def test_imports_run_downward(name):
    path = _modules()[name]
    assert name.split(".")[0] in (*ROOMS, *STREET), "a module outside of the rooms"
    assert not upward(name, path.read_text())


def test_the_modules_of_a_room_do_not_import_in_circles():
    modules = _modules()
    edges = {
        name: {
            found
            for other in imports_of(name, path.read_text())
            for found in (other, other.rpartition(".")[0])
            if found in modules and found != name
        }
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in modules:
        visit(name, ())


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("from .._solve.solve import solve", {"_solve.solve.solve"}),
        ("from . import point", set()),
        ("from .rules.damping import base", set()),
        ("import gramlm._analysis.plot", {"_analysis.plot"}),
        ("from gramlm import solve", {"solve"}),
        ("from .. import __version__", {"__version__"}),
        ("def f():\n    from .._demo import cli", {"_demo.cli"}),
        ("from .._core.arrays import Scalar\nimport jax", set()),
    ],
)
def test_an_upward_import_is_caught(source, caught):
    assert upward("_step.state", source) == caught
