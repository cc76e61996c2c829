"""Arrays and frames as plain data and hashes of their buffers: numpy, pandas, pyarrow.

Equal arrays have one form, whatever their strides, their blocks or their chunks are. None of the packages is imported:
what is here is asked for a type that has come up, so its package is loaded.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml._digests import blake2b

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZE = 16

Handler: TypeAlias = "Callable[[Any, Any], Any]"


def handler_of(kind: type, flat: Callable[[list[Any]], bytes]) -> Handler | None:
    """Return what writes values of a type; `None` if it is not one of these packages'.

    Args:
        kind: The type of a value.
        flat: Hashes a list of numbers and texts.
    """
    root = kind.__module__.partition(".")[0]
    if root not in _PACKAGES or root not in sys.modules:
        return None
    return _PACKAGES[root](kind, flat)


# ---- numpy -------------------------------------------------------------------------------------------------------


def _numpy(kind: type, flat: Callable[[list[Any]], bytes]) -> Handler | None:
    numpy: Any = sys.modules["numpy"]
    if kind in {numpy.ndarray, numpy.memmap}:
        return lambda _, array: _of_array(array, flat)
    return _of_scalar if issubclass(kind, numpy.generic) else None


def _of_array(array: Any, flat: Callable[[list[Any]], bytes]) -> Any:
    dtype = array.dtype
    name = dtype.descr if dtype.names else dtype.str
    if dtype.hasobject:
        return "array", name, array.shape, _of_objects(array.ravel().tolist(), flat)
    if dtype.names:  # between fields there may be bytes that nobody has set
        return "array", name, array.shape, [array[field] for field in dtype.names]
    return "array", name, array.shape, _buffer_digest(array)


def _buffer_digest(array: Any) -> bytes:
    """Hash the elements in the order of the indices."""
    numpy: Any = sys.modules["numpy"]
    view = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    return blake2b(view, digest_size=_SIZE).digest()


def _of_objects(values: list[Any], flat: Callable[[list[Any]], bytes]) -> Any:
    return ("flat", flat(values)) if _TEXTS.issuperset(map(type, values)) else values


_TEXTS = frozenset([str, int, float, bool, bytes, type(None)])


def _of_scalar(_: Any, value: Any) -> Any:
    return None if value.dtype.hasobject else ("scalar", value.dtype.str, value.tobytes())


# ---- pandas ------------------------------------------------------------------------------------------------------


def _pandas(kind: type, _: Callable[[list[Any]], bytes]) -> Handler | None:
    pandas: Any = sys.modules["pandas"]
    exact: dict[type, Handler] = {
        pandas.DataFrame: _of_frame,
        pandas.Series: lambda _, series: ("series", series.name, series.index, _column(series), series.attrs),
        pandas.RangeIndex: lambda _, index: ("range", index.start, index.stop, index.step, index.name),
        pandas.MultiIndex: lambda _, index: ("levels", index.names, _levels(index)),
        pandas.Categorical: lambda _, array: ("categories", array.categories, array.ordered, array.codes),
    }
    if kind in exact:
        return exact[kind]
    if issubclass(kind, pandas.api.extensions.ExtensionArray):
        return _of_extension
    if not issubclass(kind, pandas.Index):
        return None
    return lambda _, index: (type(index).__name__, index.name, getattr(index, "freqstr", None), _column(index))


def _levels(index: Any) -> list[Any]:
    return [index.get_level_values(level) for level in range(index.nlevels)]


def _of_frame(_: Any, frame: Any) -> Any:
    columns = [_column(frame.iloc[:, k]) for k in range(frame.shape[1])]
    return "frame", frame.columns, frame.index, columns, frame.attrs


def _column(values: Any) -> Any:
    """Return the values of a column or index: a numpy array where it has one."""
    numpy: Any = sys.modules["numpy"]
    return values.to_numpy() if isinstance(values.dtype, numpy.dtype) else values.array


def _of_extension(_: Any, array: Any) -> Any:
    """Write one of pandas' own arrays without what it remembers beside its values."""
    name = str(array.dtype)
    if hasattr(array, "_pa_array"):
        return "arrow", name, array._pa_array  # noqa: SLF001  no public way without a copy
    if hasattr(array, "asi8"):  # days and times: the numbers; a time zone stands in the name of the type
        return "times", name, array.asi8
    if hasattr(array, "_mask") and hasattr(array, "_data"):
        mask, data = array._mask, array._data.copy()  # noqa: SLF001
        data[mask] = data.dtype.type()
        return "masked", name, mask, data
    return ("texts", name, array.to_numpy(dtype=object)) if name.startswith("str") else None


# ---- pyarrow -----------------------------------------------------------------------------------------------------


def _pyarrow(kind: type, _: Callable[[list[Any]], bytes]) -> Handler | None:
    arrow: Any = sys.modules["pyarrow"]
    if kind is arrow.Table or kind is arrow.RecordBatch:
        return _of_table
    if kind is arrow.ChunkedArray:
        return lambda _, array: ("column", *_of_chunks(array))
    if issubclass(kind, arrow.Array):
        return lambda _, array: ("column", *_of_chunks(arrow.chunked_array([array])))
    return None


def _of_table(_: Any, table: Any) -> Any:
    arrow: Any = sys.modules["pyarrow"]
    columns = [_of_chunks(arrow.chunked_array(column) if _is_one(column) else column) for column in table.columns]
    return "table", table.schema.serialize().to_pybytes(), columns


def _is_one(column: Any) -> bool:
    return not hasattr(column, "num_chunks")


def _of_chunks(array: Any) -> tuple[str, bytes]:
    """Hash a column as one batch on the wire: without chunks, without what lies outside of a slice."""
    arrow: Any = sys.modules["pyarrow"]
    whole = array.combine_chunks()
    chunks = whole.chunks if hasattr(whole, "chunks") else [whole]
    state = blake2b(digest_size=_SIZE)
    for chunk in chunks:
        state.update(arrow.record_batch([chunk], names=["x"]).serialize())
    return str(array.type), state.digest()


_PACKAGES = {"numpy": _numpy, "pandas": _pandas, "pyarrow": _pyarrow}
