"""Several test processes at once (`pytest -n 2 --dist loadfile`): which tests have the machine for themselves.

A file goes to one process, so that its tests share their warm executors as ever. A test with the mark `alone` runs
while no other does, in no process: it fills the memory, or its bounds are of seconds that it needs for itself. That
is a lock: tests have it together, such a test has it for itself. Who waits for the lock closes a door behind which
all others wait, so that a stream of short tests cannot keep it out. Without `-n` nothing here does anything.

The locks lie on two files of the checkout, so that nothing is left behind; they end with the process that holds them.

What is printed is a line for each file once its tests have run (`Files`), in the place of dots that name nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = os.environ.pop("PYTEST_XDIST_WORKER", None) is not None  # a pytest that a test starts is not one of several
if MANY:
    import fcntl

    DOOR, ROOM = (os.open(path, os.O_RDONLY) for path in (Path(__file__), Path(__file__).parents[1] / "conftest.py"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Have the machine together with other tests, or alone; the time of the wait is not the test's."""
    if not MANY:
        return (yield)
    with room(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def room(*, alone: bool) -> Iterator[None]:
    """Wait for the lock behind the door, and hold it."""
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    fcntl.flock(DOOR, kind)
    fcntl.flock(ROOM, kind)
    fcntl.flock(DOOR, fcntl.LOCK_UN)
    try:
        yield
    finally:
        fcntl.flock(ROOM, fcntl.LOCK_UN)  # also for children that were forked meanwhile


# ---- what is printed ----------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Print files where several processes run them, unless `-v` prints each test or `-q` asks for less."""
    if getattr(config.option, "numprocesses", None) and not config.option.verbose:
        config.pluginmanager.register(Files(config))


@dataclass
class File:
    """What is known of a file whose tests run."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return the line that is printed."""
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        return f"{self.name:<48} {outcomes:<24} {self.seconds:7.1f} s"


class Files:
    """A line for each file: as a process runs one after the other, it is done with one when it reports of the next."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.running: dict[str, File] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        process, name = report.node.gateway.id, report.nodeid.partition("::")[0]
        if process not in self.running or self.running[process].name != name:
            self._done(process)
            self.running[process] = File(name)
        file = self.running[process]
        file.seconds += report.duration
        if report.when == "call" or not report.passed:
            file.outcomes[report.outcome] += 1
        if report.failed:
            self._print(f"FAILED {report.nodeid}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str]:
        """Count as ever, and have no letter printed."""
        if report.passed:
            return ("passed" if report.when == "call" else "", "", "")
        if report.skipped:
            return ("xfailed", "", "XFAIL") if hasattr(report, "wasxfail") else ("skipped", "", "SKIPPED")
        return ("failed", "", "FAILED") if report.when == "call" else ("error", "", "ERROR")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        for process in list(self.running):
            self._done(process)

    def _done(self, process: str) -> None:
        if process in self.running:
            self._print(str(self.running.pop(process)))

    def _print(self, line: str) -> None:
        terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        terminal.write_line(line)
