"""The promises hold with 1, 2 and 8 workers, for steps that travel by the thousand and for steps that travel alone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from notes import executions, note

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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


@pytest.fixture(params=[1, 2, 8])
def workers(request: pytest.FixtureRequest) -> Iterator[ParallelExecutor]:
    with ParallelExecutor(request.param) as executor:
        yield executor


@pytest.mark.parametrize(("size", "pause"), [(4_200, 0.0), (84, 0.002)], ids=["by the thousand", "alone"])
@pytest.mark.parametrize("retry", [0, 1])
@pytest.mark.usefixtures("capfd")
def test_every_fault_costs_its_step_alone(
    workers: ParallelExecutor, tmp_path: Path, size: int, pause: float, retry: int
) -> None:
    """Exactly the guilty fail, by their own error, after exactly their attempts; all else runs exactly once."""
    params = {"folder": str(tmp_path), "size": size, "pause": pause}
    result = Pipeline("p").map(work, range(size), params=params, retry=retry).run(executor=workers)
    guilty = {i: FATAL[deed][1] for i in range(size) if (deed := deed_of(i, size)) in FATAL}
    items = result.step_results["work"].items
    failed = {i: type(each.exception).__name__ for i, each in enumerate(items) if not each.success}
    assert failed == guilty
    assert {items[i].attempts for i in range(size)} == {1, 1 + retry}
    assert all(items[i].attempts == 1 + retry for i in guilty)
    assert all(items[i].output == i for i in range(size) if i not in guilty)
    begun = Counter(executions(tmp_path))
    assert begun == {
        i: 1 + retry if i in guilty else 1 for i in range(size) if i % 50 == 0 or deed_of(i, size) is not None
    }
