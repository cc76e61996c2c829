"""Live output of steps: marks in the pipes, whole lines in the driver, what a step does to its streams."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections import defaultdict
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml.executors._processes.output import KEPT, LONGEST_LINE, OutputReader, StepLog

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = b"c0ffee"


def mark(slot: int | None) -> bytes:
    return b"\0%b:%b\0" % (TOKEN, b"" if slot is None else b"%d" % slot)


class Reading:
    """An `OutputReader` and what came of it: `shown` by the driver, `kept` for each slot."""

    def __init__(self, *, labels: bool = False) -> None:
        self.kept: dict[int, str] = defaultdict(str)
        self.shown = ""
        label = (lambda slot: f"s{slot}") if labels else None
        self.reader = OutputReader(TOKEN, "stdout", label=label, keep=self.keep)

    def keep(self, slot: int, text: str) -> None:
        self.kept[slot] += text

    def feed(self, *chunks: bytes) -> Reading:
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            for chunk in chunks:
                self.reader.feed(chunk)
        self.shown += stream.getvalue()
        return self

    def flush(self) -> Reading:
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            self.reader.flush()
        self.shown += stream.getvalue()
        return self


def read(*chunks: bytes, labels: bool = False) -> Reading:
    return Reading(labels=labels).feed(*chunks).flush()


# ---- the driver: marks and lines ---------------------------------------------------------------------------------

EXAMPLE = mark(1) + "grün\n".encode() + b"two" + mark(None) + b"nobody\n" + mark(42) + b"\0c0ffe\xff\n" + mark(1) + b"x"


@pytest.mark.parametrize("cut", range(len(EXAMPLE) + 1))
def test_a_stream_cut_anywhere_reads_the_same(cut: int) -> None:
    reading = read(EXAMPLE[:cut], EXAMPLE[cut:])

    assert reading.kept == {1: "grün\ntwox", 42: "\0c0ffe\\xff\n"}
    assert reading.shown == "grün\ntwonobody\n\0c0ffe\\xff\nx"


def test_a_stream_fed_byte_by_byte_reads_the_same() -> None:
    reading = read(*(EXAMPLE[n : n + 1] for n in range(len(EXAMPLE))), labels=True)

    assert reading.shown == "[s1] grün\n[s1] two\nnobody\n[s42] \0c0ffe\\xff\n[s1] x\n"


pieces = st.binary(max_size=12) | st.sampled_from(
    [b"\0", b"\0c0ffee", b"c0ffee:12", b":", b"\r", b"\n", b"\r\n", b"\xe2"]
)
# Nobody but the worker knows the token, so what a step writes does not begin a mark.
texts = st.lists(pieces).map(b"".join).filter(lambda text: b"\0c0ffee:" not in text)


@given(
    written=st.lists(st.tuples(st.none() | st.integers(0, 2**32 - 1), texts), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_what_each_step_wrote_arrives_exactly_however_it_is_cut(
    written: list[tuple[int | None, bytes]], cuts: list[int]
) -> None:
    turns = [(slot, b"".join(text for _, text in turn)) for slot, turn in groupby(written, key=itemgetter(0))]
    expected: dict[int, str] = defaultdict(str)
    for slot, text in turns:
        if slot is not None and text:
            expected[slot] += text.decode("utf-8", "backslashreplace")
    stream = b"".join(mark(slot) + text for slot, text in turns)
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})

    reading = read(*(stream[start:end] for start, end in pairwise(at)))

    assert reading.kept == expected
    assert reading.shown == "".join(text.decode("utf-8", "backslashreplace") for _, text in turns)


def test_without_labels_the_driver_shows_the_very_bytes() -> None:
    assert read(mark(1) + b"..", mark(2) + b".\n", b"100%\r").shown == "...\n100%\r"


def test_an_unfinished_line_waits_for_its_end() -> None:
    reading = Reading(labels=True).feed(mark(1) + b"one\ntw")
    assert reading.shown == "[s1] one\n"

    assert reading.feed(b"o\n").shown == "[s1] one\n[s1] two\n"


def test_an_unfinished_line_is_shown_when_its_step_ends() -> None:
    assert Reading(labels=True).feed(mark(1) + b"tw", mark(None)).shown == "[s1] tw\n"


def test_the_same_mark_twice_ends_no_line() -> None:
    assert read(mark(1) + b"tw", mark(1) + b"o\n", labels=True).shown == "[s1] two\n"


def test_a_progress_bar_moves() -> None:
    reading = Reading(labels=True).feed(mark(1) + b"\r10%", b"\r20%")

    assert reading.shown == "[s1] \r[s1] 10%\r"


def test_a_line_end_cut_in_two_is_one() -> None:
    assert read(mark(1) + b"a\r", b"\nb\r\n", labels=True).shown == "[s1] a\r\n[s1] b\r\n"


def test_a_character_cut_in_two_is_one() -> None:
    whole = "€".encode()

    assert read(mark(1) + whole[:1], whole[1:2], whole[2:] + b"\n").shown == "€\n"


def test_half_a_character_at_the_end_of_a_step_is_shown_escaped() -> None:
    assert read(mark(1) + "€".encode()[:2], mark(2) + b"\xac\n", labels=True).shown == "[s1] \\xe2\\x82\n[s2] \\xac\n"


def test_an_endless_line_is_shown_in_pieces_with_one_label() -> None:
    reading = Reading(labels=True).feed(mark(1), *["ä".encode() * 999 + b"x"] * 100)
    assert len(reading.shown) > LONGEST_LINE / 2

    assert reading.flush().shown == "[s1] " + ("ä" * 999 + "x") * 100 + "\n"


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\r", b"\n", b"x"])
def test_megabytes_cost_linear_time(byte: bytes) -> None:
    """8 MiB in pieces of 1 KiB: a quadratic reader takes minutes."""
    start = time.process_time()

    reading = read(mark(1), *[byte * 1024] * 8192)

    assert time.process_time() - start < 20
    assert len(reading.kept[1]) == 1024 * 8192 * (4 if byte == b"\xff" else 1)


# ---- the driver: where it goes -----------------------------------------------------------------------------------


def test_the_stream_is_looked_up_at_each_write(capsys: pytest.CaptureFixture[str]) -> None:
    reader = OutputReader(TOKEN, "stderr")
    with contextlib.redirect_stderr(io.StringIO()) as first:
        reader.feed(b"first\n")
    reader.feed(b"second\n")

    assert first.getvalue() == "first\n"
    assert capsys.readouterr().err == "second\n"


def test_output_reaches_the_descriptor_of_the_driver(capfd: pytest.CaptureFixture[str]) -> None:
    OutputReader(TOKEN, "stdout").feed(b"live\n")

    assert capfd.readouterr().out == "live\n"


class Angry(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, object(), Angry(), closed()], ids=["none", "no stream", "broken", "closed"])
def test_a_broken_stream_loses_the_text_and_nothing_else(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[int, str]] = []
    reader = OutputReader(TOKEN, "stdout", keep=lambda slot, text: kept.append((slot, text)))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        reader.feed(mark(3) + b"lost\n")

    assert kept == [(3, "lost\n")]


def test_a_stream_that_knows_fewer_characters_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        OutputReader(TOKEN, "stdout").feed("5 €\n".encode())

    assert stream.buffer.getvalue() == b"5 \\u20ac\n"  # type: ignore[attr-defined]


# ---- what is kept ------------------------------------------------------------------------------------------------


def test_a_short_log_is_whole() -> None:
    log = StepLog()
    for text in ("a\n", "ä\n", ""):
        log.add(text)

    assert (log.text(), log.size) == ("a\nä\n", 5)


@pytest.mark.parametrize("piece", [1, 7, 1000, KEPT, 3 * KEPT, 1 << 20])
def test_a_long_log_keeps_its_beginning_and_its_end(piece: int) -> None:
    written = "".join(f"{n:09}\n" for n in range(20_000))
    log = StepLog()
    for start in range(0, len(written), piece):
        log.add(written[start : start + piece])

    head, gap, tail = log.text().partition(f"\n... {len(written) - 2 * KEPT} bytes left out ...\n")
    assert (head, bool(gap), tail) == (written[:KEPT], True, written[-KEPT:])
    assert len(log._head) + len(log._tail) <= 3 * KEPT


def test_a_log_of_twice_the_limit_has_no_gap() -> None:
    log = StepLog()
    log.add("x" * 2 * KEPT)

    assert log.text() == "x" * 2 * KEPT


# ---- the worker --------------------------------------------------------------------------------------------------

PREAMBLE = """
import gc, io, os, subprocess, sys, threading
from flowyml.executors._processes.capture import install
capture = install(b"c0ffee")
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
