"""Reducers for objects that pickle would change or could not load again: memoryviews and exceptions.

* A `memoryview`: cloudpickle turns it into `bytes`. Here its buffer is pickled (out of band if the pickler allows it),
  with its format and shape.
* An exception whose class has its own `__init__` or `__new__` and no `__reduce__`: pickle would call the class with
  `args`, which fails (keyword-only parameters) or makes another exception of it (a message that `__init__`
  formats). Here it is reduced to its class, `args`, attributes and slots, and rebuilt without a call of the class.
  `protocol/exceptions.py` does the same with exceptions that steps raise.
"""

from __future__ import annotations

import contextlib
import pickle
from array import array
from itertools import islice
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by Python code
_OWN_PICKLING: Final = frozenset(
    {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"}
)
_HOLDS_NO_STATE: Final = (BaseException, BaseExceptionGroup, object)  # none beyond args, message and members
_STAYS_BEHIND: Final = AttributeError.obj  # any object, only for "did you mean"
_CONTAINERS: Final = (list, tuple, set, frozenset)
_MOST_LOOKED_AT: Final = 1000  # objects of a value in which exceptions are looked for

# ---- memoryviews -------------------------------------------------------------------------------------------------


def reduce_view(view: memoryview) -> tuple[Any, ...]:
    """Reduce a memoryview to its buffer, format and shape; the copy is contiguous.

    Raises:
        pickle.PicklingError: If a memoryview of that format cannot be rebuilt, or if it was released.

    >>> view = memoryview(array("i", [1, 2, 3, 4])).cast("B").cast("i", [2, 2])
    >>> make, arguments = reduce_view(view)
    >>> make(*arguments) == view
    True
    """
    try:
        raw: Any = pickle.PickleBuffer(view) if view.c_contiguous else view.tobytes()
        if not view.c_contiguous and not view.readonly:
            raw = bytearray(raw)
        form, shape = view.format, view.shape
    except (ValueError, BufferError) as error:
        raise pickle.PicklingError(f"cannot pickle a memoryview: {error}") from error  # it was released
    try:
        view_of(bytes(view.itemsize), form, (1,))
    except (TypeError, ValueError) as error:
        raise pickle.PicklingError(
            f"cannot pickle a memoryview of format {form!r}; use the object that it is a view of, or bytes(view)"
        ) from error
    return view_of, (raw, form, shape)


def view_of(raw: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """Return a memoryview of a buffer of bytes."""
    view = memoryview(raw).cast("B")
    if 0 in shape and (form, shape) != ("B", (0,)):  # which `cast` refuses
        return memoryview(_empty(form, shape))
    return view if (form, shape) == ("B", (len(view),)) else view.cast(form, shape)  # type: ignore[call-overload]


def _empty(form: str, shape: tuple[int, ...]) -> Any:
    """Return something empty of a format and shape."""
    if len(shape) == 1 and form in "bBhHiIlLqQfd":
        return array(form)
    import numpy as np  # made such a view: nothing in the standard library does

    return np.empty(shape, np.dtype(form))


# ---- exceptions --------------------------------------------------------------------------------------------------


def holds_exceptions(value: Any) -> bool:
    """Return True if a value is an exception or holds one, among the first thousand objects that it consists of.

    >>> holds_exceptions([1, {"a": (ValueError(),)}]), holds_exceptions([1, 2])
    (True, False)
    """
    waiting, left = [value], _MOST_LOOKED_AT
    while waiting and left > 0:
        part = waiting.pop()
        left -= 1
        if isinstance(part, BaseException):
            return True
        if isinstance(part, dict):
            waiting += islice(part.values(), left)
        elif isinstance(part, _CONTAINERS):
            waiting += islice(part, left)
        elif type(getattr(part, "__dict__", None)) is dict and not isinstance(part, type):
            waiting += islice(vars(part).values(), left)
    return False


def reduce_exception(exception: BaseException) -> Any:
    """Reduce an exception that pickle would change to its parts; `NotImplemented` for all others."""
    kind = type(exception)
    if pickles_itself(kind) or not _is_made_by_python(kind):
        return NotImplemented
    members = exception.exceptions if isinstance(exception, BaseExceptionGroup) else None
    args = (exception.message,) if isinstance(exception, BaseExceptionGroup) else exception.args
    return new_exception, (kind, args, members), (vars(exception), dict(slots_of(exception))), None, None, fill


def _is_made_by_python(kind: type) -> bool:
    """Return True if a constructor of the class is written in Python."""
    own = (base for base in kind.__mro__ if base.__flags__ & _HEAP_TYPE)
    return any("__init__" in vars(base) or "__new__" in vars(base) for base in own)


def pickles_itself(kind: type) -> bool:
    """Return True if a class written in Python says how it is pickled; members of groups travel on their own."""
    own = (base for base in kind.__mro__ if base.__flags__ & _HEAP_TYPE)
    return not issubclass(kind, BaseExceptionGroup) and any(not _OWN_PICKLING.isdisjoint(vars(base)) for base in own)


def slots_of(exception: BaseException) -> Iterator[tuple[str, Any]]:
    """Yield the state of an exception outside its `__dict__`: fields of built-in classes (`errno`) and `__slots__`."""
    for kind in type(exception).__mro__:
        for name, field in vars(kind).items() if kind not in _HOLDS_NO_STATE else ():
            if not isinstance(field, (MemberDescriptorType, GetSetDescriptorType)) or name.startswith("__"):
                continue
            with contextlib.suppress(AttributeError):  # not set; where built-in classes say `None`, it is the same
                value = field.__get__(exception)
                if field is not _STAYS_BEHIND and (value is not None or kind.__flags__ & _HEAP_TYPE):
                    yield name, value


def new_exception(
    kind: type[BaseException], args: tuple[Any, ...], members: Sequence[BaseException] | None = None
) -> BaseException:
    """Make an exception as its built-in base class does, without the constructors of its own class."""
    if members is not None:
        return BaseExceptionGroup.__new__(kind, args[0], members)  # type: ignore[type-var]
    base: Any = kind
    while base.__flags__ & _HEAP_TYPE:
        base = base.__base__
    exception: BaseException = base.__new__(kind, *args)
    with contextlib.suppress(TypeError):  # the class gives its base other arguments than `args`
        base.__init__(exception, *args)
    set_field(exception, "args", args)
    return exception


def set_field(exception: BaseException, name: str, value: Any) -> None:
    """Set a field of every exception, also if its class forbids that (a frozen dataclass)."""
    vars(BaseException)[name].__set__(exception, value)


def fill(exception: BaseException, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give an exception its attributes and slots."""
    attributes, slots = state
    vars(exception).update(attributes)
    for name, value in slots.items():
        with contextlib.suppress(AttributeError, TypeError):  # read-only, or not of the type that C code wants
            object.__setattr__(exception, name, value)
