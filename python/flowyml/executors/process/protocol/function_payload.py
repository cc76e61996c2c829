"""The functions of a run as one payload; `worker/functions.py` loads it.

    functions ──build_payload──▶ FunctionPayload(data, digest) ──wire──▶ LoadedPayload ──load──▶ functions

A function of an importable module is sent by name. Others are sent by value, in one pickle, so that they share their
globals as they do in the driver. The payload is built at each run, since a notebook may have changed a global; its
digest tells whether a worker has it already. Equal functions with equal globals have equal digests.

An object with a `func` or `__wrapped__` that is the function may have the function's name in its module.
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
"""Module, and path from it to the function ("load", "load.func")."""

_PICKLER = "flowyml.executors.process.protocol.pickler"
"""Imported on demand: importing cloudpickle takes as long as the rest of a run with such functions."""

_PROTOCOL = 5
_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
WARN_BYTES = 10 * 2**20
_warned: set[bytes] = set()


class FunctionPayload(NamedTuple):
    """The functions of one run."""

    data: bytes  # bytes for `LoadedPayload`
    digest: bytes  # equal for equal data


def build_payload(functions: Sequence[Function], owners: Sequence[str]) -> FunctionPayload:
    """Pickle the functions of a run, together. Raises SerializationError.

    Args:
        functions: Any callables; the same one may occur many times.
        owners: What each is, for messages.


    Warns:
        UserWarning: The payload is larger than 10 MiB; names the largest globals.

    >>> import json
    >>> build_payload([json.dumps], ["write"]) == build_payload([json.dumps], ["other"])
    True
    """
    # Not imported here: nothing was sent by value, and another thread may be importing it.
    if (forget := getattr(sys.modules.get(_PICKLER), "forget_definitions", None)) is not None:
        forget()
    by_value_modules()  # scans sys.path and sys.modules once for what follows
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
    if len(data) > WARN_BYTES and payload.digest not in _warned:
        _warn_large(payload, carried)
    return payload


def goes_by_name(function: Function) -> bool:
    """Return True if workers import a function, so that what it sets there outlives the payload.

    A `functools.partial` counts as its function if its arguments are plain: others arrive again with each payload, and
    may be what the function changes.

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
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not importable(module):
        return None
    if goes_by_value(module):
        return None
    if is_found_by_name(function, name):
        return module, name
    for attribute in ("func", "__wrapped__"):  # of an object that a decorator returned
        if is_found_by_name(function, f"{name}.{attribute}"):
            return module, f"{name}.{attribute}"
    return None


def _dump(places: list[int | Reference], carried: list[Function], owners: list[str]) -> bytes:
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
    """Find the function that cannot be pickled, and the reason."""
    from flowyml.executors.process.protocol import pickle_errors, pickler

    for owner, function in zip(owners, carried, strict=True):
        try:
            pickler.dump_by_value(function)
        except Exception as own:  # noqa: BLE001  any failure is the one that is looked for
            return SerializationError(owner, pickle_errors.explain(function, own))
    return SerializationError(", ".join(owners), str(error))


def _warn_large(payload: FunctionPayload, carried: list[Function]) -> None:
    from flowyml.executors.process.protocol import pickle_errors

    warn_caller(
        f"the functions of this run take {len(payload.data) / 2**20:.1f} MiB, sent to each worker; the largest of "
        f"their globals: {pickle_errors.largest_globals(carried)}. Pass large data as params or inputs, or load it "
        "in a step"
    )
    _warned.add(payload.digest)
