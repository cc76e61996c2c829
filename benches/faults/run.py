"""Put every pool through the same faults and print what each kept: `make bench-faults`.

Each case runs in a process of its own, with a limit; its descendants are found by a mark in their environment, whatever
became of their parents, and what is left of them afterwards is told and killed. A pool that is not installed is skipped
with a line. Writes `benches/results/faults.md`.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil
from cases import CASES, Case
from pools import POOLS

if TYPE_CHECKING:
    from collections.abc import Callable

_HERE = Path(__file__).parent
_RESULT = _HERE.parent / "results" / "faults.md"
_MARK = "FLOWYML_BENCH_FAULTS"
# Every case is a matter of a second or two; ray needs some to start.
_LIMIT = 40.0
_PACKAGES = {"dask.distributed": "distributed"}


def main() -> int:
    """Go through all pools and cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pool", action="append", choices=POOLS, help="only this one (may be given again)")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one (may be given again)")
    options = parser.parse_args()
    # A shell that starts this in the background has it ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    verdicts: dict[str, dict[str, str]] = {}
    for pool in options.pool or POOLS:
        version = _version(pool)
        if version is None:
            print(f"{pool}: not installed, skipped")
            continue
        title = f"{pool} {version}".strip()
        verdicts[title] = {}
        for name in options.case or CASES:
            verdicts[title][name] = outcome = judged(pool, name, CASES[name])
            print(f"{title}: {name}: {outcome}", flush=True)
    table = as_table(verdicts)
    print(f"\n{table}")
    if not (options.pool or options.case):
        _RESULT.write_text(f"{table}\n")
    return 0


def _version(pool: str) -> str | None:
    """Return a pool's version, empty for the standard library's; `None` if it is not installed."""
    if pool in {"ProcessPoolExecutor", "multiprocessing.Pool"}:
        return platform.python_version()
    try:
        return metadata.version(_PACKAGES.get(pool, pool))
    except metadata.PackageNotFoundError:
        return None


def judged(pool: str, name: str, case: Case) -> str:
    """Run one case; return "kept", or what was not."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, _MARK: mark, "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, str(_HERE / "one.py"), pool, name, folder]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            if case.signal is not None:
                return _signalled(process, case, Path(folder), mark)
            return _waited(process, output, case)
        finally:
            process.kill()
            process.wait()
            for left in _marked(mark):
                left.kill()


def _waited(process: subprocess.Popen[bytes], output: IO[str], case: Case) -> str:
    limit = _LIMIT if case.timeout is None else case.timeout + _LIMIT / 2
    hung = False
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        hung = True
    output.seek(0)
    lines = output.read().splitlines()
    told = [line.removeprefix("verdict: ") for line in lines if line.startswith("verdict: ")]
    if not told:
        return f"hangs (over {limit:.0f} s)" if hung else f"the driver dies: {(lines or ['silently'])[-1][:60]}"
    if told[-1] == "kept" and hung:
        return "does not end"
    if told[-1] == "kept" and process.returncode:
        return "ends with an error"
    return told[-1]


def _signalled(process: subprocess.Popen[bytes], case: Case, folder: Path, mark: str) -> str:
    """Send the signal once a task has begun, and look who is still there."""
    if not _eventually(lambda: (folder / "begun").exists() or process.poll() is not None, _LIMIT):
        return "does not begin"
    time.sleep(0.2)
    if case.signal == signal.SIGINT:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    else:
        process.send_signal(case.signal or signal.SIGTERM)
    if not _eventually(lambda: process.poll() is not None, case.leave):
        return f"still there after {case.leave} s"
    _eventually(lambda: not _marked(mark), case.leave)
    left = len(_marked(mark))
    return f"leaves {left} processes" if left else "kept"


def _eventually(condition: Callable[[], object], limit: float) -> bool:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def as_table(verdicts: dict[str, dict[str, str]]) -> str:
    """Return the verdicts as Markdown: a row for each fault, and below what was not kept, in words."""
    names = list(dict.fromkeys(name for each in verdicts.values() for name in each))
    rows = [
        ["what must hold", *verdicts],
        ["---"] * (len(verdicts) + 1),
        *(
            [CASES[name].expected, *("yes" if each[name] == "kept" else "**no**" for each in verdicts.values())]
            for name in names
        ),
        ["kept", *(f"{list(each.values()).count('kept')} of {len(each)}" for each in verdicts.values())],
    ]
    table = [f"| {' | '.join(row)} |" for row in rows]
    words = [
        f"* {pool}, {CASES[name].expected}: {what}"
        for pool, each in verdicts.items()
        for name, what in each.items()
        if what != "kept"
    ]
    return "\n".join([*table, "", "What was not kept, in words:", "", *words])


if __name__ == "__main__":
    sys.exit(main())
