"""The faults: tasks that misbehave, and what a user may expect of all the others.

A check returns `None` if all is as it should be, else in a few words what is not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pools import Outcome, Task

Check = Callable[[list[Outcome], Path], "str | None"]


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        expected: What must hold, as it stands in the table.
        tasks: Makes the tasks, given a folder.
        check: Looks at what came of them.
        timeout: The time limit of each task, where the pool has one.
        again: Afterwards the same pool must run ten more tasks.
        signal: Sent to the driver once a task has begun; then the driver must end within `leave` seconds.
    """

    expected: str
    tasks: Callable[[Path], list[Task]]
    check: Check
    timeout: float | None = None
    again: bool = False
    signal: int | None = None
    leave: float = 1.5


# ---- tasks -----------------------------------------------------------------------------------------------------------


def same(value: int) -> int:
    """Return it."""
    return value


def slow(value: int) -> int:
    """Return it after a moment."""
    time.sleep(0.01)
    return value


def note(value: int, folder: str) -> int:
    """Leave a line, and return it."""
    with Path(folder, f"{os.getpid()}").open("a") as file:
        file.write(f"{value}\n")
    return value


def leave() -> None:
    """End the process."""
    os._exit(3)


def kill() -> None:
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_with(folder: str, count: int) -> None:
    """Kill the process once so many others are about to do so, too."""
    Path(folder, str(os.getpid())).touch()
    for _ in range(500):
        if len(list(Path(folder).iterdir())) >= count:
            break
        time.sleep(0.01)
    kill()


def crash() -> None:
    """Read address 0."""
    ctypes.string_at(0)


def lock() -> Any:
    """Return what does not pickle."""
    return threading.Lock()


class Exits:
    """Ends the process that pickles it."""

    def __reduce__(self) -> Any:
        """End."""
        raise SystemExit(1)


def exits_when_pickled() -> Any:
    """Return it."""
    return Exits()


class Explodes:
    """Does not load."""

    def __reduce__(self) -> Any:
        """Pickle as a call that fails."""
        return _explode, ()


def _explode() -> None:
    raise ValueError("does not load")


def explodes_when_loaded() -> Any:
    """Return it."""
    return Explodes()


class Picky(Exception):  # noqa: N818
    """An exception whose constructor takes two."""

    def __init__(self, one: int, two: int) -> None:
        """Keep one message."""
        super().__init__(f"{one} of {two}")


def picky() -> None:
    """Raise it."""
    raise Picky(1, 2)


def exit_() -> None:
    """Exit as a script does."""
    sys.exit(3)


def interrupt() -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


def sleep(folder: str) -> None:
    """Sleep long, with a child of its own, and say that it has begun."""
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"], start_new_session=True)
    Path(folder, "begun").touch()
    time.sleep(1000)


def hang(folder: str) -> None:
    """Ignore signals in a loop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(folder, "begun").touch()
    while True:
        pass


def close_all() -> int:
    """Close the standard descriptors."""
    for number in (0, 1, 2):
        os.close(number)
    return 0


def talk(value: int) -> int:
    """Print and flush."""
    print(value, flush=True)
    return value


def daemonise() -> int:
    """Leave a process that keeps all pipes open."""
    if not os.fork():
        os.setsid()
        time.sleep(1000)
        os._exit(0)
    return 0


def nest() -> int:
    """Use a pool inside."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        return pool.submit(same, 5).result()


# ---- what may be expected --------------------------------------------------------------------------------------------


def guilty(*positions: int, kind: str | None = None) -> Check:
    """All other tasks have their values; these have an error, of this type if one is named."""

    def check(outcomes: list[Outcome], _: Path) -> str | None:
        lost = [at for at, each in enumerate(outcomes) if each.error and at not in positions]
        if lost:
            return f"{len(lost)} innocent tasks lost: {type(outcomes[lost[0]].error).__name__}"
        spared = [at for at in positions if outcomes[at].error is None]
        if spared:
            return f"{len(spared)} faults not told"
        told = type(outcomes[positions[0]].error).__name__ if positions else None
        return f"told as {told}" if kind and told != kind else None

    return check


def once(count: int, bad: set[int]) -> Check:
    """Each task that is not bad has run exactly once."""

    def check(outcomes: list[Outcome], folder: Path) -> str | None:
        lost = sum(1 for at, each in enumerate(outcomes) if each.error and at not in bad)
        if lost:
            return f"{lost} innocent tasks lost"
        runs = Counter(line for path in folder.iterdir() for line in path.read_text().split())
        twice = sum(1 for times in runs.values() if times > 1)
        return f"{twice} tasks ran twice" if twice else None if len(runs) == count - len(bad) else "tasks did not run"

    return check


def among(bad: dict[int, Callable[..., Any]], count: int = 20) -> Callable[[Path], list[Task]]:
    """Return tasks of which these are bad; a bad one that takes arguments gets the folder."""

    def tasks(folder: Path) -> list[Task]:
        return [
            Task(bad[at], (str(folder),) * bad[at].__code__.co_argcount) if at in bad else Task(slow, (at,))
            for at in range(count)
        ]

    return tasks


def _noted(folder: Path) -> list[Task]:
    return [Task(kill) if at in {50, 51, 400} else Task(note, (at, str(folder))) for at in range(500)]


def _small(_: Path) -> list[Task]:
    return [Task(kill) if at in {17, 900, 901} else Task(same, (at,)) for at in range(2_000)]


def _together(folder: Path) -> list[Task]:
    return [
        Task(kill_with, (str(folder), 2)),
        Task(kill_with, (str(folder), 2)),
        *[Task(slow, (i,)) for i in range(18)],
    ]


CASES = {
    "exit": Case("`os._exit` costs one task", among({7: leave}), guilty(7), again=True),
    "segfault": Case("SIGSEGV costs one task", among({7: crash}), guilty(7), again=True),
    "kills": Case("three SIGKILLs among 2,000 tiny tasks cost three", _small, guilty(17, 900, 901)),
    "together": Case("all workers die at once: two tasks lost", _together, guilty(0, 1), again=True),
    "once": Case("beside crashes nothing runs twice or never", _noted, once(500, {50, 51, 400})),
    "lock": Case("a result that does not pickle costs its task", among({7: lock}), guilty(7), again=True),
    "pickling exits": Case("one that exits when pickled, too", among({7: exits_when_pickled}), guilty(7)),
    "loading fails": Case("one that does not load, too", among({7: explodes_when_loaded}), guilty(7), again=True),
    "own exception": Case("an exception with its own constructor is told", among({7: picky}), guilty(7, kind="Picky")),
    "sys.exit": Case("`sys.exit` costs its task", among({7: exit_}), guilty(7, kind="SystemExit"), again=True),
    "interrupt": Case("`raise KeyboardInterrupt`, too", among({7: interrupt}), guilty(7), again=True),
    "timeout": Case("a time limit ends a sleeping task and its child", among({7: sleep}), guilty(7), timeout=1.0),
    "hang": Case("and one that ignores signals", among({7: hang}), guilty(7), timeout=1.0, again=True),
    "closes": Case("closed standard streams harm nobody", among({3: close_all, 4: close_all}), guilty()),
    "daemon": Case("a daemon that a task leaves holds nothing up", among({3: daemonise}), guilty()),
    "nested": Case("a pool in a task works", among({3: nest}), guilty()),
    "Ctrl-C": Case("Ctrl-C: out in 1.5 s, nothing left", among({0: sleep}), guilty(), signal=signal.SIGINT),
    "SIGTERM": Case("SIGTERM: the same", among({0: sleep}), guilty(), signal=signal.SIGTERM),
    "kill -9": Case("`kill -9` of the driver leaves nothing", among({0: sleep}), guilty(), signal=signal.SIGKILL),
}
