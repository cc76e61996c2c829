"""Log records of steps, handled by the loggers of the driver.

```
worker: logging in any thread ─▶ LogForwarder on the root logger ─▶ send(bytes) ─▶ driver: handle_record(bytes)
                                                                    ─▶ logging.getLogger(name).handle(record)
```
So a script that configures logging only in the driver sees the records of its steps; without configuration, warnings go
to stderr as usual, once. A message is formatted in the worker, because its arguments may not be picklable; attributes
from `extra=` are sent if they can be pickled.

Handlers that a step's modules install work in the worker as anywhere. A module that is imported on both sides has its
handlers twice: those that handled a record in the worker are named in it, by logger, class and file, and are skipped in
the driver.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__)
_FORMATTED: Final = frozenset({"message", "asctime"})  # set by formatters

_HandlerKey = tuple[str, str, str | None]


class LogForwarder(logging.Handler):
    """The worker's handler, which sends each record to the driver.

    Args:
        send: Sends a packed record; called by any thread, also concurrently.
        slot: Returns the slot of the current step, if there is one.
    """

    def __init__(self, send: Callable[[bytes], None], slot: Callable[[], int | None] = lambda: None) -> None:
        super().__init__()
        self._send = send
        self._slot = slot
        self._pid = os.getpid()

    def install(self) -> None:
        """Add the handler to the root logger, unless it is there: a step may have reconfigured logging."""
        root = logging.getLogger()
        if self not in root.handlers:
            root.addHandler(self)

    def handle(self, record: logging.LogRecord) -> Any:
        """Handle a record without the lock of the handler.

        A signal handler that logs may interrupt the thread that sends a result; with the lock it would wait for a
        thread that holds the lock and waits to send.
        """
        accepted: Any = self.filter(record)
        if accepted:
            self.emit(accepted if isinstance(accepted, logging.LogRecord) else record)  # a filter may replace it
        return accepted

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; in a process that the step forked, print it."""
        try:
            if os.getpid() == self._pid:
                self._send(_pack_record(record, self._slot(), _handled_here(record, self)))
            else:
                sys.stderr.write(_described(record) + "\n")
        except Exception:  # noqa: BLE001  as every handler does
            self.handleError(record)


def handle_record(data: bytes, *, keep: Callable[[int, str], None] | None = None) -> None:
    """Pass a record from a worker to the driver's logger of the same name, if that logger is enabled for its level.

    Args:
        data: What a `LogForwarder` sent.
        keep: Called with slot and text of a record that a step logged.
    """
    state, extras, handled, slot = pickle.loads(data)
    record = logging.makeLogRecord(state | dict(_loaded(extras)))
    logger = logging.getLogger(record.name)
    if not logger.isEnabledFor(record.levelno):
        return
    if keep is not None and slot is not None:
        keep(slot, _described(record) + "\n")
    try:
        _handle(logger, record, handled)
    except Exception:  # noqa: BLE001  a filter or handler of the user: its error is not the run's
        if logging.raiseExceptions:
            traceback.print_exc()


def _pack_record(record: logging.LogRecord, slot: int | None, handled: set[_HandlerKey]) -> bytes:
    """Serialize a record; attributes that are not standard are pickled one by one."""
    state = dict(record.__dict__)
    extras = {name: state.pop(name) for name in state.keys() - _STANDARD}
    exc_text = record.exc_text
    if record.exc_info and not exc_text:
        exc_text = logging.Formatter().formatException(record.exc_info)
    state.update(msg=record.getMessage(), args=None, exc_info=None, exc_text=exc_text)
    return pickle.dumps((state, dict(_dumped(extras)), handled, slot))


def _dumped(extras: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    for name in extras.keys() - _FORMATTED:
        with contextlib.suppress(Exception):  # one attribute may be lost
            yield name, pickle.dumps(extras[name])


def _loaded(extras: dict[str, bytes]) -> Iterator[tuple[str, Any]]:
    for name, data in extras.items():
        with contextlib.suppress(Exception):  # its class may exist in the worker only
            yield name, pickle.loads(data)


def _handle(logger: logging.Logger, record: logging.LogRecord, handled: set[_HandlerKey]) -> None:
    """Do what `Logger.handle` does, without the handlers whose counterparts in the worker have handled the record."""
    if not handled:
        logger.handle(record)
        return
    accepted: Any = logger.filter(record)
    if not accepted:
        return
    if isinstance(accepted, logging.LogRecord):  # from Python 3.12 a filter may replace it
        record = accepted
    for key, handler in _handlers(logger, record.levelno):
        if key not in handled:
            handler.handle(record)


def _handled_here(record: logging.LogRecord, forwarder: LogForwarder) -> set[_HandlerKey]:
    handlers = _handlers(logging.getLogger(record.name), record.levelno)
    return {key for key, handler in handlers if handler is not forwarder}


def _handlers(start: logging.Logger, level: int) -> Iterator[tuple[_HandlerKey, logging.Handler]]:
    """Yield the handlers of a record, each with a key that is the same in both processes."""
    logger: logging.Logger | None = start
    while logger is not None:
        for handler in logger.handlers:
            if level >= handler.level:
                yield (logger.name, type(handler).__qualname__, getattr(handler, "baseFilename", None)), handler
        logger = logger.parent if logger.propagate else None


def _described(record: logging.LogRecord) -> str:
    return logging.Formatter(logging.BASIC_FORMAT).format(record)
