"""What a worker is told of arenas, and how it names blocks of them; `store/arenas.py` has the arenas themselves."""

from __future__ import annotations

from flowyml._containers import NamedTuple

Key = tuple[int, int]
Place = tuple[int, int, int]
"""Number and descriptor of an arena, and where to go on in it."""


class Terms(NamedTuple):
    """What a worker has to know to write large values.

    Attributes:
        pid: The driver.
        large: The bytes of a large value.
        memory: Its arena of memory; `None` if there is none, and what it writes goes through its socket.
        disk: Its arena of disk, where there is a budget.
        room: The descriptor of the file that says how much memory is left of the budget.
    """

    pid: int
    large: int
    memory: Place | None
    disk: Place | None
    room: int
