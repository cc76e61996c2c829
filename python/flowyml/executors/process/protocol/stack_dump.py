"""Where a worker is, asked from outside: the Python stack of its main thread, also while it is in C code.

```
worker  show_on_request() ─▶ a nameless file as descriptor 4, and a handler in C that writes the stack into it
driver  stack_of(pid)     ─▶ a signal, and what is new in that file, read through /proc
```

Only the watchdog asks, when something is wrong. The handler needs neither the interpreter lock nor memory, and system
calls that it interrupts go on. Nobody is sent a signal that would end it, or that wrote into a file of its own: the
driver first looks whether the handler and the file are still there.
"""

from __future__ import annotations

import os
import signal
import time

from flowyml.executors.process.supervisor.process_tree import read_proc

_FILE = "flowyml stacks"
_PLACE = 4
"""The descriptor of the file: that of the claim words, which are mapped by then."""
_NUMBER = getattr(signal, "SIGRTMAX", 0) - 5
_PATIENCE = 0.2
_GLANCE = 0.005
_MOST_LINES = 40


def show_on_request() -> None:
    """Have the stack of this worker written when the driver asks for it, where the system can do that."""
    if not hasattr(os, "memfd_create") or _NUMBER <= 0:
        return
    import faulthandler

    try:
        file = os.memfd_create(_FILE)
    except OSError:
        return
    if file != _PLACE:
        os.dup2(file, _PLACE, inheritable=False)
        os.close(file)
    faulthandler.register(_NUMBER, _PLACE, all_threads=False)  # other threads may run while it looks at them


def stack_of(pid: int) -> list[str]:
    """Return the lines of a worker's stack, the innermost call first; none where it cannot be asked or does not answer.

    Args:
        pid: The worker.
    """
    try:
        file = os.open(f"/proc/{pid}/fd/{_PLACE}", os.O_RDONLY | os.O_CLOEXEC) if _listens(pid) else -1
    except OSError:
        return []
    if file < 0:
        return []
    try:
        start = os.fstat(file).st_size
        os.kill(pid, _NUMBER)
        return _lines(file, start)
    except OSError:  # it has ended meanwhile
        return []
    finally:
        os.close(file)


def _listens(pid: int) -> bool:
    """Tell whether a process has the handler, and the file in its place."""
    caught = read_proc(pid, "status").partition(b"\nSigCgt:")[2].split(None, 1)
    if not caught or not int(caught[0], 16) >> (_NUMBER - 1) & 1:
        return False
    return os.readlink(f"/proc/{pid}/fd/{_PLACE}").startswith(f"/memfd:{_FILE}")  # noqa: PTH115  no need of pathlib


def _lines(file: int, start: int) -> list[str]:
    """Return what comes behind `start`, once nothing more comes."""
    end, until = start, time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        time.sleep(_GLANCE)
        before, end = end, os.fstat(file).st_size
        if start < before == end:
            break
    lines = os.pread(file, end - start, start).decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.startswith("  ")][:_MOST_LINES]
