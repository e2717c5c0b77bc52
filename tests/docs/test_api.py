"""Every public name has its place in docs/api, and nothing is there that is not public."""

import re
from pathlib import Path
from types import ModuleType

import pytest

import gramlm

API = Path(__file__).resolve().parents[2] / "docs" / "api"
GROUPS = {"gramlm": gramlm} | {
    f"gramlm.{name}": getattr(gramlm, name) for name in ("extend", "diagnostics", "uncertainty")
}


def _public() -> set[str]:
    names = {f"gramlm.{name}" for name in gramlm.__all__ if not name.startswith("__")}
    names -= set(GROUPS)
    for path, group in GROUPS.items():
        if group is not gramlm:
            # The hook that checks types while testing leaves a module there.
            here = {name for name, x in vars(group).items() if not isinstance(x, ModuleType)}
            names |= {f"{path}.{name}" for name in here if not name.startswith("_")}
    return names


def _documented() -> list[str]:
    pages = "\n".join(page.read_text() for page in sorted(API.glob("*.md")))
    return re.findall(r"^::: (\S+)", pages, flags=re.MULTILINE)


def test_every_public_name_is_documented_once():
    documented = _documented()
    assert len(documented) == len(set(documented))
    assert set(documented) == _public()


@pytest.mark.parametrize("path", GROUPS)
def test_a_group_lists_what_it_has(path):
    group = GROUPS[path]
    for name in dir(group):
        if not name.startswith("_"):
            assert getattr(group, name) is not None


def test_a_name_is_found_when_it_is_first_asked_for():
    with pytest.raises(AttributeError, match="solver_of_everything"):
        gramlm.solver_of_everything  # noqa: B018
