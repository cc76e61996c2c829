"""What steps do to themselves and to their worker, by number, and what each costs.

A module of its own that imports little, since each worker that runs such a step imports it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from run_notes import note

if TYPE_CHECKING:
    from collections.abc import Callable


class Unbuildable(Exception):  # noqa: N818
    """Cannot be made from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} of {two}")


class Exits:
    """Ends the process that pickles it, if that is possible."""

    def __reduce__(self) -> NoReturn:
        sys.exit(5)


def _raise(error: BaseException) -> NoReturn:
    raise error


def _fork() -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


FATAL: dict[str, tuple[Callable[[], Any], str]] = {
    "exits": (lambda: os._exit(3), "WorkerLostError"),
    "is killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "WorkerLostError"),
    "crashes": (lambda: os.kill(os.getpid(), signal.SIGSEGV), "WorkerLostError"),
    "aborts": (os.abort, "WorkerLostError"),
    "closes all files": (lambda: os.closerange(0, 256), "WorkerLostError"),
    "raises": (lambda: _raise(ValueError("no")), "ValueError"),
    "raises what cannot be rebuilt": (lambda: _raise(Unbuildable(1, 2)), "Unbuildable"),
    "raises SystemExit": (lambda: sys.exit(4), "SystemExit"),
    "raises KeyboardInterrupt": (lambda: _raise(KeyboardInterrupt()), "KeyboardInterrupt"),
    "raises GeneratorExit": (lambda: _raise(GeneratorExit()), "GeneratorExit"),
    "raises StopIteration": (lambda: _raise(StopIteration()), "StopIteration"),
    "returns what does not pickle": (threading.Lock, "SerializationError"),
    "returns what exits": (Exits, "SerializationError"),
}
"""What costs a step its attempt, and the error by which that is told."""
MANNERS: dict[str, Callable[[], Any]] = {
    "closes its streams": lambda: os.closerange(0, 3),
    "goes away": lambda: os.chdir("/"),
    "sets umask": lambda: os.umask(0o777),
    "forks": _fork,
    "changes environment": lambda: os.environ.update(PATH=""),
    "ignores signals": lambda: [signal.signal(each, signal.SIG_IGN) for each in (signal.SIGTERM, signal.SIGINT)],
    "writes much": lambda: print("x" * 300_000),
    "leaves a thread": lambda: threading.Thread(target=time.sleep, args=(60,), daemon=True).start(),
}
"""What must cost nobody anything."""
DEEDS = [*FATAL, *MANNERS]


def work(i: int, folder: str, size: int, pause: float) -> Any:
    """Do the deed of this number, if it has one: they are spread over all of them."""
    time.sleep(pause) if pause else None
    deed = deed_of(i, size)
    if deed is None:
        return note(folder, i) or i if i % 50 == 0 else i
    note(folder, i)
    done = FATAL[deed][0]() if deed in FATAL else MANNERS[deed]()
    return done if deed in FATAL else i


def deed_of(i: int, size: int) -> str | None:
    """Return the deed of a number: two in a row are never the same."""
    place, rest = divmod(i, size // len(DEEDS))
    return DEEDS[place] if rest == 1 and place < len(DEEDS) else None
