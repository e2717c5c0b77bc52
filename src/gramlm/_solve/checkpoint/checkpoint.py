"""A solve between two steps: all that it takes to go on."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from ..._core.version import __version__
from ..._linear.auto import Plan
from ..carry import Carry
from ..history import Past, Saving
from ..task import Task
from . import file


@dataclass(frozen=True)
class Checkpoint:
    """A solve between two steps, for `gramlm.solve(..., resume=checkpoint)`.

    - `description`: the problem, the solver and its settings, and where the solve has come to, as
      a dictionary that goes into JSON. It is compared with those of the solve that resumes.
    """

    description: dict[str, Any]
    carry: Carry = dataclasses.field(repr=False)
    past: Past = dataclasses.field(repr=False)

    @property
    def step(self) -> int:
        """Steps made."""
        return self.description["steps"]

    @property
    def cost(self) -> float:
        """`½‖r‖²` after them."""
        return self.description["cost"]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file, in place of one of that name once it is complete."""
        file.write(Path(path), self.description, (self.carry, self.past))


def described(task: Task, plan: Plan, recording: Saving) -> dict[str, Any]:
    """What must be the same where a solve resumes, and what the reader of a file wants to know."""
    size, solver = plan.size, task.solver
    return {
        "gramlm": __version__,
        "jax": jax.__version__,
        "dtype": str(np.dtype(f"f{size.itemsize}")),
        "params": _shapes(task.params),
        "residuals": size.residuals,
        "args": _shapes(task.args),
        "problem": {name: _text(getattr(task.problem, name)) for name in _PARTS},
        "solver": {
            field.name: _text(getattr(solver, field.name)) for field in dataclasses.fields(solver)
        },
        "history": _text(recording),
        "plan": str(plan),
        "costs": None if size.costs is None else list(size.costs),
    }


_PARTS = ("loss", "weights", "lower", "upper", "free")

_NAMES: dict[str, Callable[[Any], str]] = {
    "gramlm": lambda value: f"gramlm {value}",
    "dtype": lambda value: f"{value} parameters",
    "params": lambda value: f"parameters {value}",
    "residuals": lambda value: f"{value} residuals",
    "args": lambda value: f"`args` {value}",
    "history": lambda value: f"`history={value}`",
}


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Where two descriptions tell of something else, in words."""
    for key, name in _NAMES.items():
        if before.get(key) != now[key]:
            return f"it was written with {name(before.get(key))}, and this is {name(now[key])}"
    for kind in ("problem", "solver"):
        for field, value in now[kind].items():
            other = before.get(kind, {}).get(field)
            if other != value:
                return f"its {kind} has `{field}={other}`, and this one `{field}={value}`"
    return None


def layout(tree: PyTree) -> list[list[Any]]:
    """Path, shape and dtype of each array."""
    return [
        [jtu.keystr(path), list(leaf.shape), str(leaf.dtype)]
        for path, leaf in jtu.tree_leaves_with_path(tree)
    ]


def _shapes(tree: PyTree) -> dict[str, str]:
    leaves = jtu.tree_leaves_with_path(tree)
    return {jtu.keystr(path) or "array": _shape(leaf) for path, leaf in leaves}


def _shape(leaf: Any) -> str:
    known = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    return f"{leaf.dtype}{list(leaf.shape)}" if known else type(leaf).__name__


def _text(value: Any) -> str:
    """What it is, the same in each process; of arrays their values count."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        inner = ", ".join(f"{name}={_text(getattr(value, name))}" for name in names)
        return f"{type(value).__name__}({inner})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_text(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_text(item) for item in value)}]"
    if eqx.is_array(value):
        digest = hashlib.sha256(np.asarray(value).tobytes()).hexdigest()
        return f"{_shape(value)} of digest {digest[:12]}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
