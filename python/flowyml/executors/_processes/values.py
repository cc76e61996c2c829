"""Arguments and results as bytes: plain pickle where it does, by value where it does not.

    driver ── dump_value ──▶ worker        a class of `__main__` carries its definition, in case the worker lacks it
    driver ◀── dump_result ── worker       it goes by name: the driver has the class itself

Small plain objects cost what plain pickle costs. Bytes are searched for the names of modules that a worker cannot
import; a name that stands there by chance (in a string) costs time and changes nothing. The contents of arrays are not
searched: that would take longer than to copy them.
"""

from __future__ import annotations

import pickle
import sys

from flowyml.errors import SerializationError
from flowyml.executors._processes.importable import by_value_modules

_GLOBAL = b"\x93"  # opcode STACK_GLOBAL: without it no class or function is named in the bytes
_ATOMS = frozenset([bytes, bytearray, str, int, float, complex, bool, type(None)])

_TROUBLE = (Exception, SystemExit, GeneratorExit)  # what a reducer may raise without being Ctrl-C

load_value = pickle.loads
"""Load what `dump_value` or `dump_result` made; a worker does it under `flowyml._loading.loading()`."""


def dump_value(obj: object, what: str = "the value") -> bytes:
    """Pickle a value for a worker, which has the functions of the run and whatever it can import.

    Args:
        obj: The value.
        what: What it is, for the message of an error ("argument 'x' of step 'a'").

    Raises:
        SerializationError: The value cannot be pickled; names the part that cannot.

    >>> load_value(dump_value({"a": [1, 2]}))
    {'a': [1, 2]}
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    except _TROUBLE:  # a reducer of somebody else: whatever it raises, cloudpickle is asked next
        return _dump_by_value(obj, what)
    if _GLOBAL in data and type(obj) not in _ATOMS and _names_by_value(data):
        return _dump_by_value(obj, what)
    return pickle.dumps(obj, 5) if buffers else data


def dump_result(obj: object, what: str = "the result") -> bytes:
    """Pickle a value in a worker for the driver, which has every class that the worker got from it.

    Args:
        obj: The value.
        what: What it is, for the message of an error ("the result of step 'a'").

    Raises:
        SerializationError: The value cannot be pickled; names the part that cannot.
    """
    try:
        return pickle.dumps(obj, 5)
    except (*_TROUBLE, KeyboardInterrupt):  # a worker sees no Ctrl-C: it is the reducer's own
        return _dump_by_value(obj, what)


def _names_by_value(data: bytes) -> bool:
    """Tell whether the bytes may name something of a module that a worker cannot import."""
    if b"__main__" in data or ("__mp_main__" in sys.modules and b"__mp_main__" in data):
        return True
    return any(name.encode() in data for name in by_value_modules())


def _dump_by_value(obj: object, what: str) -> bytes:
    """Pickle by value; say what and why where that fails too."""
    from flowyml.executors._processes import blame, pickler

    try:
        return pickler.dump_by_value(obj)
    except Exception as error:
        raise SerializationError(what, blame.explain(obj, error)) from error
    except (SystemExit, GeneratorExit, KeyboardInterrupt) as error:
        raise SerializationError(what, f"pickling it raises {type(error).__name__}") from error
