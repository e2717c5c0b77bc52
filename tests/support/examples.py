"""Fenced Python blocks in prose, and how they are run."""

import ast
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax

# The same indentation before both fences, since those of a docstring stand below an admonition.
_BLOCK = re.compile(r"^([ ]*)```python[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


class Block(NamedTuple):
    """A block of code: where it stands, and `line`: the number of lines above it there."""

    path: Path
    line: int
    code: str

    def run(self, module: types.ModuleType) -> None:
        """Runs it with the names of a module, which it adds to."""
        source = "\n" * self.line + self.code  # so that a traceback shows the line of the file
        exec(compile(source, str(self.path), "exec"), vars(module))


def _blocks(path: Path, text: str, above: int = 0) -> list[Block]:
    return [
        Block(path, above + text.count("\n", 0, m.start(2)), textwrap.dedent(m.group(2)))
        for m in _BLOCK.finditer(text)
    ]


def page_blocks(path: Path) -> list[Block]:
    """The Python blocks of a page."""
    return _blocks(path, path.read_text(encoding="utf-8"))


def docstring_blocks(path: Path, source: str) -> dict[str, list[Block]]:
    """The Python blocks in the docstrings of a module, by the dotted name of what they document."""
    found: dict[str, list[Block]] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, _DOCUMENTED):
                here = f"{name}.{child.name}".lstrip(".") if hasattr(child, "name") else ""
                text = ast.get_docstring(child, clean=False)
                if text is not None:
                    blocks = _blocks(path, text, child.body[0].lineno - 1)
                    if blocks:
                        found[here] = blocks
                visit(child, here)

    visit(ast.Module([ast.parse(source)], []), "")
    return found


@contextmanager
def reader(name: str) -> Iterator[types.ModuleType]:
    """A module of someone who tries an example, with JAX as it is after its import."""
    # A real module, since dataclasses and type checkers look a class up in that of its name.
    module = types.ModuleType(name)
    x64 = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", False)
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]
        jax.config.update("jax_enable_x64", x64)
