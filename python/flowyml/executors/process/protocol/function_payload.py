"""The functions of a run as one payload; `functions.py` has the way back in a worker.

    functions ──build_payload──▶ Payload(data, digest) ──wire──▶ Opened ──load──▶ functions, or a LoadFailure each

A function of an importable module goes by name; all others go by value, in one pickle, so that they share their
globals as they do in the driver. The payload is built again at each run (a notebook may have changed a global) and its
digest tells whether a worker has it already. The same functions with the same globals give the same digest.

The module knows nothing of steps: whatever has a `func` or `__wrapped__` that is the function may stand under its name.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flowyml._containers import NamedTuple
from flowyml.diagnostics.tracebacks import warn_caller
from flowyml.errors import SerializationError
from flowyml.executors.process.protocol.importable import by_value_modules, goes_by_value, importable
from flowyml.executors.process.protocol.reducers import is_found_by_name
from flowyml.hashing import blake2b

Function = Callable[..., object]
Reference = tuple[str, str]
"""Module, and the way from it to the function ("load", "load.func")."""

_PICKLER = "flowyml.executors.process.protocol.pickler"
"""Who needs it imports it: cloudpickle takes as long to import as all else that a run of such functions does."""

_PROTOCOL = 5
_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
LARGE = 10 * 2**20
_warned: set[bytes] = set()


class FunctionPayload(NamedTuple):
    """The functions of one run.

    Attributes:
        data: The bytes for `LoadedPayload`.
        digest: Equal for equal data.
    """

    data: bytes
    digest: bytes


def build_payload(functions: Sequence[Function], owners: Sequence[str]) -> FunctionPayload:
    """Pickle the functions of a run, together.

    Args:
        functions: Any callables; the same one may come many times.
        owners: What each is, for messages.

    Raises:
        SerializationError: A function cannot be pickled; says which, and the variable that is the reason.

    Warns:
        UserWarning: The payload is larger than 10 MiB; names the largest globals.

    >>> import json
    >>> build_payload([json.dumps], ["write"]) == build_payload([json.dumps], ["other"])
    True
    """
    # Else nothing has gone by value; another thread may be importing it.
    if (forget := getattr(sys.modules.get(_PICKLER), "forget_definitions", None)) is not None:
        forget()
    by_value_modules()  # looks at sys.path and sys.modules once; what follows asks what was found
    places: list[int | Reference] = []
    index: dict[int, int] = {}
    carriers: list[str] = []
    carried: list[Function] = []
    for function, owner in zip(functions, owners, strict=True):
        reference = _reference(function)
        if reference is None and id(function) not in index:
            index[id(function)] = len(carried)
            carriers.append(owner)
            carried.append(function)
        places.append(reference or index[id(function)])
    data = _dump(places, carried, carriers)
    payload = FunctionPayload(data, blake2b(data, digest_size=16).digest())
    if len(data) > LARGE and payload.digest not in _warned:
        _warn_large(payload, carried)
    return payload


def goes_by_name(function: Function) -> bool:
    """Tell whether workers import a function, so that what it sets there outlives the payload.

    A `functools.partial` is what it calls, if its arguments are plain: others come anew with each payload, and may be
    what the function changes.

    >>> import functools, json
    >>> goes_by_name(json.dumps), goes_by_name(functools.partial(json.dumps, 1)), goes_by_name(lambda: 1)
    (True, True, False)
    """
    while type(function) is functools.partial:
        if not all(type(value) in _PLAIN for value in (*function.args, *function.keywords.values())):
            return False
        function = function.func
    return _reference(function) is not None


def _reference(function: Any) -> Reference | None:
    """Return where a worker finds a function by name, if it can."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not importable(module):
        return None
    if goes_by_value(module):
        return None
    if is_found_by_name(function, name):
        return module, name
    for attribute in ("func", "__wrapped__"):  # of what a decorator put in its place
        if is_found_by_name(function, f"{name}.{attribute}"):
            return module, f"{name}.{attribute}"
    return None


def _dump(places: list[int | Reference], carried: list[Function], owners: list[str]) -> bytes:
    """Write the places, then everything by value in one pickle, if there is something."""
    file = io.BytesIO()
    pickle.dump(places, file, _PROTOCOL)
    if not carried:
        return file.getvalue()
    from flowyml.executors.process.protocol import pickler

    writer = pickler.FunctionPickler(file)
    try:
        with pickler.by_value():
            # In this order: the pickler fills the two dictionaries while it writes the functions.
            writer.dump((carried, writer.exports, writer.sources))
    except Exception as error:
        raise _explained(carried, owners, error) from error
    return file.getvalue()


def _explained(carried: list[Function], owners: list[str], error: Exception) -> SerializationError:
    """Find the function that does not pickle, and why."""
    from flowyml.executors.process.protocol import pickle_errors, pickler

    for owner, function in zip(owners, carried, strict=True):
        try:
            pickler.dump_by_value(function)
        except Exception as own:  # noqa: BLE001  any failure is the one that is looked for
            return SerializationError(owner, pickle_errors.explain(function, own))
    return SerializationError(", ".join(owners), str(error))


def _warn_large(payload: FunctionPayload, carried: list[Function]) -> None:
    """Say once what makes a payload large."""
    from flowyml.executors.process.protocol import pickle_errors

    warn_caller(
        f"the functions of this run take {len(payload.data) / 2**20:.1f} MiB, sent to each worker; the largest of "
        f"their globals: {pickle_errors.largest_globals(carried)}. Pass large data as params or inputs, or load it "
        "in a step"
    )
    _warned.add(payload.digest)
