"""Hosts that are not as they should be: no room, no /proc, few files, a clock that jumps, a terminal that goes away.

Each test runs one script in a process of its own, whose surroundings are spoilt first.
"""

from __future__ import annotations

import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCRIPT = """
import os, time
from flowyml import *

def big(k):
    return bytes([k]) * 1_000_000

def crash():
    os._exit(3)

def hang():
    time.sleep(60)

with ParallelExecutor(WORKERS) as executor:
    pipeline = Pipeline("odd").map(big, range(30), name="big").map(len, over="big", name="size")
    result = pipeline.add_step(crash, retry=1).add_step(hang, timeout=0.3).run(executor=executor)
    assert list(result["size"]) == [1_000_000] * 30, result.summary()
    assert [str(each.state) for each in result.step_results.values()] == ["success", "success", "failed", "timed_out"]
    assert Pipeline("again").map(abs, range(50), name="abs").run(executor=executor).success
print("done")
"""


@pytest.fixture
def marked(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The script runs in a folder of its own and leaves no process behind."""
    monkeypatch.chdir(tmp_path)
    return mark


def run(script: str, *before: str, workers: int = 2, **options: Any) -> str:
    """Run a script; return what it said, on both streams."""
    code = textwrap.dedent(script).replace("WORKERS", str(workers))
    command = [*before, sys.executable, "-c", code]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if before and "unshare" in done.stdout:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0, done.stdout
    return done.stdout


def elsewhere(mounting: str) -> tuple[str, ...]:
    """Return a command that runs another one where something else is mounted."""
    namespaces = ["--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
    return ("unshare", *namespaces, "sh", "-c", f'{mounting} && exec "$@"', "sh")


def files(most: int, hard: int | None = None) -> Callable[[], None]:
    """Return what lets a process open so many files."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard or most))


def test_a_full_dev_shm(marked):
    full = "mount -t tmpfs -o size=64k tmpfs /dev/shm && head -c 65536 /dev/zero > /dev/shm/full"
    assert "done" in run(SCRIPT, *elsewhere(full))


def test_no_proc(marked):
    assert "done" in run(SCRIPT, *elsewhere("mount -t tmpfs tmpfs /proc"))


@pytest.mark.parametrize(("most", "workers"), [(1024, 8), (256, 8), (64, 4)])
def test_few_open_files_and_many_values(marked, most, workers):
    assert "limit" not in run(SCRIPT, workers=workers, preexec_fn=files(most))


def test_more_workers_than_open_files_allow(marked):
    """Those that could be started do the work; one warning a run says how many these are."""
    told = run(SCRIPT, workers=40, preexec_fn=files(64))
    assert told.count("the limit of open files (64, `ulimit -n`) is reached: the run continues with ") == 2
    assert "workers instead of 40" in told


def test_a_limit_of_open_files_that_may_be_raised_is_raised(marked):
    assert "limit" not in run(SCRIPT, workers=25, preexec_fn=files(64, 1024))


def test_no_open_file_for_a_worker(marked):
    with pytest.raises(AssertionError, match=r"a worker process could not be started: the limit of open files \(13"):
        run(SCRIPT, preexec_fn=files(13))


NOWHERE = """
import json, os
from flowyml import *

def imports():
    import colorsys  # nothing has imported it yet
    return colorsys.__name__

with ParallelExecutor(WORKERS) as executor:
    pipeline = Pipeline("nowhere").add_step(imports).add_step(int, "fails", {"x": "none"})
    result = pipeline.run(executor=executor)
    assert result["imports"] == "colorsys", result.summary()
    assert type(result.step_results["fails"].exception) is ValueError
print("done")
"""


@pytest.mark.skipif(
    (3, 13) <= sys.version_info < (3, 13, 3), reason="no module can be asked for a name it lacks there: gh-130932"
)
@pytest.mark.parametrize("start", ["fork", "exec"])
def test_a_working_directory_that_is_gone(marked, tmp_path, start):
    """A program from the command line has it in its `sys.path`."""
    gone = ("sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh")
    assert "done" in run(NOWHERE, *gone, env={**os.environ, "FLOWYML_WORKER_START": start})


@pytest.mark.parametrize("most", [6, 10, 12, 14])
def test_hardly_any_open_files(marked, most):
    """Whoever has no file left says so: the driver, the guardian, or who starts a worker."""
    script = """
        from flowyml import *
        try:
            Pipeline("p").add_step(dict).run(executor=ParallelExecutor(WORKERS))
        except ExecutorError as error:
            print(error)
        """
    assert f"the limit of open files ({most}, `ulimit -n`) is reached" in run(script, preexec_fn=files(most))


@pytest.mark.parametrize(("most", "what"), [(0, "the worker processes"), (100_000, "another worker process")])
def test_a_limit_of_file_sizes(marked, most, what):
    """It holds for shared memory, too; the error says which limit it is, and has no frame of ours."""
    script = """
        import traceback
        from flowyml import *
        try:
            Pipeline("p").add_step(dict).run(executor=ParallelExecutor(WORKERS))
        except ExecutorError as error:
            print("frames", len(traceback.extract_tb(error.__traceback__)), error.__cause__, error)
        """
    limit = (most, most)
    told = run(script, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert told.startswith(f"frames 1 None no shared memory for {what}: ")
    assert f"files of this process may have {most:,} (RLIMIT_FSIZE, `ulimit -f`); raise that limit" in told


JUMPS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <sys/time.h>
static const long jumps[] = {0, 86400, -86400, 3600, -40000000};
static long calls;
int clock_gettime(clockid_t id, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += jumps[__sync_fetch_and_add(&calls, 1) % 5];
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec, now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_clock_that_jumps_at_each_look(marked, tmp_path):
    """Limits, delays and the journal know the monotonic clock alone."""
    (tmp_path / "jumps.c").write_text(JUMPS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "jumps.so", "jumps.c", "-ldl"], check=True)
    run(
        """
        import time
        from flowyml import *

        assert len({round(time.time()) for _ in range(5)}) == 5

        def hang():
            time.sleep(60)

        def fails():
            raise OSError

        def pipeline():
            return Pipeline("clock", enable_checkpointing=True).map(abs, range(500), name="abs")

        for backend in ("process", "thread"):
            with ParallelExecutor(2, backend=backend) as executor:
                Pipeline("warm").map(abs, range(2), name="abs").run(executor=executor)
                whole = pipeline().add_step(hang, timeout=0.3).add_step(fails, retry=retry(3, backoff=0.1))
                began = time.monotonic()
                result = whole.run(executor=executor)
                assert time.monotonic() - began < 5
                assert 0.3 <= result.step_results["hang"].duration_seconds < 5
                assert result.step_results["fails"].attempts == 3
                assert 0.3 <= result.duration_seconds < 5
                again = pipeline().run(executor=executor, resume="last")
                assert again.resumed == "500 finished items taken over", again.resumed
        """,
        env={**os.environ, "LD_PRELOAD": str(tmp_path / "jumps.so")},
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user that has no other processes")
def test_a_fork_bomb_in_a_step(marked):
    """All of it goes with its worker when the step's time is over, each process in a session of its own."""
    run(
        """
        import os, resource, time
        from flowyml import *

        USER = 64_321

        def bomb():
            resource.setrlimit(resource.RLIMIT_NPROC, (50, 50))
            os.setuid(USER)
            while True:
                try:
                    if not os.fork():
                        os.setsid()
                except OSError:
                    time.sleep(0.01)

        def processes():
            return [pid for pid in filter(str.isdigit, os.listdir("/proc")) if owner(pid) == USER]

        def owner(pid):
            try:
                return os.stat(f"/proc/{pid}").st_uid
            except OSError:
                return None

        pipeline = Pipeline("bomb").add_step(bomb, timeout=0.5).map(abs, range(50), name="abs")
        with ParallelExecutor(2) as executor:
            result = pipeline.run(executor=executor)
            assert [str(each.state) for each in result.step_results.values()] == ["timed_out", "success"]
            deadline = time.monotonic() + 1
            while processes() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not processes()
        """
    )


DRIVER = """
import os, signal, time
from flowyml import *
if IGNORES: signal.signal(signal.SIGHUP, signal.SIG_IGN)

def wait(k):
    print("step", k, flush=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
    print("x" * 100_000)
    return k

with ParallelExecutor(2) as executor:
    result = Pipeline("p").map(wait, range(4), name="wait").run(executor=executor)
    open("end", "w").write(f"{result.state} {list(result['wait'])}")
"""


@pytest.mark.parametrize("ignores", [False, True])
def test_a_terminal_that_goes_away(marked, tmp_path, ignores):
    """A driver that ignores the hang-up (nohup) ends well; else it ends, and nothing is left."""
    pid, terminal = pty.fork()
    if pid == 0:
        code = DRIVER.replace("IGNORES", str(ignores))
        os.execv(sys.executable, [sys.executable, "-c", code])
    seen = b""
    while b"step 1" not in seen:
        seen += os.read(terminal, 1000)
    os.close(terminal)
    (tmp_path / "go").touch()
    _, status = os.waitpid(pid, 0)
    if ignores:
        assert (status, (tmp_path / "end").read_text()) == (0, "success [0, 1, 2, 3]")
    else:
        assert os.WTERMSIG(status) == signal.SIGHUP
        assert not (tmp_path / "end").exists()


def test_output_that_nobody_reads(marked, tmp_path):
    """Streams of the driver that are full hold it up, like any program; once they are closed the run goes on."""
    code = DRIVER.replace("IGNORES", "False").replace("100_000", "1_000_000")
    (tmp_path / "go").touch()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        process.wait(30)
    assert (tmp_path / "end").read_text() == "success [0, 1, 2, 3]"
