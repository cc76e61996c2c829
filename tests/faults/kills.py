"""Drivers that are killed with SIGKILL at random moments, and continued until they end.

```
killed.py ──kill -9 at a random moment──▶ killed.py, continues ──▶ ... ──▶ ends: the result of one that nobody disturbed
```

What must never run again, by mode: with `hooks`, what a hook has heard of; with `always` (durability), all that the
driver had; else (`window`, `cache`) what it had for longer than the time that tiny steps wait for each other.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import worker_pools

MODES = ("window", "hooks", "always", "cache")
KINDS = ("local 1", "thread 3", "process 1", "process 3", "process 8", "async 3")
WINDOW = 0.1
"""Seconds: twice what is promised, since the thread that writes may not get its turn at once."""
LIMIT = 60.0
"""Seconds in which a driver has to end that nobody kills."""


@dataclass
class Kills:
    """What came of it: how many drivers were killed, runs ended, steps ended; and what must be 0, in words."""

    kills: int = 0
    runs: int = 0
    steps: int = 0
    kept: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Kills) -> None:
        """Count others in."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        """Tell the figures."""
        done = f"{self.kills} kills, {self.runs} runs ended, {self.steps:,} steps ended"
        return f"{done}, {self.kept:,} times a step was kept over a kill; wrong {len(self.wrong)}"


def campaign(folder: Path, kind: str, mode: str, kills: int) -> Kills:
    """Kill drivers of one kind so many times, and let the last one end."""
    rng, tally = random.Random(f"{kind} {mode}"), Kills()
    expected = _undisturbed(folder, kind, mode)
    kept: dict[str, int] = {}
    for _ in range(20 * kills + 20):
        if tally.kills >= kills and not kept:
            break
        done, killed = _one_driver(folder, kind, mode, rng if tally.kills < kills else None)
        tally.kills += killed
        counts = Counter(_lines(folder / "log"))
        again = [name for name, count in kept.items() if counts[name] != count]
        tally.wrong += [f"{kind} {mode}: {name} ran again" for name in again]
        kept = {name: counts[name] for name in _must_stay(folder, mode) if counts[name]}
        tally.kept += len(kept) * killed
        if done is not None:
            _compare(folder, f"{kind} {mode}", done, expected, tally)
        if done is not None or _has_ended(folder, counts):
            tally.runs, tally.steps, kept = tally.runs + 1, tally.steps + len(counts), {}
            _forget(folder)
    return tally


def _undisturbed(folder: Path, kind: str, mode: str) -> str:
    """Return what a driver prints that nobody kills."""
    done, _ = _one_driver(folder, kind, mode, None)
    assert done is not None
    assert done.count('"skipped"') == 1
    _forget(folder)
    return done


def _one_driver(folder: Path, kind: str, mode: str, rng: random.Random | None) -> tuple[str | None, bool]:
    """Run a driver, and kill it if chance is given; return what it printed if it ended, and whether it was killed."""
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), *kind.split(), mode]
    environment = os.environ | {worker_pools.MARK: (mark := uuid.uuid4().hex)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, env=environment, **pipes) as process:
        if rng is not None:
            _wait_for_progress(process, folder / "log")
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        try:
            done, told = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    killed = process.returncode == -signal.SIGKILL
    assert killed or process.returncode == 0, told
    # What a worker of a dead driver still does, until it is ended, is no second run of it.
    assert worker_pools.eventually(lambda: not worker_pools.marked(mark), LIMIT)
    return (None if killed else done), killed


def _wait_for_progress(process: subprocess.Popen[str], log: Path) -> None:
    """Wait until a step more has ended, or the driver has."""
    before = log.stat().st_size if log.exists() else 0
    while process.poll() is None and (not log.exists() or log.stat().st_size <= before):
        time.sleep(0.005)


def _must_stay(folder: Path, mode: str) -> set[str]:
    """Return the steps that must not run again, whatever happens."""
    if mode == "hooks":
        return set(_lines(folder / "heard"))
    had = [line.split(" ", 2) for line in _lines(folder / "had")]
    newest = {pid: float(when) for when, pid, _ in had}  # when each driver was last seen alive
    return {name for when, pid, name in had if mode == "always" or float(when) < newest[pid] - WINDOW}


def _compare(folder: Path, who: str, done: str, expected: str, tally: Kills) -> None:
    """Compare what a driver has come to in the end with what comes of an undisturbed one."""
    if done != expected:
        tally.wrong.append(f"{who}: {done} instead of {expected}")
    if _journals(folder):
        tally.wrong.append(f"{who}: a run that has ended well has left its journal")


def _has_ended(folder: Path, counts: Counter[str]) -> bool:
    """Tell whether a driver was killed when its run had ended well, and the journal was about to go or gone."""
    return counts["last"] > 0 and all(b"success" in each[-40:] for each in _journals(folder))


def _journals(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / "runs").glob("*/journal")]


def _forget(folder: Path) -> None:
    for name in ("log", "heard", "had"):
        (folder / name).unlink(missing_ok=True)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
