"""Every example in a docstring runs by itself, and what needs one has one."""

from pathlib import Path

import pytest

import gramlm
from support.examples import docstring_blocks, reader

PACKAGE = Path(gramlm.__file__).parent
EXAMPLES = {
    (path, name): blocks
    for path in sorted(PACKAGE.rglob("*.py"))
    for name, blocks in docstring_blocks(path, path.read_text(encoding="utf-8")).items()
}

# Public things whose use is not evident from their fields or arguments.
NEEDED = {
    *("solve", "LevenbergMarquardt", "Termination", "TrustRegion", "Geodesic", "Checkpoints"),
    *("Problem", "Rows", "Huber", "NoiseCovariance"),
    *("linearise", "GramOperator", "FletcherMetric"),
    *("DenseSolver", "KrylovSolver", "PreconditionedCG", "Nystrom"),
    *("covariance", "spectrum", "plot_history"),
}


@pytest.mark.parametrize("blocks", EXAMPLES.values(), ids=[name for _, name in EXAMPLES])
def test_examples_run(blocks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # for those that write files
    monkeypatch.setenv("MPLBACKEND", "agg")
    for block in blocks:
        with reader("docstring_example") as module:
            block.run(module)


def test_what_needs_an_example_has_one():
    assert not NEEDED - {name for _, name in EXAMPLES}


SAMPLE = '''"""A module.

```python
first = 1
```
"""


class Outer:
    """A class."""

    def method(self):
        """A method.

        !!! Example

            ```python
            for second in (2,):
                pass
            ```
        """


def without():
    pass
'''


def test_examples_are_found_with_their_lines():
    found = docstring_blocks(Path("sample.py"), SAMPLE)
    assert list(found) == ["", "Outer.method"]
    assert [block.code for block in found[""]] == ["first = 1\n"]
    (block,) = found["Outer.method"]
    assert block.code == "for second in (2,):\n    pass\n"
    assert SAMPLE.splitlines()[block.line].strip() == "for second in (2,):"
