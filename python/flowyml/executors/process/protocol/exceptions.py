"""Exceptions on their way from a worker to the driver.

```
worker: exception ─▶ pack_exception ─▶ bytes ─▶ driver: unpack_exception ─▶ the same exception, ExceptionInfo
```
A packed exception is text (names of its classes, message, traceback) and a list of *nodes*: the exception itself and
all exceptions that it is linked to by `__cause__`, `__context__` or membership in a group; links are indices. The text
always arrives. Each node is tried in three forms, and the first that can be loaded *in the worker* is sent:

1. whole, as it pickles itself, if its class defines that (`__reduce__` and the like);
2. in parts: class, `args`, attributes and slots, put together without calling the class's own `__new__` or `__init__`,
   so that constructors with arguments of their own do not matter;
3. in parts with an `UnpicklablePlaceholder` in the place of each value that cannot be pickled or loaded.

A node that can be loaded in none of them, in the worker or the driver, becomes a `RemoteError`. The worker's traceback
becomes the last `__cause__` in the chain, as a `RemoteTraceback`; the rest of the exception is as it was.
"""

from __future__ import annotations

import contextlib
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowyml._containers import NamedTuple
from flowyml.diagnostics.tracebacks import hide_internal_frames
from flowyml.errors import RemoteError, RemoteTraceback
from flowyml.results.error_text import fill_source, last_cause, message_text, shortened, traceback_text
from flowyml.store.reduction import fill, new_exception, pickles_itself, set_field, slots_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Dump = Callable[[Any], bytes]
    Load = Callable[[bytes], Any]

MAX_NODES: Final = 1000  # linked exceptions that are sent with one
MAX_REPR: Final = 1000  # characters of a placeholder


@dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """What is known of an exception without loading it.

    Attributes:
        type_names: Module and qualified name of its class and all base classes, in method resolution order.
        text: Its message.
        traceback: The worker's formatted traceback.
    """

    type_names: tuple[str, ...]
    text: str
    traceback: str


class UnpicklablePlaceholder:
    """Replaces a value of an exception that cannot be pickled or loaded; has only the `repr()` of the value."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        """Return the `repr()` of the value."""
        return self._text


class _ExceptionNode(NamedTuple):
    """One exception of a linked set; neighbours are numbers."""

    data: bytes | None
    type_name: str
    text: str
    notes: list[str]
    cause: int | None
    context: int | None
    suppress_context: bool
    members: list[int] | None


def pack_exception(exception: BaseException, dump: Dump, load: Load) -> bytes:
    """Serialize an exception with its traceback; never raises, whatever pickling or printing the exception does.

    Args:
        exception: The exception.
        dump: Pickles one object.
        load: Loads what `dump` returned.
    """
    hide_internal_frames(exception)
    info = (_type_names(type(exception)), message_text(exception), traceback_text(exception))
    try:
        nodes = [tuple(node) for node in _nodes(exception, dump, load)]
    except BaseException:  # noqa: BLE001  code of the user: its class may do anything
        nodes = [(None, info[0][0], info[1], [], None, None, False, None)]
    return pickle.dumps((info, nodes))


def unpack_info(data: bytes) -> ExceptionInfo:
    """Return what is known of a packed exception, without loading it."""
    info, _ = pickle.loads(data)
    names, text, traceback = info
    return ExceptionInfo(names, text, fill_source(traceback))


def unpack_exception(data: bytes, load: Load) -> tuple[BaseException, ExceptionInfo]:
    """Rebuild a packed exception, or a `RemoteError` in its place.

    >>> data = pack_exception(KeyError("x"), pickle.dumps, pickle.loads)
    >>> exception, info = unpack_exception(data, pickle.loads)
    >>> exception, info.type_names[:2], exception.__cause__.text.strip()
    (KeyError('x'), ('builtins.KeyError', 'builtins.LookupError'), "KeyError: 'x'")
    """
    info = unpack_info(data)
    _, nodes = pickle.loads(data)
    exception = _ExceptionRebuilder([_ExceptionNode(*node) for node in nodes], load, info.traceback).linked()[0]
    _add_cause(exception, RemoteTraceback(info.traceback))
    return exception, info


def _nodes(top: BaseException, dump: Dump, load: Load) -> Iterator[_ExceptionNode]:
    exceptions = _linked(top)
    numbers = {id(exception): number for number, exception in enumerate(exceptions)}
    for exception in exceptions:
        yield _ExceptionNode(
            data=_packed(exception, dump, load),
            type_name=_type_names(type(exception))[0],
            text=message_text(exception),
            notes=[note for note in getattr(exception, "__notes__", ()) if isinstance(note, str)],
            cause=numbers.get(id(exception.__cause__)),
            context=numbers.get(id(exception.__context__)),
            suppress_context=exception.__suppress_context__,
            members=[numbers[id(member)] for member in _members(exception) or () if id(member) in numbers] or None,
        )


def _linked(top: BaseException) -> list[BaseException]:
    """Return the linked exceptions, without a `RemoteTraceback`: its text is part of the traceback of this one."""
    found, seen = [top], {id(top)}
    for exception in found:  # grows while it is walked
        for other in (exception.__cause__, exception.__context__, *(_members(exception) or ())):
            if other is None or id(other) in seen or isinstance(other, RemoteTraceback) or len(found) >= MAX_NODES:
                continue
            found.append(other)
            seen.add(id(other))
    return found


def _packed(exception: BaseException, dump: Dump, load: Load) -> bytes | None:
    """Return the first form that can be loaded again."""
    forms = (_whole, _in_parts, _in_sure_parts) if pickles_itself(type(exception)) else (_in_parts, _in_sure_parts)
    for form in forms:
        with contextlib.suppress(BaseException):  # reduce functions and constructors may do anything
            data = dump(form(exception, dump, load))
            if _is_like(_rebuilt(load(data), _members(exception)), exception):
                return data
    return None


def _whole(exception: BaseException, _dump: Dump, _load: Load) -> BaseException:
    return exception


def _in_parts(exception: BaseException, _dump: Dump, _load: Load) -> tuple[Any, ...]:
    args = (exception.message,) if isinstance(exception, BaseExceptionGroup) else exception.args
    return type(exception), args, vars(exception), dict(slots_of(exception))


def _in_sure_parts(exception: BaseException, dump: Dump, load: Load) -> tuple[Any, ...]:
    kind, args, attributes, slots = _in_parts(exception, dump, load)
    return (
        kind,
        tuple(_sure(value, dump, load) for value in args),
        {name: _sure(value, dump, load) for name, value in attributes.items()},
        {name: _sure(value, dump, load) for name, value in slots.items()},
    )


def _sure(value: Any, dump: Dump, load: Load) -> Any:
    """Return the value if it can be pickled and loaded, else a placeholder."""
    try:
        load(dump(value))
    except BaseException:  # noqa: BLE001  reduce functions may do anything
        return UnpicklablePlaceholder(_look(value))
    return value


def _look(value: Any) -> str:
    try:
        return shortened(repr(value), MAX_REPR)
    except BaseException:  # noqa: BLE001  code of the user
        return f"<{type(value).__qualname__}>"


def _is_like(rebuilt: Any, original: BaseException) -> bool:
    """Return True if an exception is of the original's class, and can be printed if the original can."""
    same = _type_names(type(rebuilt)) == _type_names(type(original))
    return same and isinstance(rebuilt, BaseException) and (_prints(rebuilt) or not _prints(original))


def _prints(exception: BaseException) -> bool:
    try:
        str(exception)
    except BaseException:  # noqa: BLE001  code of the user
        return False
    return True


def _type_names(kind: type) -> tuple[str, ...]:
    return tuple(f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__[:-1])


def _members(exception: BaseException) -> Sequence[BaseException] | None:
    return exception.exceptions if isinstance(exception, BaseExceptionGroup) else None


def _rebuilt(loaded: Any, members: Sequence[BaseException] | None) -> BaseException:
    if isinstance(loaded, BaseException):
        return loaded
    kind, args, attributes, slots = loaded
    exception = new_exception(kind, args, members)
    fill(exception, (attributes, slots))
    return exception


class _ExceptionRebuilder:
    """Makes exceptions of nodes; the traceback is that of the first and contains the others."""

    def __init__(self, nodes: list[_ExceptionNode], load: Load, traceback: str) -> None:
        self._nodes = nodes
        self._load = load
        self._traceback = traceback
        self._made: dict[int, BaseException] = {}

    def linked(self) -> list[BaseException]:
        exceptions = [self._exception(number) for number in range(len(self._nodes))]
        for exception, node in zip(exceptions, self._nodes, strict=True):
            set_field(exception, "__cause__", None if node.cause is None else exceptions[node.cause])
            set_field(exception, "__context__", None if node.context is None else exceptions[node.context])
            set_field(exception, "__suppress_context__", node.suppress_context)
            if node.notes:
                vars(exception).setdefault("__notes__", node.notes)
        return exceptions

    def _exception(self, number: int) -> BaseException:
        if number not in self._made:
            self._made[number] = self._loaded(self._nodes[number])
        return self._made[number]

    def _loaded(self, node: _ExceptionNode) -> BaseException:
        """Load a node; a class that is unknown here affects its own exception only."""
        members = None if node.members is None else [self._exception(member) for member in node.members]
        try:
            if node.data is not None:
                return _rebuilt(self._load(node.data), members)
        except KeyboardInterrupt:
            raise  # Ctrl-C: one that loading raises would have been found in the worker
        except BaseException:  # noqa: BLE001, S110  it stands below, by name
            pass
        return RemoteError(node.type_name, node.text, self._traceback if node is self._nodes[0] else "")


def _add_cause(exception: BaseException, traceback: RemoteTraceback) -> None:
    """Make the traceback the last cause; a cyclic chain cannot take it."""
    last = last_cause(exception)
    if last.__cause__ is None:
        suppress_context = last.__suppress_context__
        set_field(last, "__cause__", traceback)
        set_field(last, "__suppress_context__", suppress_context)  # setting a cause has set it
