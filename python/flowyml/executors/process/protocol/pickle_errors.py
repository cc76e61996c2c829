"""Finds the variable that makes pickling fail, and those that make a payload large.

Both walk from a function to what it refers to: the globals that its code names, its closure, its defaults, and parts of
the values found there. Only called after an error or for a warning, so each part may be pickled again.
"""

from __future__ import annotations

import dis
import functools
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from flowyml.executors.process.protocol.pickler import dump_by_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_GLOBAL_OPS = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")
MAX_DEPTH = 20
LARGEST_GLOBALS = 3


def explain(obj: object, error: BaseException, attempt: BaseException | None = None) -> str:
    """Return why an object cannot be pickled: the pickler's message, and the path to the part that cannot.

    Args:
        obj: The object.
        error: What pickling raised.
        attempt: What plain pickle raised before, which says the same in other words.

    Returns:
        For example "global variable 'LOCK' of load(): cannot pickle '_thread.lock' object".
    """
    try:
        way = _path_to_culprit(obj, set(), 0)
    except Exception:  # noqa: BLE001  user code may raise, or another thread change the object
        way = []
    reason = _message(error, attempt)
    return f"{' > '.join(way)}: {reason}" if way else reason


def _message(error: BaseException, attempt: BaseException | None) -> str:
    """Return the message of an exception and of its context: Python 3.14 calls `repr` for a note, which may raise."""
    words = str(error) or type(error).__name__
    before = None if error.__suppress_context__ else error.__context__
    if before is None or before is attempt:
        return words
    words_before = _message(before, attempt)
    return words if words_before == words else f"{words} (before that: {words_before})"


def _path_to_culprit(obj: object, seen: set[int], depth: int) -> list[str]:
    if depth > MAX_DEPTH:
        return []
    for label, part in _parts(obj):
        if id(part) in seen or isinstance(part, ModuleType) or _pickles(part):
            continue
        seen.add(id(part))
        return [label, *_path_to_culprit(part, seen, depth + 1)]
    return []


def _pickles(obj: object) -> bool:
    try:
        dump_by_value(obj)
    except Exception:  # noqa: BLE001  any failure is an answer
        return False
    return True


def _parts(obj: Any) -> Iterable[tuple[str, object]]:
    if isinstance(obj, FunctionType):
        return _parts_of_function(obj)
    if isinstance(obj, MethodType):
        return [("its object", obj.__self__), (f"{obj.__name__}()", obj.__func__)]
    if isinstance(obj, functools.partial):
        arguments = [*enumerate(obj.args), *obj.keywords.items()]
        return [("its function", obj.func), *((f"argument {name!r}", value) for name, value in arguments)]
    if isinstance(obj, dict | list | tuple | set | frozenset):
        items = obj.items() if isinstance(obj, dict) else enumerate(obj)
        return [(f"[{key!r}]", value) for key, value in items]
    return [(f".{name}", value) for name, value in list(getattr(obj, "__dict__", {}).items())]


def _parts_of_function(func: FunctionType) -> Iterator[tuple[str, object]]:
    of = f"of {func.__qualname__}()"
    for name in global_names(func.__code__):
        if name in func.__globals__:
            yield f"global variable {name!r} {of}", func.__globals__[name]
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=False):
        try:
            yield f"closure variable {name!r} {of}", cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for default in [*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()]:
        yield f"a default value {of}", default
    for name, value in vars(func).items():
        yield f"attribute {name!r} {of}", value


def global_names(code: CodeType) -> list[str]:
    """Return the global names that code and nested code use, in order."""
    names = {op.argval: None for op in dis.get_instructions(code) if op.opname in _GLOBAL_OPS}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(global_names(constant)))
    return list(names)


def largest_globals(functions: Iterable[object]) -> str:
    """Return the variables that take most of a payload ("TABLE (80.0 MiB), ...")."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for function in functions:
        _measure(function, "", sizes, seen)
    first = sorted(sizes.items(), key=lambda item: -item[1])[:LARGEST_GLOBALS]
    return ", ".join(f"{label} ({size / 2**20:.1f} MiB)" for label, size in first)


def _measure(obj: object, label: str, sizes: dict[str, int], seen: set[int]) -> None:
    if id(obj) in seen or isinstance(obj, ModuleType):
        return
    seen.add(id(obj))
    if not label or isinstance(obj, FunctionType | MethodType | functools.partial):
        for name, part in _parts(obj):
            _measure(part, name, sizes, seen)
    elif _pickles(obj):
        sizes[label] = len(dump_by_value(obj))
