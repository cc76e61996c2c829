"""`keep=`: which values of a run stay, as the core takes it: one byte for each step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flowyml.diagnostics.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.planning.plan import Plan

_WORDS = ("all", "leaves")


def keep_mask(plan: Plan, keep: str | Sequence[str]) -> bytes | None:
    """Return one byte for each step, 1 where its value stays; `None` where all stay.

    Raises:
        TypeError: If it is neither a word nor names.
        ValueError: For a word other than "all" and "leaves", or a name that no step or asset has.
    """
    if isinstance(keep, str):
        if keep == "all":
            return None
        if keep == "leaves":
            return bytes(_unread(plan))
        raise ValueError(f'keep must be "all", "leaves" or a list of names, got {keep!r}{did_you_mean(keep, _WORDS)}')
    if not isinstance(keep, Iterable):
        raise TypeError(f'keep must be "all", "leaves" or a list of names, got {type(keep).__name__} {keep!r:.60}')
    mask = _unread(plan)
    for name in keep:
        if not isinstance(name, str):
            raise TypeError(f"keep takes names of steps or assets, got {type(name).__name__} {name!r:.60}")
        found = plan.assets.find(name)
        node = found[0] if found else plan.numbers.get(name)
        if node is None:
            raise ValueError(f"keep names {name!r}, which is no step or asset{did_you_mean(name, plan.names)}")
        mask[node] = 1
    return bytes(mask)


def _unread(plan: Plan) -> bytearray:
    """Return a mask of the steps whose value no other reads; one that others only wait for is among them."""
    mask = bytearray(b"\1") * len(plan.names)
    for node in plan.read_nodes():
        mask[node] = 0
    return mask
