"""The Python stack of a worker's main thread, requested by the driver, also while the worker runs C code.

```
worker  enable_stack_dumps() ─▶ an unnamed file as descriptor 4, and a handler in C that writes the stack to it
driver  stack_of(pid)        ─▶ a signal, and what was appended to that file, read through /proc
```

Only the stall detector requests it. The handler needs neither the interpreter lock nor memory, and interrupted system
calls continue. A process that has replaced the handler or the file gets no signal: it would die, or write to a file of
its own.
"""

from __future__ import annotations

import os
import signal
import time

from flowyml.executors.process.supervisor.process_tree import read_proc

_FILE = "flowyml stacks"
_PLACE = 4
"""The descriptor of the file; the claim words that had it are mapped by then."""
_NUMBER = getattr(signal, "SIGRTMAX", 0) - 5
TIMEOUT_SECONDS = 0.2
POLL_SECONDS = 0.005
MAX_LINES = 40


def enable_stack_dumps() -> None:
    """Make this worker write its stack when the driver requests it, if the system can do that."""
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
    faulthandler.register(_NUMBER, _PLACE, all_threads=False)  # other threads may be running


def stack_of(pid: int) -> list[str]:
    """Return the lines of a worker's stack, the innermost call first; none if it does not answer."""
    try:
        file = os.open(f"/proc/{pid}/fd/{_PLACE}", os.O_RDONLY | os.O_CLOEXEC) if _has_handler(pid) else -1
    except OSError:
        return []
    if file < 0:
        return []
    try:
        start = os.fstat(file).st_size
        os.kill(pid, _NUMBER)
        return _lines(file, start)
    except OSError:  # it has exited
        return []
    finally:
        os.close(file)


def _has_handler(pid: int) -> bool:
    """Return True if a process has the handler, and the file at its descriptor."""
    caught = read_proc(pid, "status").partition(b"\nSigCgt:")[2].split(None, 1)
    if not caught or not int(caught[0], 16) >> (_NUMBER - 1) & 1:
        return False
    return os.readlink(f"/proc/{pid}/fd/{_PLACE}").startswith(f"/memfd:{_FILE}")  # noqa: PTH115  no need of pathlib


def _lines(file: int, start: int) -> list[str]:
    end, until = start, time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        before, end = end, os.fstat(file).st_size
        if start < before == end:
            break
    lines = os.pread(file, end - start, start).decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.startswith("  ")][:MAX_LINES]
