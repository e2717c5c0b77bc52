"""Every Python block of the README and of the documentation runs."""

import re
from pathlib import Path

import pytest

from support.examples import page_blocks, reader

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_COMMAND = re.compile(r"<!-- command: (\w+) -->\n+```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

PAGES_WITH_CODE = [page for page in PAGES if page_blocks(page)]


@pytest.mark.parametrize(
    "page", PAGES_WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_python_blocks_run(page: Path, capsys):
    # A page that wants float64 asks for it, as its reader has to.
    with reader("documentation_page") as module:
        for block in page_blocks(page):
            block.run(module)


def test_readme_has_its_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = dict(_COMMAND.findall(text))
    assert list(commands) == ["run", "test"]
    assert text.count("```sh") == len(commands)
    for command in commands.values():
        assert command.strip().count("\n") == 0
        assert command.startswith("python3 -m venv .venv && ")
