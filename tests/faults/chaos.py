"""Drawn runs full of faults: what each step does to its worker is drawn, what must come of it is computed beside.

```
seed ──▶ Drawn steps ──┬─▶ expected(): state, attempts, value or error of each      (no workers, no package)
                       └─▶ Pipeline.run on an executor ──▶ compared, and the begun attempts counted in files
```

A step notes each attempt in a file before anything else. So a step that was lost, that ran twice, or that paid for
another's crash shows, whatever the result claims.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from flowyml import Pipeline, get_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flowyml import Executor, PipelineResult


class Unlucky(Exception):  # noqa: N818
    """What an ordinary failure raises."""


class Unbuildable(Exception):  # noqa: N818
    """An exception that cannot be made from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        """Take two, and keep one."""
        super().__init__(f"{one} of {two}")


def _raise() -> NoReturn:
    raise Unlucky("drawn to fail")


def _raise_unbuildable() -> NoReturn:
    raise Unbuildable(1, 2)


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


# ---- what ends an attempt: what it does, and the error that must be told ---------------------------------------------

RAISED: dict[str, tuple[Callable[[], object], str]] = {
    "raise": (_raise, "Unlucky"),
    "raise what cannot be rebuilt": (_raise_unbuildable, "Unbuildable"),
    "sys.exit": (sys.exit, "SystemExit"),
    "KeyboardInterrupt": (_interrupt, "KeyboardInterrupt"),
}
DEADLY: dict[str, tuple[Callable[[], object], str]] = {
    "os._exit": (lambda: os._exit(3), "WorkerLostError"),
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), "WorkerLostError"),
    "SIGSEGV": (lambda: ctypes.string_at(0), "WorkerLostError"),
    "abort": (os.abort, "WorkerLostError"),
    "return a lock": (threading.Lock, "SerializationError"),
    "hang": (lambda: time.sleep(1000), "StepTimeoutError"),
}
TIMEOUT = 1.0
"""Seconds of a step that is drawn to hang: enough for its attempts that do not."""
FAULTS = {**RAISED, **DEADLY}


# ---- what a step leaves behind although it succeeds ------------------------------------------------------------------


def _close_everything() -> None:
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.close(number)


def _leave_a_grandchild() -> None:
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"], start_new_session=True)


def _fork_and_go() -> None:
    if not os.fork():
        os._exit(0)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


HABITS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "close 0, 1, 2": _close_everything,
    "leave a grandchild": _leave_a_grandchild,
    "fork": _fork_and_go,
    "ignore signals": _ignore_signals,
    "chdir": lambda: os.chdir("/"),
    "print a megabyte": lambda: print("x" * (1 << 20), file=sys.stderr),
    "write to fd 1": lambda: os.write(1, b"y" * 5000 + b"\n"),
}


# ---- drawing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """One step: it reads earlier ones, fails in these ways, one an attempt, and has this habit when it succeeds."""

    own: int
    reads: tuple[int, ...]
    faults: tuple[str, ...]
    habit: str
    retry: int

    @property
    def name(self) -> str:
        return f"s{self.own}"


@dataclass(frozen=True)
class Expected:
    """What must come of a step; `attempts` is how often it must have been begun."""

    state: str
    attempts: int
    value: int | None = None
    error: str | None = None


def draw(seed: int, count: int, *, rate: float, faults: Sequence[str], habits: Sequence[str]) -> list[Drawn]:
    """Draw `count` steps of which about `rate` meet a fault, and a tenth as many have a habit."""
    rng = random.Random(seed)
    steps = []
    for own in range(count):
        reads = rng.sample(range(own), min(own, rng.choice([0, 0, 1, 2]))) if own else []
        failures = rng.choices(faults, k=rng.choice([1, 1, 2, 3])) if rng.random() < rate else []
        habit = rng.choice(habits) if rng.random() < rate / 10 else "nothing"
        retry = rng.choice([0, 1, 2, 3]) if failures else rng.choice([0, 0, 2])
        steps.append(Drawn(own, tuple(reads), tuple(failures), habit, retry))
    return steps


def digest(own: int, values: Sequence[int]) -> int:
    """Return a number that tells values and their order apart."""
    total = own + 1
    for value in values:
        total = (total * 1_000_003 + value) % (1 << 40)
    return total


def expected(steps: list[Drawn]) -> list[Expected]:
    """Say what must come of each step, in order; no step reads a later one."""
    ends: list[Expected] = []
    for step in steps:
        before = [ends[number] for number in step.reads]
        if any(each.state != "success" for each in before):
            ends.append(Expected("upstream_failed", 0))
        elif len(step.faults) > step.retry:
            error = FAULTS[step.faults[step.retry]][1]
            state = "timed_out" if error == "StepTimeoutError" else "failed"
            ends.append(Expected(state, step.retry + 1, error=error))
        else:
            value = digest(step.own, [each.value or 0 for each in before])
            ends.append(Expected("success", len(step.faults) + 1, value=value))
    return ends


# ---- running ---------------------------------------------------------------------------------------------------------


def act(own: int, faults: tuple[str, ...], habit: str, folder: str, *values: int) -> Any:
    """Be any step."""
    attempt = get_context().attempt
    notes = os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(notes, b"%d\n" % own)
    os.close(notes)
    if attempt <= len(faults):
        return FAULTS[faults[attempt - 1]][0]()
    HABITS[habit]()
    return digest(own, values)


def built(steps: list[Drawn], folder: Path) -> Pipeline:
    """Return the pipeline of drawn steps."""
    pipeline = Pipeline("chaos")
    for step in steps:
        params = {"own": step.own, "faults": step.faults, "habit": step.habit, "folder": str(folder)}
        reads = [f"s{number}" for number in step.reads]
        timeout = TIMEOUT if "hang" in step.faults else None
        pipeline.add_step(act, step.name, params, inputs=reads or None, retry=step.retry or None, timeout=timeout)
    return pipeline


def begun(folder: Path) -> Counter[int]:
    """Count how often each step was begun."""
    return Counter(int(line) for path in folder.iterdir() for line in path.read_text().split())


@dataclass
class Tally:
    """What a run (or many) came to: steps, injected faults, and what must stay 0, with each difference in words."""

    steps: int = 0
    faults: int = 0
    wrong: int = 0
    lost: int = 0
    doubled: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another run in."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def trouble(self) -> int:
        """How many steps did not do what they must."""
        return self.wrong + self.lost + self.doubled


def run(steps: list[Drawn], executor: Executor, folder: Path) -> Tally:
    """Run drawn steps and compare."""
    result = built(steps, folder).run(executor=executor)
    counts, ends = begun(folder), expected(steps)
    tally = Tally(steps=len(steps), faults=sum(len(step.faults) for step in steps))
    for step, end in zip(steps, ends, strict=True):
        got = found(result, step)
        if got != end:
            tally.wrong += 1
            tally.differences.append(f"{step}\n  must be {end}\n  but is {got}")
        tally.lost += counts[step.own] < end.attempts
        tally.doubled += counts[step.own] > end.attempts
    return tally


def found(result: PipelineResult, step: Drawn) -> Expected:
    """Return what came of a step, in the words of what must come of it."""
    each = result.step_results[step.name]
    error = type(each.exception).__name__ if each.exception else None
    return Expected(str(each.state), each.attempts, each.output if each.success else None, error)
