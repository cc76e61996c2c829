"""What runs in a worker process: take frames from the driver, call the steps, deliver each result at once.

```
socket ──▶ SETUP: run frame, functions      (only when they changed)
       ──▶ SHARED: a value that many calls read
       ──▶ CALLS: slot numbers and arguments ──take(slot)──▶ call ──▶ small results ──▶ shared memory
                                                                 └──▶ all others: RESULT ──▶ socket
```

A result is delivered before the next step begins: shared memory and bytes in the socket outlive the process, so a step
that is delivered never runs again, and the step claimed last is the one to blame for a death. Steps of one small
argument are called by a loop in Rust (`rust/python/calls.rs`), which also delivers what pickles to little; here is what
it leaves: arguments to load, results that are large, exceptions, a process to put in order. Everything a step does
wrong (an argument that does not load, an exception, a result that does not pickle) is that step's outcome and nothing
else's.
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
from flowyml.executors.process.protocol.driver_environment import apply, directory, enter, settle
from flowyml.executors.process.protocol.log_records import LogForwarder
from flowyml.executors.process.supervisor.process_tree import anonymous
from flowyml.executors.process.worker import output_capture
from flowyml.executors.process.worker.arena_client import ArenaClient
from flowyml.executors.process.worker.argument_decoder import ArgumentDecoder, ArgumentLoadError
from flowyml.executors.process.worker.bootstrap import WorkerResources, attach
from flowyml.executors.process.worker.functions import FunctionTable, callable_of
from flowyml.executors.process.worker.process_state import ProcessStateGuard
from flowyml.executors.process.worker.results import ResultSender, encoded, raised, refuse_to_break, with_content
from flowyml.executors.process.worker.step_context import WorkerStepContext
from flowyml.executors.process.worker.usage_meter import UsageMeter
from flowyml.runtime import random_seeds
from flowyml.steps.current_step import step_context_provider

if TYPE_CHECKING:
    from collections.abc import Callable


clock = time.monotonic

_NOT_HASHED = object()
# What a `WorkerCallLoop` says of the step at which it stopped.
_RETURNED, _RAISED, _UNCHAINED, _DONE, _ENCODED = range(5)
# Outcomes that are a value as the next step takes it.
_WHOLE = frozenset([wire.RETURNED, wire.STORED])


def main() -> None:
    """Serve the driver until it closes the socket."""
    WorkerLoop(attach()).serve()
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


class WorkerLoop:
    """One worker process.

    Args:
        lifeline: What it has from its pool.
    """

    def __init__(self, lifeline: WorkerResources) -> None:
        """Take over output and log records."""
        self._socket = lifeline.socket
        self._sender = ResultSender(lifeline)
        self._caller = lifeline.caller
        self._claims = lifeline.claims
        self._take = lifeline.claims.take
        self._set_time = lifeline.claims.set_time
        self._capture = output_capture.install(lifeline.token.encode(), self._caller)
        self._traces = ProcessStateGuard(self._caller)
        self._logs = LogForwarder(self._sender.log, lambda: self._caller.slot)
        self._functions = FunctionTable()
        self._teller = WorkerStepContext(self._caller, self._functions)
        self._loading = 0.0  # seconds for arguments to load where steps have time limits
        self._hashed: frozenset[int] = frozenset()  # the functions whose values take part in keys
        self._initialized = False  # what is to be called before the first step was called
        self._setting: tuple[str, str] | None = None  # the variable that shows it its devices alone
        self._meter = UsageMeter()
        self._shelf = ArenaClient()
        self._loader = ArgumentDecoder(self._shelf)
        os.register_at_fork(after_in_child=self._note_fork)
        sys.breakpointhook = refuse_to_break

    def serve(self) -> None:
        """Handle frames until the end of the socket."""
        self._sender.send(wire.frame(wire.READY, None))
        receiver = wire.FrameReader(self._socket)
        handlers = {wire.SETUP: self._set_up, wire.SHARED: self._share, wire.CALLS: self._run_calls}
        handlers[wire.FUNCTIONS] = self._add_functions
        with step_context_provider(self._teller):
            while not receiver.ended:
                receiver.read()
                for kind, body, segments in receiver.frames():
                    handlers[kind](body, segments)
                    del body, segments  # large arguments do not stay until the next message

    # -- before the calls

    def _set_up(self, message: Any, segments: list[bytes]) -> None:
        """Take over the run frame and the functions, where they changed."""
        body = wire.SetupBody._make(message)
        frame, payload = wire.restore(body.environment, segments), wire.restore(body.payload, segments)
        before, self._teller.run = self._teller.run.seed, wire.RunInfo._make(body.run)
        seed, self._loading = self._teller.run.seed, self._teller.run.loading_seconds
        self._setting = body.device_variable
        if self._setting is not None:  # before anything is imported that may look for devices
            name, value = self._setting
            os.environ[name] = value
        self._hashed = frozenset(body.hashed_functions)
        self._shelf.set_up(wire.ArenaConfig._make(body.arenas))
        self._loader.shared.clear()
        trouble = None
        try:
            if payload is not None:
                self._functions.set_up(payload)
            if frame is not None:
                apply(pickle.loads(frame))
        except Exception as error:  # noqa: BLE001  the steps fail with it, the worker serves on
            trouble = error
        if seed is None and before is not None:  # after a seeded run nobody can foresee random numbers
            random_seeds.end()
        self._functions.begin(body.function_count, None if seed is None else self._seeding, trouble)
        self._logs.install()
        if body.initializer is not None and trouble is None:
            call = wire.InitializerCall._make(body.initializer)
            self._initialize(call, body.function_count, anew=payload is not None)
        settle()
        self._traces.left.clear()  # what the frame and the initializer have set is to stay
        # What was imported until now stays: the collector need not look at it again.
        gc.freeze()

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
            self._enter()
            _ProcessState.is_initializing = True
            self._functions.load(call.function)
            callable_of(self._functions.original(call.function))()
            limit = call.memory_limit  # above it the first step would be blamed
            if limit is not None and (size := anonymous(os.getpid())) > limit:
                raise too_large(limit, size)  # noqa: TRY301  the same becomes of it
            self._initialized = True
        except BaseException as error:
            if self._caller.forked:
                raise  # the child ends as any child that nobody catches
            # Whatever it raises ends the run.
            _, packed = raised(error)
            self._sender.send(wire.frame(wire.NO_START, [call.run, packed]))
            self._functions.begin(count, None, error)
        finally:
            _ProcessState.is_initializing = False
        if self._caller.forked:
            _leave()
        if self._initialized:
            self._sender.send(wire.frame(wire.INITIALIZED, True))  # noqa: FBT003  the body of the frame
        self._capture.end_step()

    def _add_functions(self, body: Any, segments: list[bytes]) -> None:
        """Take over functions of steps that came during the run."""
        payload, count = body
        self._functions.add(wire.restore(payload, segments), count)

    def _seeding(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each step begin with its own random numbers."""

        @user_code_boundary
        def seeded(*args: Any, **kwargs: Any) -> Any:
            here = self._teller.step_context()
            random_seeds.begin(here.seed or 0 if here else 0)
            return function(*args, **kwargs)

        return seeded

    def _share(self, number: int, segments: list[bytes]) -> None:
        self._loader.shared[number] = segments[0]

    # -- the calls

    def _run_calls(self, message: Any, segments: list[bytes]) -> None:
        """Call the steps of one message in order, each if it was not taken back."""
        body = wire.CallsBody._make(message)
        slot, groups = body.slot, [_group(each) for each in body.groups]
        if self._functions.failed and any(group.attempts for group in groups):  # retries: by now the function may load
            self._functions.forget_failures()
        self._teller.devices = self._shown(body.devices)
        self._teller.message, self._loader.previous = (slot, groups), ...
        for group in groups:
            is_flat = group.item_index != wire.LISTS
            if is_flat and group.outputs is None and not body.eager and not self._shelf.in_use:
                self._run_many(group, slot)
            else:
                self._run_each(group, slot, segments, eager=body.eager)
            slot += len(group.calls)
        self._teller.end_message()
        self._loader.previous = ...
        if self._caller.must_wake(True):  # noqa: FBT003  positional only
            self._sender.wake()

    def _shown(self, devices: tuple[str, ...]) -> tuple[str, ...]:
        """Return the devices that the next steps have; a step before them may have set the variable otherwise."""
        if devices and self._setting is not None:
            name, value = self._setting
            if os.environ.get(name) != value:
                os.environ[name] = value
                self._traces.left.clear()  # it is to stay
        return devices

    def _run_many(self, group: wire.EncodedGroup, slot: int) -> None:
        """Call steps of one small argument each; what they do beside returning something small is seen to here."""
        calls, position = group.calls, 0
        encode = None if group.function in self._hashed else self._encode
        self._capture.begin_many()
        while position < len(calls):
            function = self._functions.called[group.function]
            if function is None or (calls[position] is ... and self._loader.must_load) or not self._enter():
                self._run_each(group, slot, [], first=position, end=position + 1)
                position += 1
                continue
            position, what, value, start = self._caller.run(
                function,
                calls,
                position,
                slot + position,
                self._capture.files,
                directory(),
                self._capture.stdout,
                self._capture.stderr,
                self._sender.wake,
                encode,
                self._loader.previous,
            )
            if what == _DONE:
                self._loader.previous = value
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
                outcome = [*raised(value)] if what == _RAISED else [wire.UNCHAINED, None]
            del value
            self._conclude(group, position, slot + position, start, outcome)
            position += 1

    def _encode(self, value: Any) -> Any:
        """Encode what a step has returned; return its pickle if that is all there is to send, else the outcome, too."""
        what, sent = encoded(value, None, "", self._shelf.dump)
        return sent if what == wire.RETURNED and not self._shelf.in_use else (what, sent)

    @staticmethod
    def _enter() -> bool:
        """Go to the run's directory; tell whether it is there."""
        try:
            enter()
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
        """Call steps one by one, from the first to before the end."""
        keywords, calls, flat = group.keywords, group.calls, group.item_index != wire.LISTS
        function, take, begin = self._functions.called[group.function], self._take, self._capture.begin_step
        for position in range(first, len(calls) if end is None else end):
            start, call = clock(), calls[position]
            simple = flat and call is not ...
            until = start if simple else start + self._loading
            if take(slot + position, until if function is not None else start + (self._loading or wire.LOADING)):
                if eager:  # its own time begins when the pipes are marked
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
        """Load the function of the step that has begun; its own time begins when it is there."""
        self._enter()
        function: Callable[..., Any] = self._functions.load(index)
        if self._caller.forked:
            _leave()
        if self._meter.runs:
            self._meter.begin()
        return function

    def _conclude(self, group: wire.EncodedGroup, position: int, slot: int, start: float, outcome: list[Any]) -> None:
        """Put in order what a step has done to this process, then send what came of it.

        The outcome is taken out of its list: nothing here may hold on to a large value.
        """
        if self._caller.forked:
            _leave()
        value, what = outcome.pop(), outcome.pop()
        returned: Any = _NOT_HASHED
        if what == wire.RETURNED:
            if group.function in self._hashed:
                returned = value
            outputs, name = (group.outputs[position], group.names[position]) if group.outputs else (None, "")
            what, value = encoded(value, outputs, name, self._shelf.dump)
        self._deliver(slot, start, what, value, returned)

    def _deliver(self, slot: int, start: float, what: int, value: Any, returned: Any = _NOT_HASHED) -> None:
        """Send what came of a step, and what of it the next one needs; `returned` is what is to be hashed beside it."""
        self._loader.previous = value if what in _WHOLE else ...
        if returned is not _NOT_HASHED:
            what, value = with_content(what, value, returned)
            del returned
        news = self._shelf.news()
        if news is not None:
            what, value = wire.LENT, [what, value, *news]
        self._capture.end_step()
        if self._traces.left:
            self._traces.put_back()
        self._sender.result(slot, start, what, value, self._meter.end() if self._meter.runs else None)

    @user_code_boundary
    def _outcome(
        self, function: Callable[..., Any], arguments: Any, keywords: Any, segments: list[bytes], *, flat: bool
    ) -> tuple[int, Any]:
        """Load the arguments and call; return what came of it."""
        if arguments is None:
            return wire.REFUSED, None
        try:
            enter()
        except OSError as error:  # the run's directory is gone
            return raised(error)
        if not flat:
            try:
                arguments = self._teller.arguments = self._loader.load(arguments, segments)
                if self._loading and self._caller.slot is not None:
                    self._set_time(self._caller.slot, clock())  # the time of a step begins when they are there
            except ArgumentLoadError as error:
                return error.outcome
        try:
            if not keywords:
                return wire.RETURNED, function(*arguments)
            count = len(keywords)
            named = dict(zip(keywords, arguments[-count:], strict=True))
            return wire.RETURNED, function(*arguments[:-count], **named)
        except BaseException as error:  # also SystemExit: whatever a step raises is its failure
            if self._caller.forked:
                raise  # the child ends as any child that nobody catches
            return raised(error)
        finally:
            if not flat:
                self._teller.forget()

    def _note_fork(self) -> None:
        """In a child that a step or the initializer forked: the socket is not its own, nor is the rest of the batch."""
        self._caller.forked = True


def _group(group: tuple[Any, ...]) -> wire.EncodedGroup:
    decoded = wire.EncodedGroup._make(group)
    return decoded._replace(calls=range(*decoded.calls)) if decoded.item_index == wire.RANGE else decoded


def _leave() -> NoReturn:
    """End at once: this process, or a child that a step or the initializer forked and that came back from it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # whatever the step put there
            stream.flush()
    os._exit(0)
