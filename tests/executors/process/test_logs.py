"""Log records of steps: packed in a worker, handled once by the driver's loggers."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from flowyml.executors.process.protocol import log_records
from flowyml.executors.process.protocol.log_records import LogForwarder, handle_record


class Unpicklable:
    def __reduce__(self) -> str:
        raise TypeError

    def __str__(self) -> str:
        return "unpicklable"


class LoadsNot:
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("x",)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """Return a logger of a "worker" in this process: its records go to the list `sent`, no other handler is known."""
    monkeypatch.setattr(log_records, "_handled_here", lambda record, forwarder: set())
    logger = logging.Logger("steps.a")  # noqa: LOG001  not the driver's logger of this name
    logger.sent = []  # type: ignore[attr-defined]
    logger.addHandler(LogForwarder(logger.sent.append, lambda: 7))  # type: ignore[attr-defined]
    return logger


def handled(worker: logging.Logger, **options: Any) -> None:
    for data in worker.sent:  # type: ignore[attr-defined]
        handle_record(data, **options)


def test_a_record_reaches_the_logger_of_its_name(worker: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    worker.warning("%s of %d", Unpicklable(), 3)

    handled(worker)

    record = caplog.records[0]
    assert (record.name, record.levelno, record.getMessage()) == ("steps.a", logging.WARNING, "unpicklable of 3")
    assert (record.funcName, record.threadName) == (
        "test_a_record_reaches_the_logger_of_its_name",
        threading.current_thread().name,
    )


def test_the_traceback_of_a_record_arrives_as_text(worker: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(Unpicklable())
    except ValueError:
        worker.exception("bad")

    handled(worker)

    assert "raise ValueError(Unpicklable())" in caplog.text
    assert caplog.text.rstrip().endswith("ValueError: unpicklable")


def test_extra_attributes_arrive_if_they_can(worker: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    worker.error("x", extra={"user": ("ann", 3), "lock": Unpicklable(), "number": LoadsNot()})

    handled(worker)

    record = caplog.records[0]
    assert record.user == ("ann", 3)  # type: ignore[attr-defined]
    assert not hasattr(record, "lock")
    assert not hasattr(record, "number")


def test_the_level_of_the_driver_counts(worker: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "steps")
    worker.warning("quiet")
    worker.error("loud")
    kept: list[tuple[int, str]] = []

    handled(worker, keep=lambda slot, text: kept.append((slot, text)))

    assert caplog.messages == ["loud"]
    assert kept == [(7, "ERROR:steps.a:loud\n")]


def test_a_message_that_cannot_be_formatted_costs_itself(
    worker: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    worker.error("%d", "x")
    worker.error("next")

    assert len(worker.sent) == 1  # type: ignore[attr-defined]
    assert "--- Logging error ---" in capsys.readouterr().err


@pytest.mark.usefixtures("caplog")
def test_a_filter_that_raises_in_the_driver_costs_its_record(
    worker: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    worker.error("x")
    driver = logging.getLogger("steps.a")
    driver.addFilter(refuse)
    try:
        handled(worker)
    finally:
        driver.removeFilter(refuse)

    assert "ZeroDivisionError" in capsys.readouterr().err


def test_records_of_all_threads_are_sent(worker: logging.Logger) -> None:
    def work() -> None:
        for n in range(100):
            worker.error("%d", n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(worker.sent) == 400  # type: ignore[attr-defined]


# ---- two processes -----------------------------------------------------------------------------------------------

WORKER = """
import logging, os, sys
from flowyml.executors.process.protocol.log_records import LogForwarder
import pickle
sent = []
forwarder = LogForwarder(sent.append)
forwarder.install(); forwarder.install()
logging.getLogger().setLevel(logging.INFO)
"""
DRIVER = """
import logging, pickle, sys
from flowyml.executors.process.protocol.log_records import handle_record
"""
HANDLE = """
for data in pickle.loads(sys.stdin.buffer.read()): handle_record(data)
"""


def both(worker: str, driver: str = "") -> tuple[str, str]:
    """Run a script as a worker and hand its records to a driver; returns what each of them printed."""
    send = "\nsys.stdout.buffer.write(pickle.dumps(sent))"
    ran = subprocess.run([sys.executable, "-c", WORKER + worker + send], capture_output=True, check=True)
    script = DRIVER + driver + HANDLE
    shown = subprocess.run([sys.executable, "-c", script], input=ran.stdout, capture_output=True, check=True)
    return ran.stderr.decode(), shown.stdout.decode() + shown.stderr.decode()


def test_warnings_reach_stderr_once_if_nobody_configured_logging() -> None:
    assert both("logging.info('quiet'); logging.getLogger('a').warning('loud')") == ("", "loud\n")


def test_the_configuration_of_the_driver_shows_the_records_of_steps() -> None:
    script = "logging.getLogger('a').info('seen')"

    assert both(script, "logging.basicConfig(level='INFO', format='%(levelname)s %(message)s')") == ("", "INFO seen\n")


ON_IMPORT = "handler = logging.StreamHandler(); logging.getLogger('lib').addHandler(handler)"


@pytest.mark.parametrize("driver", ["", ON_IMPORT], ids=["not imported in the driver", "imported in the driver"])
def test_a_module_that_brings_its_handler_shows_a_record_once(driver: str) -> None:
    assert both(ON_IMPORT + "; logging.getLogger('lib.x').warning('once')", driver) == ("once\n", "")


def test_a_handler_of_the_driver_beside_that_of_the_module_gets_the_record() -> None:
    configured = "logging.basicConfig(stream=sys.stdout, format='root %(message)s')"

    assert both(ON_IMPORT + "; logging.getLogger('lib').warning('x')", ON_IMPORT + ";" + configured) == (
        "x\n",
        "root x\n",
    )


def test_a_null_handler_of_a_library_hides_nothing_that_the_driver_wants() -> None:
    null = "logging.getLogger('lib').addHandler(logging.NullHandler())"
    configured = "logging.getLogger('lib').addHandler(logging.StreamHandler())"

    assert both(null + "; logging.getLogger('lib').warning('x')", null + ";" + configured) == ("", "x\n")


def test_a_step_that_configures_logging_does_not_lose_records() -> None:
    """`force=True` removes the forwarder; the next message installs it again."""
    script = "logging.basicConfig(force=True); logging.warning('one'); forwarder.install(); logging.error('two')"

    assert both(script) == ("WARNING:root:one\nERROR:root:two\n", "")


def test_a_forked_child_prints_its_records() -> None:
    worker, driver = both("""
if not os.fork():
    logging.info("from the child")
    os._exit(0)
os.wait()
logging.warning("from the parent")
""")

    assert (worker, driver) == ("INFO:root:from the child\n", "from the parent\n")


def test_a_packed_record_is_plain_data(worker: logging.Logger) -> None:
    """The driver loads nothing of the user's but the extra attributes, each on its own."""
    worker.error("x", extra={"own": Unpicklable})

    state, extras, handled_there, slot = pickle.loads(worker.sent[0])  # type: ignore[attr-defined]
    assert {type(value) for value in state.values()} <= {str, int, float, type(None)}
    assert (set(extras), handled_there, slot) == ({"own"}, set(), 7)
