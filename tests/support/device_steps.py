"""Steps that say which devices they have, and lock them meanwhile: workers import them without the tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml import get_context

if TYPE_CHECKING:
    from collections.abc import Iterator

QUARTERS = 4


def seen(_: Any = None) -> tuple[str | None, int | None, tuple[str, ...]]:
    here = get_context()
    return os.environ.get("CUDA_VISIBLE_DEVICES"), here.gpu, here.devices


def pid(_: Any = None) -> int:
    return os.getpid()


def meet(name: str, others: list[str], folder: str) -> str:
    """Return once all others have begun, too, and where."""
    Path(folder, name).touch()
    until = time.monotonic() + 20
    while not all(Path(folder, other).exists() for other in others):
        assert time.monotonic() < until
        time.sleep(0.001)
    return ",".join(get_context().devices)


def both(_: int) -> tuple[str, int]:
    return os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()


def crash(i: int) -> str:
    if i % 3 == 0 and get_context().attempt == 1:
        os._exit(1)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def wrong(i: int) -> str:
    """Set the variable otherwise, and leave it so."""
    found = os.environ["CUDA_VISIBLE_DEVICES"]
    os.environ["CUDA_VISIBLE_DEVICES"] = f"9{i}"
    return found


def hold(_: int, folder: str, quarters: int, seconds: float = 0.003) -> tuple[str, ...]:
    """Lock quarters of the devices while it runs, whatever becomes of the process; fail if another has them."""
    with locked(folder, get_context().devices, quarters):
        time.sleep(seconds)
        return get_context().devices


@contextlib.contextmanager
def locked(folder: str, names: tuple[str, ...], quarters: int) -> Iterator[None]:
    with contextlib.ExitStack() as files:
        for name in names:
            free = 0
            for quarter in range(QUARTERS):
                file = files.enter_context(Path(folder, f"{name}-{quarter}").open("w"))
                with contextlib.suppress(BlockingIOError):
                    if free < quarters:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        free += 1
            if free < quarters:
                Path(folder, "trouble").touch()
                raise AssertionError(f"another has device {name}")
        yield


def act(folder: str, quarters: int, deed: str, *, crashes: bool) -> None:
    """Have the devices for a moment, then do it."""
    with locked(folder, get_context().devices, quarters):
        time.sleep(0.001)
        if deed == "slow":
            time.sleep(60 if crashes else 0.6)
        if deed == "crash" and crashes:
            os._exit(1)
        if deed in {"raise", "crash"} or (deed == "once" and get_context().attempt == 1):
            raise ValueError(deed)
