"""Live output of steps, the worker's side: whose output it is, and what a step may do to its streams."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from output_reading import Reading, read

if TYPE_CHECKING:
    from pathlib import Path

PREAMBLE = """
import gc, io, os, subprocess, sys, threading, types
from flowyml.executors.process.worker.output_capture import OutputCapture
capture = OutputCapture(b"c0ffee", types.SimpleNamespace(slot=None, written=False))
def step(slot, *, eager=False):
    capture.begin_step(slot, eager=eager)
    def run(function):
        function()
        capture.end_step()
    return run
"""


class Worker:
    """Runs a script as a worker would run its steps; `out` and `err` are what each slot wrote."""

    def __init__(self, script: str) -> None:
        done = subprocess.run([sys.executable, "-c", PREAMBLE + script], capture_output=True, timeout=50, check=False)
        self.status = done.returncode
        self.stdout = done.stdout
        reading, errors = read(done.stdout), read(done.stderr)
        self.out, self.err = dict(reading.kept), dict(errors.kept)
        self.all_out, self.all_err = reading.shown, errors.shown


def test_prints_belong_to_the_step_that_printed() -> None:
    worker = Worker("""
for slot in range(5):
    @step(slot)
    def run():
        print("out", slot)
        print("err", slot, file=sys.stderr)
""")

    assert worker.out == {slot: f"out {slot}\n" for slot in range(5)}
    assert worker.err == {slot: f"err {slot}\n" for slot in range(5)}


def test_a_step_that_writes_nothing_sends_nothing() -> None:
    worker = Worker("""
for slot in range(1000):
    capture.begin_step(slot, eager=False)
    capture.end_step()
""")

    assert worker.stdout == b""


@pytest.mark.parametrize(
    "write",
    [
        'print("tw", end="")',
        'sys.stdout.write("tw")',
        'sys.stdout.buffer.write(b"tw")',
        'sys.stdout.buffer.raw.write(b"tw")',
    ],
)
def test_what_is_left_unfinished_is_sent_when_the_step_ends(write: str) -> None:
    """The last write of the process is `_exit`, so nothing is flushed but by the end of the step."""
    worker = Worker(f"""
@step(1)
def run(): {write}
@step(2)
def run(): pass
os._exit(0)
""")

    assert worker.out == {1: "tw"}


def test_eager_steps_own_what_c_code_and_subprocesses_write() -> None:
    worker = Worker("""
@step(1, eager=True)
def run():
    os.write(1, b"raw\\n")
    subprocess.run(["echo", "echo"])
    print("print")
    subprocess.run("echo error >&2", shell=True)
@step(2, eager=True)
def run(): os.write(2, b"two")
""")

    assert worker.out == {1: "raw\necho\nprint\n"}
    assert worker.err == {1: "error\n", 2: "two"}


@pytest.mark.parametrize("first", ["lazy", "eager"])
def test_what_c_code_writes_in_a_lazy_step_is_not_taken_for_another_step(first: str) -> None:
    worker = Worker(f"""
@step(1, eager={first == "eager"})
def run(): print("one")
@step(2)
def run(): os.write(1, b"raw\\n")
@step(3)
def run(): print("three")
""")

    assert worker.out == {1: "one\n", 3: "three\n"}
    assert worker.all_out == "one\nraw\nthree\n"


def test_order_within_a_step_is_kept() -> None:
    worker = Worker("""
@step(1, eager=True)
def run():
    for n in range(1000):
        print(n) if n % 2 else os.write(1, b"%d\\n" % n)
""")

    assert worker.out[1].split() == [str(n) for n in range(1000)]


def test_megabytes_arrive_whole_and_in_order() -> None:
    worker = Worker("""
@step(1)
def run():
    for n in range(300_000): print(n)
    sys.stdout.buffer.write(b"x" * 3_000_000 + b"\\n")
@step(2)
def run(): print("after")
""")

    numbers, _, block = worker.out[1].removesuffix("\n").rpartition("\n")
    assert numbers.split("\n") == [str(n) for n in range(300_000)]
    assert block == "x" * 3_000_000
    assert worker.out[2] == "after\n"


def test_threads_of_a_step_print_whole_lines() -> None:
    worker = Worker("""
@step(1)
def run():
    def work(name):
        for n in range(500): sys.stdout.write(f"{name} {n}\\n")
    threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
""")

    assert sorted(worker.out[1].splitlines()) == sorted(f"{name} {n}" for name in "abcd" for n in range(500))


def test_streams_are_ordinary_text_streams() -> None:
    worker = Worker("""
@step(1)
def run():
    print(sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.encoding, sys.stdout.errors, sys.stdout.name,
          sys.stdout.mode, sys.stdout.isatty(), sys.stdout.line_buffering, sys.__stdout__ is sys.stdout)
    print("\\udcff")
    subprocess.run(["echo", "given"], stdout=sys.stdout)
    print(1, 2, sep="", flush=True)
    print(*map(str, range(3)), file=sys.stdout)
    sys.stdout.writelines(["a\\n", "b\\n"])
""")

    assert worker.out[1].splitlines() == [
        "1 2 utf-8 backslashreplace <stdout> w False True True", "\\udcff", "given", "12", "0 1 2", "a", "b"
    ]  # fmt: skip


VANDALS = {
    "closes sys.stdout": "sys.stdout.close()",
    "closes the buffer": "sys.stdout.buffer.close()",
    "closes the raw stream": "sys.stdout.buffer.raw.close()",
    "detaches": "sys.stdout.detach()",
    "wraps the detached buffer": "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-16')",
    "wraps the buffer": "sys.stdout = io.TextIOWrapper(sys.stdout.buffer); sys.stdout = None; gc.collect()",
    "replaces": "sys.stdout = io.StringIO(); print('gone')",
    "replaces by nothing": "sys.stdout = sys.stderr = None",
    "replaces by no stream": "sys.stdout = 5",
    "deletes": "sys.stdout = 'x'; sys.__stdout__ = None",
    "reconfigures": "sys.stdout.reconfigure(encoding='utf-16', line_buffering=False)",
    "closes fd 1": "os.close(1)",
    "closes fd 0 to 2": "os.closerange(0, 3)",
    "closes all others": "os.closerange(3, 256)",
    "closes fd 1 and opens a file": "os.close(1); open('/dev/null', 'w').fileno()",
    "makes fd 1 a file": "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
    "makes fd 1 full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 1); sys.stdout.write('x')",
    "makes fd 1 not wait": "os.set_blocking(1, False)",
}


@pytest.mark.parametrize("deed", VANDALS.values(), ids=VANDALS)
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "lazy"])
def test_what_a_step_does_to_its_streams_ends_with_it(deed: str, eager: bool) -> None:
    """The step prints first, so that a lazy one is known to have touched its streams."""
    worker = Worker(f"""
@step(1, eager={eager})
def run():
    print("one"); {deed}
for slot in (2, 3):
    @step(slot, eager={eager})
    def run():
        print("grün")
        print("red", file=sys.stderr)
        if {eager}:
            subprocess.run(["echo", "echo"])
            sys.stdout.write("y" * 100_000)
""")

    assert worker.status == 0
    assert worker.all_err == "red\nred\n", "nothing else is said"
    assert worker.out[1].startswith("one\n")
    for slot in (2, 3):
        assert worker.out[slot] == "grün\n" + ("echo\n" + "y" * 100_000) * eager
        assert worker.err[slot] == "red\n"


def test_a_step_that_closed_fd_1_unseen_loses_nothing_of_the_next() -> None:
    worker = Worker("""
@step(1)
def run(): os.close(1)
@step(2)
def run(): print("two")
""")

    assert worker.out == {2: "two\n"}


def test_a_step_may_redirect_fd_1_and_finds_no_marks_in_its_file(tmp_path: Path) -> None:
    target = tmp_path / "printed"
    worker = Worker(f"""
@step(1)
def run():
    saved = os.dup(1)
    os.dup2(os.open({str(target)!r}, os.O_WRONLY | os.O_CREAT), 1)
    print("to the file")
    os.dup2(saved, 1)
    print("to the driver")
""")

    assert target.read_bytes() == b"to the file\n"
    assert worker.out == {1: "to the driver\n"}


def test_a_step_that_takes_all_descriptors_breaks_nothing() -> None:
    worker = Worker("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
@step(1, eager=True)
def run():
    print("one")
    try:
        while True: taken.append(os.dup(1))
    except OSError: pass
    os.close(2)
@step(2, eager=True)
def run(): print("two", file=sys.stderr)
""")

    assert (worker.status, worker.out, worker.err) == (0, {1: "one\n"}, {2: "two\n"})


def test_a_thread_that_outlives_its_step_prints_as_the_step_that_ran_last() -> None:
    worker = Worker("""
go = threading.Event()
thread = threading.Thread(target=lambda: (go.wait(), print("late")))
@step(1)
def run(): thread.start(); print("one")
go.set(); thread.join()
@step(2)
def run(): print("two")
""")

    assert worker.out == {1: "one\nlate\n", 2: "two\n"}


def test_a_forked_child_prints_as_its_step() -> None:
    worker = Worker("""
@step(1)
def run():
    child = os.fork()
    if not child:
        print("child", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("parent")
""")

    assert worker.out == {1: "child\nparent\n"}


def test_a_reader_that_is_slow_loses_nothing_on_a_pipe_that_does_not_wait() -> None:
    script = (
        PREAMBLE
        + """
@step(1)
def run():
    os.set_blocking(1, False)
    print("x" * 1_000_000)
"""
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        reading = Reading()
        while chunk := os.read(child.stdout.fileno(), 5_000):
            reading.feed(chunk)

    assert (child.returncode, reading.flush().kept) == (0, {1: "x" * 1_000_000 + "\n"})


def test_a_worker_whose_reader_is_gone_goes_on() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    script = (
        PREAMBLE
        + """
@step(1)
def run(): print("nobody listens")
@step(2, eager=True)
def run(): subprocess.run(["echo", "still nobody"], check=True); print("x" * 100_000)
@step(3)
def run(): print("done", file=sys.stderr)
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=theirs, stderr=subprocess.PIPE, timeout=50, check=False
    )
    os.close(theirs)

    assert (done.returncode, read(done.stderr).kept) == (0, {3: "done\n"})
