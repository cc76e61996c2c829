"""All groups by name; each is imported when it is asked for, so that a fresh process loads only its own.

Those of `NAMES` are what `make bench` measures; those of `PEERS` need packages of their own and `make bench-peers`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cases.contract import Group

NAMES = (
    *("steps", "growth", "memory", "chains", "small", "free", "values"),
    *("held", "start", "demo", "work", "core", "costs", "globs"),
)
PEERS = ("peers",)


def group(name: str) -> Group:
    """Return a group by the name of its module."""
    found: Group = import_module(f"cases.{name}").GROUP
    return found
