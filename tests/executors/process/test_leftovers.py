"""However the driver ends, nothing of ours is there a second later: no process, no file, no shared memory.

Drivers are real scripts, each in an empty folder that is its working, temporary and home folder at once. Sockets and
memory of ours have no names, so they end with the processes that hold them; the process table tells about those.
"""

from __future__ import annotations

import gc
import os
import signal
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from worker_pools import HELPERS, children, driver, eventually, marked, open_fds, under_load

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

SECOND = 1.0

SCRIPT = """
import atexit, gc, os, signal, subprocess, sys, threading, time
from flowyml import *
def say(text): print(text, flush=True)
def stay(say_it=True):
    if say_it: say("up")
    time.sleep(60)
def burn():
    say("up")
    while True: pass
executor = ParallelExecutor(2)
def warm(): assert list(Pipeline("warm").map(abs, range(8), name="abs").run(executor=executor)["abs"]) == [*range(8)]
"""


@contextmanager
def script(text: str, mark: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a driver in an empty folder; nothing must be left a second after its end."""
    shared = shared_memory()
    moves = f"import os\nfolder = {str(folder)!r}\nos.chdir(folder)\nos.environ.update(TMPDIR=folder, HOME=folder)\n"
    with driver(moves + SCRIPT + text, mark, *arguments) as process:
        yield process
        process.wait(20)
        assert eventually(lambda: not marked(mark), SECOND), [*map(describe, marked(mark))]
        assert list(folder.iterdir()) == []
        assert eventually(lambda: shared_memory() <= shared, SECOND)


def shared_memory() -> set[str]:
    """Return the names of shared memory; semaphores aside, which other programs make all the time."""
    return {path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.")}


def describe(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[-200:]


def is_up(process: subprocess.Popen[str]) -> None:
    line = process.stdout.readline()
    assert line.endswith("up\n"), line + process.stderr.read()


# ---- what resource trackers tidy up ---------------------------------------------------------------------------------

TRACKED = """
kept = []
def named():
    import multiprocessing
    from multiprocessing.shared_memory import SharedMemory
    spawn = multiprocessing.get_context("spawn")
    memory, semaphore, pool = SharedMemory(create=True, size=1000), spawn.Semaphore(), spawn.Pool(1)
    kept.extend([memory, semaphore, pool])
    locks = [semaphore, pool._inqueue._rlock, pool._outqueue._wlock]
    return [memory.name, *("sem." + lock._semlock.name[1:] for lock in locks)]
def of_loky():
    import joblib, numpy
    rows = numpy.ones(10_000)
    assert joblib.Parallel(n_jobs=2, max_nbytes=1000)(joblib.delayed(numpy.sum)(rows) for _ in range(2)) == [10_000] * 2
    return [name for name in os.listdir("/dev/shm") if f"_{os.getpid()}_" in name or f"-{os.getpid()}-" in name]
def step(make, end):
    names = make()
    say(" ".join(["names", *names]))
    if end == "the driver waits":
        time.sleep(60)
    elif end:
        {"exit": os._exit, "kill": lambda _: os.kill(os.getpid(), 9)}[end](3)
def after(step): pass
make, end, limit = {"named": named, "of_loky": of_loky}[sys.argv[1]], sys.argv[2], 8 if sys.argv[3] else None
with ParallelExecutor(1, max_tasks_per_worker=1) as executor:
    p = Pipeline("p").add_step(step, params={"make": make, "end": end}, timeout=limit)
    p.add_step(after, "after", after=["step"], run_if="all").run(executor=executor)
"""
ENDS = {
    "at the end of the worker": ("", None),
    "at a timeout": ("the driver waits", "limit"),
    "when the worker exits": ("exit", None),
    "when the worker is killed": ("kill", None),
    "at Ctrl-C": ("the driver waits", signal.SIGINT),
    "when the driver is killed": ("the driver waits", signal.SIGKILL),
}


@pytest.mark.parametrize("make", ["named", "of_loky"])
@pytest.mark.parametrize("end", ENDS)
def test_what_resource_trackers_know_is_unlinked(mark: str, tmp_path: Path, make: str, end: str) -> None:
    """Semaphores, shared memory and directories of multiprocessing and loky, however their worker ends."""
    if make == "of_loky":
        pytest.importorskip("joblib")
    words, number = ENDS[end]
    with script(TRACKED, mark, tmp_path, make, words, "limit" if number == "limit" else "") as process:
        line = process.stdout.readline()
        assert "names " in line, line + process.stderr.read()
        names = line.partition("names ")[2].split()
        assert len(names) > 2
        if isinstance(number, int):
            process.send_signal(number)
    assert eventually(lambda: not {*names} & {path.name for path in Path("/dev/shm").iterdir()}, SECOND)


# ---- signals -------------------------------------------------------------------------------------------------------

PHASES = {
    "idle": "warm(); say('up'); time.sleep(60)",
    "waiting": "Pipeline('p').add_step(stay).run(executor=executor)",
    "computing": "Pipeline('p').add_step(burn).add_step(stay, params={'say_it': False}).run(executor=executor)",
    "starting": "say('up'); Pipeline('p').map(stay, [False] * 4).run(executor=executor)",
    "in the middle": """
def some(i):
    if i == 300: say("up")
    return i
warm()
for _ in range(1000): Pipeline('p').map(some, range(5000)).run(executor=executor)
""",
    "collecting": """
def large(i):
    if i == 3: say("up")
    return bytes(20 << 20)
for _ in range(1000): Pipeline('p').map(large, range(8)).run(executor=executor)
""",
}
SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "SIGKILL": signal.SIGKILL}
# Nobody in the driver handles SIGTERM and SIGHUP: they are alike, so one of them is enough at most times.
AT_ANY_TIME = [(phase, number) for phase in PHASES for number in SIGNALS if number != "SIGHUP" or phase == "waiting"]


@pytest.mark.parametrize(("phase", "number"), AT_ANY_TIME)
def test_a_signal_at_any_time(mark: str, tmp_path: Path, phase: str, number: str) -> None:
    with script(PHASES[phase], mark, tmp_path) as process:
        is_up(process)
        process.send_signal(SIGNALS[number])
        assert eventually(lambda: process.poll() is not None, SECOND)
        assert process.returncode != 0


# A step that leaves something behind in every way that there is.
STARTS = "def starts():\n" + textwrap.indent("\n".join(map(str.strip, HELPERS.values())), "    ") + "\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_what_a_busy_step_has_started(mark: str, tmp_path: Path, number: str) -> None:
    text = f"""{STARTS}
    stay()
Pipeline("p").add_step(starts).run(executor=executor)
"""
    with script(text, mark, tmp_path) as process:
        is_up(process)
        process.send_signal(SIGNALS[number])
        assert eventually(lambda: process.poll() is not None, SECOND)


@pytest.mark.parametrize("end", ["", "os._exit(1)", "1 / 0", "executor.shutdown()", "os.kill(os.getpid(), 9)"])
def test_what_a_finished_step_has_left(mark: str, tmp_path: Path, end: str) -> None:
    text = f"""{STARTS}
assert Pipeline("p").add_step(starts).run(executor=executor).success
{end}
"""
    with script(text, mark, tmp_path):
        pass


@pytest.mark.parametrize("moment", range(12))
def test_kill_9_while_it_starts(mark: str, tmp_path: Path, moment: int) -> None:
    """Between the first call and the first step there are some 100 ms, more in a busy machine."""
    with script(PHASES["starting"], mark, tmp_path) as process:
        is_up(process)
        assert not eventually(lambda: process.poll() is not None, 0.02 * moment)
        process.kill()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_for_the_whole_group(mark: str, tmp_path: Path, number: str) -> None:
    """As a terminal sends it; workers and guardian have sessions of their own."""
    with script("os.setpgid(0, 0)\n" + PHASES["waiting"], mark, tmp_path) as process:
        is_up(process)
        os.killpg(process.pid, SIGNALS[number])
        assert eventually(lambda: process.poll() is not None, SECOND)


# ---- ends without a signal -----------------------------------------------------------------------------------------

QUIET_ENDS = {
    "nothing at all": "warm()",
    "never started": "",
    "shutdown": "warm(); executor.shutdown(); executor.shutdown()",
    "with": "with executor: warm()",
    "collected": "warm(); del executor; gc.collect()",
    "kept in a cycle": "warm(); cycle = [executor]; cycle.append(cycle); del executor, cycle",
    "sys.exit": "warm(); sys.exit(0)",
    "sys.exit in with": "with executor:\n    warm()\n    sys.exit(0)",
    "in a thread": "thread = threading.Thread(target=warm); thread.start(); thread.join()",
    "thread outlives main": "threading.Thread(target=lambda: [warm() for _ in range(10)]).start()",
    "in a function": "def main():\n    executor = ParallelExecutor(2)\n    warm()\nmain()",
    "two executors": "warm(); executor, first = ParallelExecutor(2), executor; warm()",
    "threads": "executor = ParallelExecutor(2, 'thread'); warm()",
    "run at exit": "atexit.register(warm)",
    "run at exit, warm": "warm(); atexit.register(warm)",
    "step result kept": "result = Pipeline('p').map(bytes, [1 << 20] * 9).run(executor=executor)",
    "a parallel_map": "assert parallel_map(abs, range(9), 2, 'process') == [*range(9)]",
}


@pytest.mark.parametrize("how", QUIET_ENDS)
def test_a_quiet_end(mark: str, tmp_path: Path, how: str) -> None:
    """It leaves nothing, says nothing, and does not take long."""
    with script(QUIET_ENDS[how] + "\nsay('up')", mark, tmp_path) as process:
        out, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, ""), errors
        assert out == ("" if "sys.exit" in how else "up\n")


LOUD_ENDS = {
    "an exception": ("warm(); 1 / 0", "ZeroDivisionError: division by zero"),
    "an exception in with": ("with executor:\n    warm()\n    1 / 0", "ZeroDivisionError: division by zero"),
    "an exception at exit": ("warm(); atexit.register(lambda: 1 / 0)", "ZeroDivisionError: division by zero"),
    "an exception of a run": ("Pipeline('p').add_step(len).run(executor=executor)", "PipelineValidationError"),
    "sys.exit with words": ("warm(); sys.exit('words')", "words"),
    "os._exit": ("warm(); os._exit(1)", ""),
    "os.abort": ("warm(); os.abort()", ""),
}


@pytest.mark.parametrize("how", LOUD_ENDS)
def test_a_loud_end(mark: str, tmp_path: Path, how: str) -> None:
    text, words = LOUD_ENDS[how]
    with script(text, mark, tmp_path) as process:
        _, errors = process.communicate(timeout=20)
        assert words in errors
        assert how == "an exception at exit" or process.returncode != 0


def test_the_end_of_the_interpreter_is_quick(mark: str, tmp_path: Path) -> None:
    """Measured: 30 ms with two idle workers, from the last line of the script to the end of the process."""
    with script("warm(); say(time.monotonic())", mark, tmp_path) as process:
        begin = float(process.stdout.readline())
        process.wait(20)
        assert time.monotonic() - begin < under_load(SECOND)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_daemon_thread_in_the_middle_of_a_run(mark: str, tmp_path: Path, backend: str) -> None:
    """The interpreter ends under its feet: the worker is killed, nothing is said."""
    text = f"""
executor = ParallelExecutor(2, {backend!r})
ready = sys.argv[1]
def stay():
    open(ready, "w").close()
    time.sleep(60)
def run(): Pipeline("p").add_step(stay).map(abs, range(100)).run(executor=executor)
threading.Thread(target=run, daemon=True).start()
while not os.path.exists(ready): time.sleep(0.005)
os.remove(ready)
"""
    with script(text, mark, tmp_path, str(tmp_path / "ready")) as process:
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 0


# ---- nothing piles up ----------------------------------------------------------------------------------------------


def settled(count: Callable[[], int], most: int) -> bool:
    gc.collect()
    return eventually(lambda: count() <= most, 5.0)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_hundred_runs_leak_nothing(mark: str, backend: str) -> None:
    def run(executor: ParallelExecutor) -> None:
        pipeline = Pipeline("leak").map(abs, range(50), name="abs").add_step(sum, name="sum", inputs=["abs"])
        assert pipeline.run(executor=executor)["sum"] == 1225

    with ParallelExecutor(2, backend) as executor:
        run(executor)
        before = open_fds(), len(marked(mark)), len(children(os.getpid()))
        threads = set(threading.enumerate())  # some of earlier tests may still end
        for _ in range(100):
            run(executor)
        assert open_fds() <= before[0]
        assert (len(marked(mark)), len(children(os.getpid()))) == before[1:]
        assert not set(threading.enumerate()) - threads


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("end", ["shutdown", "collected"])
def test_executors_leak_nothing(mark: str, backend: str, end: str) -> None:
    def once() -> None:
        executor = ParallelExecutor(2, backend)
        assert list(Pipeline("leak").map(abs, range(5), name="abs").run(executor=executor)["abs"]) == [*range(5)]
        if end == "shutdown":
            executor.shutdown()

    once()
    assert settled(lambda: len(marked(mark)), 0)
    fds, threads, family = open_fds(), threading.active_count(), len(children(os.getpid()))
    for _ in range(3):  # what one leaks shows at once: all is counted exactly
        once()
    assert settled(lambda: len(marked(mark)), 0)
    assert settled(open_fds, fds)
    assert settled(threading.active_count, threads)
    assert len(children(os.getpid())) <= family


def test_runs_that_fail_or_die_leak_nothing(mark: str) -> None:
    """Workers that are killed are replaced, and nothing of them stays."""

    def run(executor: ParallelExecutor) -> None:
        pipeline = Pipeline("dies").add_step(os._exit, name="exit", params={"status": 1})
        pipeline.add_step(lambda: 1 / 0, name="raise").add_step(lambda: 1, name="fine")
        assert pipeline.run(executor=executor)["fine"] == 1

    with ParallelExecutor(2) as executor:
        run(executor)
        fds = open_fds()
        for _ in range(12):
            run(executor)
        assert open_fds() <= fds + 3  # a worker more or less: socket, stdout, stderr
        assert eventually(lambda: len(marked(mark)) <= 4)  # guardian, template, two workers
