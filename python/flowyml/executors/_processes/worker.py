"""What runs in a worker process: take frames from the driver, call the steps, send each result at once.

```
socket ──▶ SETUP: run frame, functions      (only when they changed)
       ──▶ SHARED: a value that many calls read
       ──▶ CALLS: slot numbers and arguments ──take(slot)──▶ call ──▶ RESULT ──▶ socket
```

A result is sent before the next step begins: bytes in the socket outlive the process, so a step that is delivered never
runs again, and the step claimed last is the one to blame for a death. Everything a step does wrong (an argument that
does not load, an exception, a result that does not pickle) is that step's outcome and nothing else's.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import pickle
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from flowyml import seeding
from flowyml._coroutines import blocking
from flowyml._loading import loading
from flowyml._pipelines import AnyPipeline
from flowyml.conditions import Skipped
from flowyml.errors import FlowymlError, OutputMismatchError, SerializationError, ValueLoadError
from flowyml.executors._processes import capture, wire
from flowyml.executors._processes.borrowing import Shelf
from flowyml.executors._processes.failure import pack_exception
from flowyml.executors._processes.frame import apply, enter, settle
from flowyml.executors._processes.lifeline import Lifeline, attach
from flowyml.executors._processes.logs import LogForwarder
from flowyml.executors._processes.meter import Meter
from flowyml.executors._processes.payload import LoadFailure, load_payload
from flowyml.executors._processes.values import dump_result, load_value
from flowyml.step_context import StepContext, by_name, telling
from flowyml.store.values import Outputs, split_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

clock = time.monotonic


def main() -> None:
    """Serve the driver until it closes the socket."""
    Worker(attach()).serve()
    _end()


def _end() -> NoReturn:
    """End as a process of `multiprocessing` does.

    Threads are waited for and exit functions run; taking the interpreter apart would only take time, and touch every
    page that is shared with other workers.
    """
    # Private names, which `multiprocessing` uses for the same.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    _leave()


class Worker:
    """One worker process.

    Args:
        lifeline: What it has from its pool.
    """

    def __init__(self, lifeline: Lifeline) -> None:
        """Take over output and log records."""
        self._socket = lifeline.socket
        self._take = lifeline.claims.take
        self._set_time = lifeline.claims.set_time
        self._capture = capture.install(lifeline.token.encode())
        self._lock = threading.Lock()
        self._logs = LogForwarder(self._send_log, lambda: self._capture.slot)
        self._functions: list[Callable[..., Any]] = []
        self._loaded_functions: list[Callable[..., Any] | LoadFailure] = []
        self._called = self._functions
        # Id, pipeline, seed, whether steps have time limits, where checkpoints are, number of this worker.
        self._run: tuple[str, str, int | None, bool, str, int] = ("", "", None, False, "", 0)
        self._hashed: frozenset[int] = frozenset()  # the functions whose values take part in keys
        self._message: tuple[int, list[Any]] = (0, [])
        self._meter = Meter()
        self._arguments: Any = None
        self._told: tuple[int, StepContext] | None = None
        self._shared: dict[int, bytes] = {}
        self._shelf = Shelf()
        self._forked = False
        os.register_at_fork(after_in_child=self._note_fork)

    def serve(self) -> None:
        """Handle frames until the end of the socket."""
        self._send(wire.frame(wire.READY, None))
        receiver = wire.Receiver(self._socket)
        handlers = {wire.SETUP: self._set_up, wire.SHARED: self._share, wire.CALLS: self._run_calls}
        handlers[wire.FUNCTIONS] = self._add_functions
        with telling(self):
            while not receiver.ended:
                receiver.read()
                for kind, body, segments in receiver.frames():
                    handlers[kind](body, segments)
                    del body, segments  # large arguments do not stay until the next message

    # -- before the calls

    def _set_up(self, body: Any, segments: list[bytes]) -> None:
        """Take over the run frame and the functions, where they changed."""
        frame, payload, count = (wire.restore(part, segments) for part in body[:3])
        before, self._run = self._run, body[3]
        self._hashed = frozenset(body[4])
        self._shelf.set_up(body[5])
        self._shared.clear()
        try:
            if frame is not None:
                apply(pickle.loads(frame))
            if payload is not None:
                self._loaded_functions = load_payload(payload)
                self._functions = [_callable(each) for each in self._loaded_functions]
        except Exception as error:  # noqa: BLE001  the steps fail with it, the worker serves on
            self._functions = [_raising(error)] * count
        del self._loaded_functions[count:], self._functions[count:]  # what came during the run before
        self._seed(before[2])
        settle()
        self._logs.install()
        # What was imported until now stays: the collector need not look at it again.
        gc.freeze()

    def _add_functions(self, body: Any, segments: list[bytes]) -> None:
        """Take over functions of steps that came during the run."""
        payload, count = wire.restore(body[0], segments), body[1]
        try:
            loaded = load_payload(payload, further=True)
        except Exception as error:  # noqa: BLE001  the steps fail with it, the worker serves on
            loaded = [LoadFailure(error)] * count
        self._loaded_functions += loaded
        self._functions += map(_callable, loaded)
        self._seed(None)

    def _seed(self, before: int | None) -> None:
        """Let each step of a seeded run begin with its own random numbers; after such a run nobody can foresee them."""
        self._called = self._functions
        if self._run[2] is not None:
            self._called = [self._seeding(each) for each in self._functions]
        elif before is not None:
            seeding.end()

    def _seeding(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def seeded(*args: Any, **kwargs: Any) -> Any:
            here = self.step_context()
            seeding.begin(here.seed or 0 if here else 0)
            return function(*args, **kwargs)

        return seeded

    def _share(self, number: int, segments: list[bytes]) -> None:
        self._shared[number] = segments[0]

    # -- the calls

    def _run_calls(self, body: Any, segments: list[bytes]) -> None:
        """Call the steps of one message in order, each if it was not taken back."""
        slot, eager, groups = body
        if eager == wire.MEASURED:
            self._meter.begin()
        take, begin, end = self._take, self._capture.begin_step, self._capture.end_step
        loading = wire.LOADING if self._run[3] else 0.0
        self._message = slot, groups
        for index, keywords, outputs, names, _, _, flat, calls in groups:
            function = self._called[index]
            for position, call in enumerate(calls):
                start = clock()
                if take(slot, start if flat else start + loading):
                    begin(slot, eager=eager)
                    arguments = (call,) if flat else call
                    outcome, value = self._outcome(function, arguments, keywords, segments, flat=flat)
                    if self._forked:
                        _leave()
                    if outcome == wire.RETURNED:
                        returned, step = value, names[position] if outputs else ""
                        outcome, value = _encoded(value, outputs, step, self._shelf.dump)
                        if index in self._hashed:
                            outcome, value = _with_content(outcome, value, returned)
                        del returned
                    news = self._shelf.news()
                    if news is not None:
                        outcome, value = wire.LENT, [outcome, value, *news]
                    end()
                    self._send_result(slot, start, outcome, value)
                slot += 1
        self._message, self._told = (0, []), None

    def _outcome(  # noqa: PLR0911  each outcome has its line
        self, function: Callable[..., Any], arguments: Any, keywords: Any, segments: list[bytes], *, flat: bool
    ) -> tuple[int, Any]:
        """Load the arguments and call; return what came of it."""
        if arguments is None:
            return wire.REFUSED, None
        try:
            enter()
        except OSError as error:  # the run's directory is gone
            return wire.RAISED, pack_exception(error, dump_result, load_value)
        if not flat:
            try:
                arguments = self._arguments = self._loaded(arguments, segments)
            except _ArgumentError as error:
                return wire.UNLOADABLE, [error.position, error.reason]
        try:
            if not keywords:
                return wire.RETURNED, function(*arguments)
            count = len(keywords)
            named = dict(zip(keywords, arguments[-count:], strict=True))
            return wire.RETURNED, function(*arguments[:-count], **named)
        except Skipped:
            return wire.SKIPPED, None
        except BaseException as error:  # also SystemExit: whatever a step raises is its failure
            if self._forked:
                raise  # the child ends as any child that nobody catches
            return wire.RAISED, pack_exception(error, dump_result, load_value)
        finally:
            if not flat:
                self._arguments = self._told = None

    def step_context(self) -> StepContext | None:
        """Return the step that is running, the same object each time; see `step_context.py`."""
        slot = self._capture.slot
        if slot is None or not self._message[1]:
            return None
        if self._told is None or self._told[0] != slot:
            self._told = (slot, self._describe(slot))
        return self._told[1]

    def _describe(self, slot: int) -> StepContext:
        position = slot - self._message[0]
        for group in self._message[1]:
            if position < len(group[-1]):
                break
            position -= len(group[-1])
        function, keywords, _, names, first, attempts, flat, calls = group
        if isinstance(names, str) and first is None:
            names = names.split(wire.SEPARATOR)
        run_id, pipeline, seed, _, checkpoint_dir, worker = self._run
        step = names[position] if first is None else f"{names}[{first + position}]"
        arguments = (calls[position],) if flat else self._arguments
        return StepContext(
            run_id=run_id,
            pipeline_name=pipeline,
            step_name=step,
            index=None if first is None else first + position,
            attempt=attempts[position] if attempts else 1,
            params=by_name(self._loaded_functions[function], keywords, arguments),
            worker=worker,
            seed=None if seed is None else seeding.derived(seed, step),
            checkpoint_dir=checkpoint_dir,
        )

    def _loaded(self, arguments: list[Any], segments: list[bytes]) -> list[Any]:
        """Return the objects of the arguments; the time of a step begins when they are there.

        Raises:
            _ArgumentError: If one does not load.
        """
        plain = all(type(each) in wire.ATOMS for each in arguments)
        objects = arguments if plain else self._objects(arguments, segments)
        if self._run[3] and self._capture.slot is not None:
            self._set_time(self._capture.slot, clock())
        return objects

    def _stream(self, values: list[Any], segments: list[bytes]) -> Iterator[Any]:
        """Load values one by one, each when it is asked for, and let go of what it was loaded from.

        Raises:
            ValueLoadError: If one does not load.
        """
        values.reverse()
        for position in range(len(values)):
            each = values.pop()
            encoded = wire.restore(each, segments)
            if wire.is_segment(each):
                segments[each[0]] = b""
            try:
                with loading():
                    value = wire.decode(encoded, load_value, self._shared, self._shelf.load)
            except (Exception, SystemExit, GeneratorExit) as error:
                reason = f"{type(error).__name__}: {error}"
                raise ValueLoadError(f"item {position} of a list", reason) from error
            del each, encoded
            yield value
            del value

    def _objects(self, arguments: list[Any], segments: list[bytes]) -> list[Any]:
        objects = []
        with loading():
            for position, each in enumerate(arguments):
                if wire.is_stream(each):
                    objects.append(self._stream(each[0], segments))
                    continue
                try:
                    encoded = wire.restore(each, segments)
                    objects.append(wire.decode(encoded, load_value, self._shared, self._shelf.load))
                except BaseException as error:
                    raise _ArgumentError(position, f"{type(error).__name__}: {error}") from error
        return objects

    # -- sending

    def _send_result(self, slot: int, start: float, outcome: int, value: Any) -> None:
        if self._meter.runs and (usage := self._meter.end()) is not None:
            self._send(wire.frame(wire.USAGE, [slot, *usage]))
        segments: list[bytes] = []
        slimmed = value if type(value) in wire.ATOMS else wire.slim(value, segments)
        self._send(wire.frame(wire.RESULT, [slot, start, clock(), outcome, slimmed], segments))

    def _send_log(self, data: bytes) -> None:
        self._send(wire.frame(wire.LOG, data))

    def _send(self, buffers: list[bytes]) -> None:
        """Send a whole frame; threads of steps log through the same socket."""
        with self._lock:
            for buffer in buffers:
                self._socket.sendall(buffer)

    def _note_fork(self) -> None:
        """In a child that a step forked: the socket is not its own, nor is the rest of the batch."""
        self._forked = True


def _leave() -> NoReturn:
    """End at once: this process, or a child that a step forked and that came back from the step."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # whatever the step put there
            stream.flush()
    os._exit(0)


class _ArgumentError(Exception):
    """An argument of a call does not load."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(position, reason)
        self.position = position
        self.reason = reason


def _callable(loaded: Callable[..., Any] | LoadFailure) -> Callable[..., Any]:
    return _raising(loaded.exception) if isinstance(loaded, LoadFailure) else blocking(loaded)


def _raising(error: BaseException) -> Callable[..., Any]:
    """Stand for a function that did not load: its step fails with the reason."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _encoded(
    value: Any, outputs: tuple[str, ...] | None, step: str, dump: Callable[[Any], Any] = dump_result
) -> tuple[int, Any]:
    """Return a value as it goes to the driver, output by output where several are declared."""
    try:
        if not outputs and type(value) in wire.ATOMS:
            return wire.RETURNED, value
        if isinstance(value, AnyPipeline):
            from flowyml.dynamic_steps import packed

            return wire.PIPELINE, dump_result(packed(value), f"the pipeline {value.name!r}")  # type: ignore[attr-defined]
        if not outputs:
            data = dump(value)
            return wire.STORED if type(data) is tuple else wire.RETURNED, data
        parts: Any = split_outputs(value, tuple(outputs), step)
        return wire.PARTS, [_kind(parts), [wire.encode(part, dump) for part in parts.parts]]
    except SerializationError as error:
        return wire.UNPICKLABLE, error.reason
    except (OutputMismatchError, FlowymlError) as error:
        return wire.RAISED, pack_exception(error, dump_result, load_value)


def _with_content(outcome: int, value: Any, returned: Any) -> tuple[int, Any]:
    """Return a value as it goes to the driver with its content beside it, where it has one that is not plain to see."""
    from flowyml.keys.content import Unhashable, content

    if outcome not in {wire.RETURNED, wire.STORED, wire.PARTS} or type(returned) in wire.ATOMS:
        return outcome, value
    parts = [returned]
    if outcome == wire.PARTS:
        parts = list(returned.values()) if isinstance(returned, dict) else list(returned)
    try:
        return wire.HASHED, [outcome, value, [content(part) for part in parts]]
    except Unhashable:
        return outcome, value


def _kind(parts: Outputs) -> Any:
    """Return what kind of thing the step returned, for the wire: "tuple", "list" or the keys of a dict."""
    return parts.kind.__name__ if isinstance(parts.kind, type) else list(parts.kind)
