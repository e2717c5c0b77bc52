"""Every Python block of the README and of the documentation runs."""

import re
import sys
import types
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"<!-- command: (\w+) -->\n+```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[tuple[int, str]]:
    """The fenced Python blocks of a page, each with the number of lines above its code."""
    return [(text.count("\n", 0, m.start(1)), m.group(1)) for m in _BLOCK.finditer(text)]


PAGES_WITH_CODE = [page for page in PAGES if python_blocks(page.read_text(encoding="utf-8"))]


@pytest.fixture
def page_module(monkeypatch: pytest.MonkeyPatch):
    # A real module, since dataclasses and type checkers look a class up in that of its name.
    module = types.ModuleType("documentation_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    x64 = jax.config.read("jax_enable_x64")
    yield module
    jax.config.update("jax_enable_x64", x64)


@pytest.mark.parametrize(
    "page", PAGES_WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_python_blocks_run(page: Path, page_module: types.ModuleType, capsys):
    # A page that wants float64 asks for it, as its reader has to.
    jax.config.update("jax_enable_x64", False)
    for line, code in python_blocks(page.read_text(encoding="utf-8")):
        source = "\n" * line + code  # so that a traceback shows the line of the page
        exec(compile(source, str(page), "exec"), vars(page_module))


def test_readme_has_its_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = dict(_COMMAND.findall(text))
    assert list(commands) == ["run", "test"]
    assert text.count("```sh") == len(commands)
    for command in commands.values():
        assert command.strip().count("\n") == 0
        assert command.startswith("python3 -m venv .venv && ")
