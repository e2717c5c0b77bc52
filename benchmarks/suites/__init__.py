"""What is run, by groups. No JAX here: the parent process reads it."""

from ..harness.case import Case
from .krylov import DEVICE, KRYLOV
from .spine import SPINE

# What runs without a group asked for: all but what needs an accelerator.
DEFAULT = ("spine", "krylov")
GROUPS: dict[str, list[Case]] = {"spine": SPINE, "krylov": KRYLOV, "device": DEVICE}
