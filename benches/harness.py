"""Measurements as processes: a `Job` is one case at one size in one round, `measure` runs it in a fresh interpreter.

Jobs of a group go round by round, there and back (A B C C B A), each case in all its sizes, so that a case and its
baseline are never far apart, nor a million steps and ten thousand: on a machine whose speed drifts, ratios within a
round hold where times of different minutes do not.

Next to other work they hold only between cases that get the CPUs alike. Linux shares the CPUs between sessions first
(autogroup scheduling), so a process that leads a session gets more of a busy machine than one that shares a session.
Here every process that is measured leads one, and so does each worker process of flowyml and of every baseline
(`cases/pools.py`). What still differs is how many processes a case has: two workers and their driver get more of a busy
machine than a bare loop or a pool of threads, which is one process. That is why each measurement records how many CPUs
other processes used meanwhile, and `calmest` measures again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cases import catalogue
from cases.contract import FREE_THREADED
from cases.pair import PROCESS
from processes import cpu_of_children, cpu_of_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE = Path(__file__).parent
# Seconds for one measurement: a case that takes longer hangs or is too large for a bench.
_PATIENCE = 600
# CPUs that others may use in a calm measurement: the clock of the kernel ticks every 10 ms, less cannot be told.
CALM = 0.15
# Installed packages have their bytecode beside them; whoever sets this would measure the compiler at each start.
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True)
class Job:
    """One measurement: a case of a group, at a size, in a round."""

    group: str
    case: str
    size: int
    round: int

    def __str__(self) -> str:
        """Return the name under which `-k` finds it."""
        return f"{self.group}: {self.case}: {self.size}: round {self.round}"


def jobs(*, quick: bool, rounds: int | None = None, peers: bool = False) -> Iterator[Job]:
    """Go through all measurements in the order in which they are made; `rounds` replaces each group's own number."""
    for name in catalogue.PEERS if peers else catalogue.NAMES:
        group = catalogue.group(name)
        times = {size: rounds or usual for size, usual in (group.quick if quick else group.sizes).items()}
        for number in range(max(times.values())):
            for case in _turns(list(group.cases), number):
                yield from (Job(name, case, size, number) for size, most in times.items() if number < most)


def _turns(cases: list[str], number: int) -> list[str]:
    """Return the order of a round: every other one backwards, so that nobody is always first."""
    return cases[::-1] if number % 2 else cases


def lacking(job: Job) -> str | None:
    """Return what a case needs and does not find here, as a sentence; `None` if it can be measured."""
    case = catalogue.group(job.group).cases[job.case]
    if case.needs_free_threads and not FREE_THREADED:
        return "this Python has a global lock"
    missing = next((package for package in case.needs if find_spec(package) is None), None)
    return missing and f"{missing} is not installed"


def calmest(job: Job, data: Path, tries: int) -> dict[str, Any]:
    """Measure until others leave the machine alone, at most so many times; return the calmest measurement."""
    measured = [measure(job, data)]
    while measured[-1]["others"] > CALM and len(measured) < tries:
        measured.append(measure(job, data))
    return min(measured, key=lambda each: float(each["others"]))


def measure(job: Job, data: Path) -> dict[str, Any]:
    """Run a case in a fresh process; return what it told and how long the whole process took.

    Raises:
        RuntimeError: If it failed; with what it wrote to stderr.
    """
    command = catalogue.group(job.group).cases[job.case].command
    busy, ours, began = cpu_of_machine(), cpu_of_children(), time.perf_counter()
    told = _output(command or (str(_HERE / "fresh.py"), job.group, job.case, str(job.size), str(data)))
    seconds = time.perf_counter() - began
    others = max(0.0, cpu_of_machine() - busy - (cpu_of_children() - ours)) / seconds
    figures = {"units": 1, "phases": {}, "told": told.strip()} if command else json.loads(told.splitlines()[-1])
    figures["phases"][PROCESS] = {"wall": seconds}
    return {**figures, "others": others}


def _output(arguments: tuple[str, ...]) -> str:
    """Run Python and return what it printed; away from the checkout, so that nothing is imported by accident."""
    environment = {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}
    command = [sys.executable, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
            start_new_session=True,
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout
