"""What came, in words, for error messages."""

from typing import Any


def described(value: Any) -> str:
    """What came, for an error message."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}"
