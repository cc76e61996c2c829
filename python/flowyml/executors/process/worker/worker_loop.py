"""The main loop of a worker process: reads messages from the driver, calls the steps, delivers each result at once.

```
socket ──▶ SETUP: environment, functions    (if they changed)
       ──▶ SHARED: a value that many calls read
       ──▶ CALLS: slots and arguments ──take(slot)──▶ call ──▶ small results ──▶ shared memory
                                                           └──▶ others: RESULT ──▶ socket
```

A result is delivered before the next step begins. Shared memory and bytes in the socket outlive the process, so a
delivered step never runs again, and the step claimed last is to blame for a death. Steps with one small argument are
called by a loop in Rust (`rust/python/calls.rs`), which also delivers small results. This module handles the rest:
arguments to load, large results, exceptions, and changes of the process. An argument that cannot be loaded, an
exception and a result that cannot be pickled are the outcome of their own step alone.
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

from flowyml.diagnostics.tracebacks import user_code_boundary
from flowyml.executors.initializer import _ProcessState, too_large
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.driver_environment import apply, cwd_fd, reapply_logging_config, restore_cwd
from flowyml.executors.process.protocol.log_records import LogForwarder
from flowyml.executors.process.supervisor.process_tree import anonymous
from flowyml.executors.process.worker.arena_client import ArenaClient
from flowyml.executors.process.worker.argument_decoder import ArgumentDecoder, ArgumentLoadError
from flowyml.executors.process.worker.bootstrap import WorkerResources, attach
from flowyml.executors.process.worker.functions import FunctionTable, callable_of
from flowyml.executors.process.worker.output_capture import OutputCapture
from flowyml.executors.process.worker.process_state import ProcessStateGuard
from flowyml.executors.process.worker.results import (
    ResultSender,
    add_content_hashes,
    encode_exception,
    encode_result,
    refuse_breakpoint,
)
from flowyml.executors.process.worker.step_context import WorkerStepContext
from flowyml.executors.process.worker.usage_meter import UsageMeter
from flowyml.runtime import random_seeds
from flowyml.steps.current_step import step_context_provider

if TYPE_CHECKING:
    from collections.abc import Callable


clock = time.monotonic

_NOT_HASHED = object()
# Why a `WorkerCallLoop` stopped at a step.
_RETURNED, _RAISED, _UNCHAINED, _DONE, _ENCODED = range(5)
# Outcomes whose value a chained step can take.
_WHOLE = frozenset([wire.RETURNED, wire.STORED])


def main() -> None:
    """Serve the driver until it closes the socket."""
    WorkerLoop(attach()).serve()
    _end()


def _end() -> NoReturn:
    """Exit as a process of `multiprocessing` does: wait for threads, run exit functions, do not finalize Python.

    Finalization would only take time, and touch every page that is shared with other workers.
    """
    # Private names, which `multiprocessing` uses for the same.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    _leave()


class WorkerLoop:
    """One worker process."""

    def __init__(self, resources: WorkerResources) -> None:
        self._socket = resources.socket
        self._sender = ResultSender(resources)
        self._caller = resources.caller
        self._claims = resources.claims
        self._take = resources.claims.take
        self._set_time = resources.claims.set_time
        self._capture = OutputCapture(resources.token.encode(), self._caller)
        self._state_guard = ProcessStateGuard(self._caller)
        self._logs = LogForwarder(self._sender.log, lambda: self._caller.slot)
        self._functions = FunctionTable()
        self._context = WorkerStepContext(self._caller, self._functions)
        self._loading = 0.0  # seconds that arguments may take to load if steps have time limits
        self._hashed: frozenset[int] = frozenset()  # functions whose results are hashed for cache keys
        self._initialized = False  # the initializer was called
        self._device_variable: tuple[str, str] | None = None  # restricts this process to its devices
        self._meter = UsageMeter()
        self._arenas = ArenaClient()
        self._decoder = ArgumentDecoder(self._arenas)
        os.register_at_fork(after_in_child=self._note_fork)
        sys.breakpointhook = refuse_breakpoint

    def serve(self) -> None:
        """Handle messages until the end of the socket."""
        self._sender.send(wire.frame(wire.READY, None))
        receiver = wire.FrameReader(self._socket)
        handlers = {wire.SETUP: self._set_up, wire.SHARED: self._share, wire.CALLS: self._run_calls}
        handlers[wire.FUNCTIONS] = self._add_functions
        with step_context_provider(self._context):
            while not receiver.ended:
                receiver.read()
                for kind, body, segments in receiver.frames():
                    handlers[kind](body, segments)
                    del body, segments  # large arguments must not stay until the next message

    # -- before the calls

    def _set_up(self, message: Any, segments: list[bytes]) -> None:
        body = wire.SetupBody._make(message)
        frame, payload = wire.insert_segments(body.environment, segments), wire.insert_segments(body.payload, segments)
        before, self._context.run = self._context.run.seed, wire.RunInfo._make(body.run)
        seed, self._loading = self._context.run.seed, self._context.run.loading_seconds
        self._device_variable = body.device_variable
        if self._device_variable is not None:  # before an import that may look for devices
            name, value = self._device_variable
            os.environ[name] = value
        self._hashed = frozenset(body.hashed_functions)
        self._arenas.set_up(wire.ArenaConfig._make(body.arenas))
        self._decoder.shared.clear()
        trouble = None
        try:
            if payload is not None:
                self._functions.set_up(payload)
            if frame is not None:
                apply(pickle.loads(frame))
        except Exception as error:  # noqa: BLE001  the steps fail with it, the worker serves on
            trouble = error
        if seed is None and before is not None:  # random numbers after a seeded run are not predictable
            random_seeds.end()
        self._functions.begin(body.function_count, None if seed is None else self._seeding, trouble)
        self._logs.install()
        if body.initializer is not None and trouble is None:
            call = wire.InitializerCall._make(body.initializer)
            self._initialize(call, body.function_count, anew=payload is not None)
        reapply_logging_config()
        self._state_guard.left.clear()  # settings of the environment and the initializer stay
        gc.freeze()  # imported modules stay: the garbage collector need not visit them

    @user_code_boundary
    def _initialize(self, call: wire.InitializerCall, count: int, *, anew: bool) -> None:
        """Call the initializer unless that was done and its effects are still there; if it raises, no step runs.

        Args:
            call: The initializer.
            count: How many functions there are.
            anew: Whether the functions came with this run.
        """
        if anew and not call.is_by_name:
            self._initialized = False
        if self._initialized:
            return
        self._sender.send(wire.frame(wire.INITIALIZED, False))  # noqa: FBT003  the body of the frame
        try:
            self._restore_cwd()
            _ProcessState.is_initializing = True
            self._functions.load(call.function)
            callable_of(self._functions.original(call.function))()
            limit = call.memory_limit  # above it the first step would be blamed
            if limit is not None and (size := anonymous(os.getpid())) > limit:
                raise too_large(limit, size)  # noqa: TRY301  the same becomes of it
            self._initialized = True
        except BaseException as error:
            if self._caller.forked:
                raise  # the child ends as with any uncaught exception
            _, packed = encode_exception(error)
            self._sender.send(wire.frame(wire.INITIALIZER_FAILED, [call.run, packed]))
            self._functions.begin(count, None, error)
        finally:
            _ProcessState.is_initializing = False
        if self._caller.forked:
            _leave()
        if self._initialized:
            self._sender.send(wire.frame(wire.INITIALIZED, True))  # noqa: FBT003  the body of the frame
        self._capture.end_step()

    def _add_functions(self, body: Any, segments: list[bytes]) -> None:
        payload, count = body
        self._functions.add(wire.insert_segments(payload, segments), count)

    def _seeding(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Seed the random generators before each step."""

        @user_code_boundary
        def seeded(*args: Any, **kwargs: Any) -> Any:
            here = self._context.step_context()
            random_seeds.begin(here.seed or 0 if here else 0)
            return function(*args, **kwargs)

        return seeded

    def _share(self, number: int, segments: list[bytes]) -> None:
        self._decoder.shared[number] = segments[0]

    # -- the calls

    def _run_calls(self, message: Any, segments: list[bytes]) -> None:
        """Call the steps of one message in order, unless they were taken back."""
        body = wire.CallsBody._make(message)
        slot, groups = body.slot, [_group(each) for each in body.groups]
        if self._functions.failed and any(group.attempts for group in groups):  # retries: the function may load by now
            self._functions.forget_failures()
        self._context.devices = self._show_devices(body.devices)
        self._context.message, self._decoder.previous = (slot, groups), ...
        for group in groups:
            is_flat = group.layout != wire.LISTS
            if is_flat and group.outputs is None and not body.eager and not self._arenas.in_use:
                self._run_many(group, slot)
            else:
                self._run_each(group, slot, segments, eager=body.eager)
            slot += len(group.calls)
        self._context.end_message()
        self._decoder.previous = ...
        if self._caller.must_wake(True):  # noqa: FBT003  positional only
            self._sender.wake()

    def _show_devices(self, devices: tuple[str, ...]) -> tuple[str, ...]:
        """Set the device variable for the next steps, which an earlier step may have changed."""
        if devices and self._device_variable is not None:
            name, value = self._device_variable
            if os.environ.get(name) != value:
                os.environ[name] = value
                self._state_guard.left.clear()  # the value stays
        return devices

    def _run_many(self, group: wire.EncodedGroup, slot: int) -> None:
        """Call steps with one small argument each in the Rust loop, and handle those at which it stops."""
        calls, position = group.calls, 0
        encode = None if group.function in self._hashed else self._encode
        self._capture.begin_many()
        while position < len(calls):
            function = self._functions.called[group.function]
            if function is None or (calls[position] is ... and self._decoder.must_load) or not self._restore_cwd():
                self._run_each(group, slot, [], first=position, end=position + 1)
                position += 1
                continue
            position, what, value, start = self._caller.run(
                function,
                calls,
                position,
                slot + position,
                self._capture.files,
                cwd_fd(),
                self._capture.stdout,
                self._capture.stderr,
                self._sender.wake,
                encode,
                self._decoder.previous,
            )
            if what == _DONE:
                self._decoder.previous = value
                continue
            if what == _ENCODED:
                self._deliver(slot + position, start, *(value if type(value) is tuple else (wire.RETURNED, value)))
                del value
                position += 1
                continue
            if what == _RAISED and self._caller.forked:
                raise value
            if what == _RETURNED:
                outcome = [wire.RETURNED, value]
            else:
                outcome = [*encode_exception(value)] if what == _RAISED else [wire.CHAIN_BROKEN, None]
            del value
            self._conclude(group, position, slot + position, start, outcome)
            position += 1

    def _encode(self, value: Any) -> Any:
        """Encode a result; return its pickle if that is all, else outcome and value."""
        what, sent = encode_result(value, None, "", self._arenas.dump)
        return sent if what == wire.RETURNED and not self._arenas.in_use else (what, sent)

    @staticmethod
    def _restore_cwd() -> bool:
        try:
            restore_cwd()
        except OSError:
            return False
        return True

    def _run_each(
        self,
        group: wire.EncodedGroup,
        slot: int,
        segments: list[bytes],
        *,
        first: int = 0,
        end: int | None = None,
        eager: int = 0,
    ) -> None:
        keywords, calls, flat = group.keywords, group.calls, group.layout != wire.LISTS
        function, take, begin = self._functions.called[group.function], self._take, self._capture.begin_step
        for position in range(first, len(calls) if end is None else end):
            start, call = clock(), calls[position]
            simple = flat and call is not ...
            until = start if simple else start + self._loading
            if take(
                slot + position, until if function is not None else start + (self._loading or wire.MAX_LOADING_SECONDS)
            ):
                if eager:  # its own time begins once the pipes are marked
                    begin(slot + position, eager=True)
                    if eager == wire.MEASURED:
                        self._meter.begin()
                    start = clock()
                else:
                    begin(slot + position, eager=False)
                if function is None:
                    function, start = self._load(group.function), clock()
                    self._set_time(slot + position, start if simple else start + self._loading)
                arguments = (call,) if flat else call
                outcome = list(self._outcome(function, arguments, keywords, segments, flat=simple))
                self._conclude(group, position, slot + position, start, outcome)

    def _load(self, index: int) -> Callable[..., Any]:
        """Load the function of the current step, whose own time begins afterwards."""
        self._restore_cwd()
        function: Callable[..., Any] = self._functions.load(index)
        if self._caller.forked:
            _leave()
        if self._meter.runs:
            self._meter.begin()
        return function

    def _conclude(self, group: wire.EncodedGroup, position: int, slot: int, start: float, outcome: list[Any]) -> None:
        """Encode the outcome of a step and deliver it.

        The outcome is taken out of its list, so that nothing here keeps a large value alive.
        """
        if self._caller.forked:
            _leave()
        value, what = outcome.pop(), outcome.pop()
        returned: Any = _NOT_HASHED
        if what == wire.RETURNED:
            if group.function in self._hashed:
                returned = value
            outputs, name = (group.outputs[position], group.names[position]) if group.outputs else (None, "")
            what, value = encode_result(value, outputs, name, self._arenas.dump)
        self._deliver(slot, start, what, value, returned)

    def _deliver(self, slot: int, start: float, what: int, value: Any, returned: Any = _NOT_HASHED) -> None:
        """Restore the process and send an outcome; keep its value for a chained step. `returned` is to be hashed."""
        self._decoder.previous = value if what in _WHOLE else ...
        if returned is not _NOT_HASHED:
            what, value = add_content_hashes(what, value, returned)
            del returned
        retention_changes = self._arenas.retention_changes()
        if retention_changes is not None:
            what, value = wire.RETAINED_BLOCKS, [what, value, *retention_changes]
        self._capture.end_step()
        if self._state_guard.left:
            self._state_guard.put_back()
        self._sender.result(slot, start, what, value, self._meter.end() if self._meter.runs else None)

    @user_code_boundary
    def _outcome(
        self, function: Callable[..., Any], arguments: Any, keywords: Any, segments: list[bytes], *, flat: bool
    ) -> tuple[int, Any]:
        """Load the arguments and call the function."""
        if arguments is None:
            return wire.REFUSED, None
        try:
            restore_cwd()
        except OSError as error:  # the run's directory is gone
            return encode_exception(error)
        if not flat:
            try:
                arguments = self._context.arguments = self._decoder.load(arguments, segments)
                if self._loading and self._caller.slot is not None:
                    self._set_time(self._caller.slot, clock())  # the step's own time begins once they are loaded
            except ArgumentLoadError as error:
                return error.outcome
        try:
            if not keywords:
                return wire.RETURNED, function(*arguments)
            count = len(keywords)
            named = dict(zip(keywords, arguments[-count:], strict=True))
            return wire.RETURNED, function(*arguments[:-count], **named)
        except BaseException as error:  # also SystemExit: it is the step's failure
            if self._caller.forked:
                raise  # the child ends as with any uncaught exception
            return encode_exception(error)
        finally:
            if not flat:
                self._context.forget()

    def _note_fork(self) -> None:
        """Note that user code forked this process: it must not use the socket, nor run the rest of the batch."""
        self._caller.forked = True


def _group(group: tuple[Any, ...]) -> wire.EncodedGroup:
    decoded = wire.EncodedGroup._make(group)
    return decoded._replace(calls=range(*decoded.calls)) if decoded.layout == wire.RANGE else decoded


def _leave() -> NoReturn:
    """Exit at once: this process, or a child that a step or the initializer has forked."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # an object of the step
            stream.flush()
    os._exit(0)
