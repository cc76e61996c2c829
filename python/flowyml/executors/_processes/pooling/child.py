"""The guardian as a child process: started, looked at, waited for, with nothing imported for it.

`subprocess` takes milliseconds to import, in which the guardian could have begun. It closes what it may have inherited
itself (`guarding/guardian.py`): Python's own descriptors are closed by the kernel, a library's may not be.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from flowyml.executors._processes.guarding.starts import spawn

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
else:
    import _signal as signal  # see `guarding/starts.py`

# Seconds between two looks: a process cannot be waited for together with a clock.
_GLANCE = 0.005


class Child:
    """A child process in a session of its own.

    Args:
        command: The program, by its path, and its arguments.
        environment: Its variables.
        moves: Which descriptors it is given, and as which numbers; see `starts.spawn`.

    Raises:
        OSError: It could not be started.

    Attributes:
        pid: Its pid.
        exitcode: How it ended, negative for a signal; `None` as long as that is not known.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], moves: dict[int, int]) -> None:
        variables = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
        self.exitcode: int | None = None
        self.pid = spawn(list(map(os.fsencode, command)), variables, moves)

    def poll(self) -> int | None:
        """Look whether it has ended: return how, or `None`."""
        return self._look(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return how it ended.

        Raises:
            TimeoutError: It has not ended after so many seconds.
        """
        if timeout is None:
            return self._look(0) or 0
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= end:
                raise TimeoutError
            select.select([], [], [], _GLANCE)
        return code

    def kill(self) -> None:
        """Kill it, unless it is known to have ended: its number may be another's then."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Leave it alone from now on: in a process that was forked it is another's child."""
        self.exitcode = 0

    def _look(self, how: int) -> int | None:
        if self.exitcode is None:
            try:
                pid, status = os.waitpid(self.pid, how)
            except ChildProcessError:  # somebody has waited for all children, or ignores SIGCHLD
                self.exitcode = 0
            else:
                self.exitcode = os.waitstatus_to_exitcode(status) if pid else None
        return self.exitcode
