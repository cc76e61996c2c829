"""A worker's frames arrive whole, whoever interrupts the thread that sends them."""

from __future__ import annotations

import logging
import signal
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from flowyml import ParallelExecutor, Pipeline
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.log_records import LogForwarder
from flowyml.executors.process.worker.results import ResultSender

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Line:
    """A socket at which something happens in the middle of a frame: once for each that is told."""

    def __init__(self, *interruptions: Callable[[], object]) -> None:
        self.interruptions = list(interruptions)
        self.reader = wire.FrameDecoder()
        self.sender = ResultSender(SimpleNamespace(socket=self, caller=None))  # type: ignore[arg-type]

    def sendall(self, data: bytes) -> None:
        self.reader.feed(data[:5])
        if self.interruptions:
            self.interruptions.pop(0)()
        self.reader.feed(data[5:])

    def arrived(self) -> list[Any]:
        return [body for _, body, _ in self.reader]


def test_a_frame_inside_another_one_comes_after_it() -> None:
    line = Line(lambda: line.sender.log(b"inside"), lambda: line.sender.log(b"inside that"))
    line.sender.log(b"first")
    line.sender.log(b"last")
    assert line.arrived() == [b"first", b"inside", b"inside that", b"last"]


def test_a_frame_inside_one_that_fails_is_sent_with_the_next() -> None:
    def fail() -> None:
        line.sender.log(b"inside")
        line.reader = wire.FrameDecoder()
        raise TimeoutError

    line = Line(fail)
    try:
        line.sender.log(b"first")
    except TimeoutError:
        line.sender.log(b"next")
    assert line.arrived() == [b"next", b"inside"]


def test_a_record_that_is_logged_inside_a_frame_waits_for_no_thread_that_logs() -> None:
    """That one is in the handler, and waits to send."""
    logs, logger = threading.Event(), logging.Logger("inside")  # noqa: LOG001  not one of this process
    thread = threading.Thread(target=logger.error, args=["beside"])

    def interrupt() -> None:
        thread.start()
        logs.wait()
        logger.error("inside")

    line = Line(interrupt)
    logger.addHandler(LogForwarder(line.sender.log, lambda: logs.set()))  # noqa: PLW0108  which returns None
    line.sender.wake()
    thread.join()
    assert len(line.arrived()) == 3


def test_frames_of_all_threads_arrive_whole() -> None:
    def log(name: bytes) -> None:
        for n in range(200):
            line.sender.log(b"%s%d" % (name, n))

    line = Line(*[lambda: line.sender.log(b"inside")] * 300)
    threads = [threading.Thread(target=log, args=[name]) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line.arrived()) == sorted([b"inside"] * 300 + [b"%c%d" % (c, n) for c in b"abc" for n in range(200)])


def test_a_signal_handler_of_a_step_may_log(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> int:
        seen = 0

        def handle(*_: object) -> None:
            nonlocal seen
            seen += 1
            logging.getLogger("step").error("handler")

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for _ in range(2000):
            logging.getLogger("step").error("step")
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        return seen

    with ParallelExecutor(1) as executor:
        result = Pipeline("p").add_step(work, timeout=30).run(executor=executor)
    messages = [record.getMessage() for record in caplog.records if record.name == "step"]
    assert (messages.count("step"), messages.count("handler")) == (2000, result["work"])
