"""The file of a checkpoint: a line that describes it, a line with a checksum, and the arrays.

The description is JSON, so that it can be read with `head -n 1`. The arrays are as
`equinox.tree_serialise_leaves` writes them. A file is complete before it gets its name.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
from jaxtyping import PyTree

FORMAT = "gramlm checkpoint"
VERSION = 1

# Width of the second line: it is written anew when the checksum is known.
_SEAL = 128

_PIECE = 2**20


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to something else; it is left alone."""


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO, digest: Any):
        self._file, self._digest = file, digest
        self.count = 0

    def write(self, data: Any) -> int:
        self._digest.update(data)
        self.count += memoryview(data).nbytes
        return self._file.write(data)


def write(path: Path, description: dict[str, Any], tree: PyTree) -> None:
    """Writes a checkpoint under another name, and renames it when it is safe on the disk."""
    head = {"format": FORMAT, "version": VERSION} | description
    line = json.dumps(head).encode() + b"\n"
    digest = hashlib.sha256(line)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as file:
            file.write(line)
            file.write(b" " * _SEAL + b"\n")
            hashed = _Hashed(file, digest)
            eqx.tree_serialise_leaves(hashed, tree)  # pyright: ignore[reportArgumentType]
            seal = json.dumps({"bytes": hashed.count, "sha256": digest.hexdigest()})
            file.seek(len(line))
            file.write(seal.encode().ljust(_SEAL))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_description(path: Path) -> dict[str, Any]:
    """The description of a whole and undamaged file."""
    try:
        with open(path, "rb") as file:
            return _checked(path, file)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no checkpoint {path}. To go on from one where there is one: "
            "`resume=path if path.exists() else None`."
        ) from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a directory; a checkpoint is one file.") from error


def _checked(path: Path, file: BinaryIO) -> dict[str, Any]:
    line, seal = file.readline(), file.readline()
    description = _parsed(line)
    if description is None or description.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of gramlm, or its first line is damaged.")
    version = description.get("version")
    if version != VERSION:
        raise CheckpointError(
            f"{path} has version {version} of the format of checkpoints; this version of "
            f"gramlm reads version {VERSION}."
        )
    expected = _parsed(seal) if len(seal) == _SEAL + 1 else None
    if expected is None:
        raise CheckpointError(f"{path} is truncated, or damaged, in its second line.")
    digest, count = hashlib.sha256(line), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        count += len(piece)
    if count != expected.get("bytes"):
        raise CheckpointError(
            f"{path} is truncated: it holds {count} bytes of arrays where "
            f"{expected.get('bytes')} were written."
        )
    if digest.hexdigest() != expected.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its checksum is not that of what was written.")
    return description


def read_tree(path: Path, like: PyTree) -> PyTree:
    """The arrays of a file, in a tree of the same structure, shapes and dtypes."""
    with open(path, "rb") as file:
        file.readline()
        file.readline()
        return eqx.tree_deserialise_leaves(file, like)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:  # no JSON, or no text
        return None
    return found if isinstance(found, dict) else None
