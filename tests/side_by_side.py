"""Several test processes at once (`pytest -n 2 --dist loadfile`): which tests have the machine for themselves.

A file goes to one process, so that its tests share their warm executors as ever. A test with the mark `alone` runs
while no other does, in no process: it fills the memory, or its bounds are of seconds that it needs for itself. That
is a lock: tests have it together, such a test has it for itself. Who waits for the lock closes a door behind which
all others wait, so that a stream of short tests cannot keep it out. Without `-n` nothing here does anything.

The locks lie on two files of the checkout, so that nothing is left behind; they end with the process that holds them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = os.environ.pop("PYTEST_XDIST_WORKER", None) is not None  # a pytest that a test starts is not one of several
if MANY:
    import fcntl

    DOOR, ROOM = (os.open(Path(__file__).with_name(name), os.O_RDONLY) for name in ("side_by_side.py", "conftest.py"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Have the machine together with other tests, or alone; the time of the wait is not the test's."""
    if not MANY:
        return (yield)
    with room(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def room(*, alone: bool) -> Iterator[None]:
    """Wait for the lock behind the door, and hold it."""
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    fcntl.flock(DOOR, kind)
    fcntl.flock(ROOM, kind)
    fcntl.flock(DOOR, fcntl.LOCK_UN)
    try:
        yield
    finally:
        fcntl.flock(ROOM, fcntl.LOCK_UN)  # also for children that were forked meanwhile
