"""Canonical forms of arrays and frames by their buffers: numpy, pandas, pyarrow, polars.

Equal arrays have one form, whatever their strides, blocks or chunks. None of the packages is imported: a handler is
looked up for a type of such a package, so the package is loaded.

A form is complete: it has the type, the dtype with its parameters, the dictionaries of dictionary arrays, names and
flags. Types without a form here (a subclass with its own pickling, an extension array of another package) are pickled.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml.hashing import blake2b

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_SIZE = 16

Handler: TypeAlias = "Callable[[Any, Any], Any]"


def handler_of(kind: type, flat: Callable[[list[Any]], bytes]) -> Handler | None:
    """Return the function that writes values of a type; `None` for types outside of these packages."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, (numpy.ndarray, numpy.generic)):  # also subclasses of the user
        return _numpy(kind, flat)
    root = kind.__module__.partition(".")[0]
    if root not in _PACKAGES or root not in sys.modules:
        return None
    return _PACKAGES[root](kind)


class _Hash:
    """A file object that hashes the written data."""

    closed = False

    def __init__(self) -> None:
        self._state = blake2b(digest_size=_SIZE)
        self.digest = self._state.digest

    def write(self, data: Any) -> int:
        """Hash some bytes."""
        self._state.update(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""


# ---- numpy -------------------------------------------------------------------------------------------------------


def _numpy(kind: type, flat: Callable[[list[Any]], bytes]) -> Handler | None:
    numpy: Any = sys.modules["numpy"]
    if kind in {numpy.ndarray, numpy.memmap}:
        return lambda _, array: _of_array(array, flat)
    if issubclass(kind, numpy.generic):
        return lambda _, value: _of_scalar(value, flat)
    if kind is numpy.ma.MaskedArray:
        return lambda _, array: _of_masked_array(array, flat)
    if kind.__reduce__ is not numpy.ndarray.__reduce__ or kind.__reduce_ex__ is not numpy.ndarray.__reduce_ex__:
        return None
    return lambda _, array: ("array of", kind, _of_array(array.view(numpy.ndarray), flat), _attributes(array))


def _of_array(array: Any, flat: Callable[[list[Any]], bytes]) -> Any:
    dtype = array.dtype
    name = _of_dtype(dtype)
    if dtype.hasobject:
        return "array", name, array.shape, _of_objects(array.ravel().tolist(), flat)
    if dtype.names:  # the padding between fields is undefined
        return "array", name, array.shape, [array[field] for field in dtype.names]
    return "array", name, array.shape, _buffer_digest(array)


def _of_dtype(dtype: Any) -> Any:
    return dtype.str if dtype.num in _NAMED and dtype.metadata is None else dtype


_VOID = 20
_NAMED = frozenset(range(24)) - {_VOID}  # numpy's own dtypes without fields; ids of others start at 256
_LONG_DOUBLES = frozenset([13, 16])


def _buffer_digest(array: Any) -> bytes:
    numpy: Any = sys.modules["numpy"]
    view = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    if array.dtype.num in _LONG_DOUBLES:
        view = _without_padding(view, array.dtype)
    return blake2b(view, digest_size=_SIZE).digest()


def _without_padding(view: Any, dtype: Any) -> Any:
    """Return the 10 bytes of each x87 number without its padding to 12 or 16, which is undefined."""
    numpy: Any = sys.modules["numpy"]
    if numpy.finfo(dtype).nmant != 63:  # noqa: PLR2004  bits of an x87 number
        return view
    size = numpy.dtype("longdouble").itemsize
    return numpy.ascontiguousarray(view.reshape(-1, size)[:, :10])


def _of_objects(values: list[Any], flat: Callable[[list[Any]], bytes]) -> Any:
    return ("flat", flat(values)) if _PLAIN_TYPES.issuperset(map(type, values)) else values


_PLAIN_TYPES = frozenset([str, int, float, bool, bytes, type(None)])


def _of_scalar(value: Any, flat: Callable[[list[Any]], bytes]) -> Any:
    dtype, kind = value.dtype, type(value)
    if kind is dtype.type and dtype.num in _NAMED and dtype.num not in _LONG_DOUBLES and dtype.metadata is None:
        return "scalar", dtype.str, value.tobytes()
    numpy: Any = sys.modules["numpy"]
    return "scalar of", kind, _of_array(numpy.asarray(value), flat), _attributes(value)


def _of_masked_array(array: Any, flat: Callable[[list[Any]], bytes]) -> Any:
    numpy: Any = sys.modules["numpy"]
    data, mask = _of_array(numpy.asarray(array.data), flat), _of_array(numpy.ma.getmaskarray(array), flat)
    return "masked array", type(array.data), data, mask, array.fill_value, array.hardmask


def _attributes(value: Any) -> Any:
    """Return the attributes of a subclass, which numpy does not pickle."""
    return getattr(value, "__dict__", None) or None


# ---- pandas ------------------------------------------------------------------------------------------------------


def _pandas(kind: type) -> Handler | None:
    pandas: Any = sys.modules["pandas"]
    exact: dict[type, Handler] = {
        pandas.DataFrame: _of_frame,
        pandas.Series: lambda _, series: ("series", series.name, series.index, _column(series), *_notes(series)),
        pandas.RangeIndex: lambda _, index: ("range", index.start, index.stop, index.step, index.name),
        pandas.MultiIndex: lambda _, index: ("levels", index.names, list(index.levels), list(index.codes)),
        pandas.Categorical: lambda _, array: ("categories", array.categories, array.ordered, array.codes),
    }
    if kind in exact:
        return exact[kind]
    if issubclass(kind, pandas.api.extensions.ExtensionArray):
        return _of_extension
    if not issubclass(kind, pandas.Index):
        return None
    return lambda _, index: ("index", kind, index.name, getattr(index, "freq", None), _column(index))


def _of_frame(_: Any, frame: Any) -> Any:
    columns = [_column(frame.iloc[:, k]) for k in range(frame.shape[1])]
    return "frame", frame.columns, frame.index, columns, *_notes(frame)


def _notes(data: Any) -> tuple[Any, bool]:
    return data.attrs, data.flags.allows_duplicate_labels


def _column(values: Any) -> Any:
    numpy: Any = sys.modules["numpy"]
    return values.to_numpy() if isinstance(values.dtype, numpy.dtype) else values.array


def _of_extension(_: Any, array: Any) -> Any:
    """Return the form of one of pandas' own arrays, without its caches."""
    name = type(array), repr(array.dtype)
    if hasattr(array, "_pa_array"):
        return "arrow", name, array._pa_array  # noqa: SLF001  no public way without a copy
    if hasattr(array, "asi8"):  # dates and times: the integers; two time zones may have one name
        return "times", name, array.asi8, getattr(array, "tz", None), getattr(array, "freq", None)
    if hasattr(array, "_mask") and hasattr(array, "_data"):
        mask, data = array._mask, array._data.copy()  # noqa: SLF001
        data[mask] = data.dtype.type()
        return "masked", name, mask, data
    return ("texts", name, array.to_numpy(dtype=object)) if str(array.dtype).startswith("str") else None


# ---- pyarrow -----------------------------------------------------------------------------------------------------


def _pyarrow(kind: type) -> Handler | None:
    arrow: Any = sys.modules["pyarrow"]
    if kind is arrow.Table or kind is arrow.RecordBatch:
        return lambda _, table: (kind.__name__, table.schema.serialize().to_pybytes(), *map(_chunks, table.columns))
    if kind.__module__ == "pyarrow._dataset" and kind.__name__.endswith(_FILE_REFERENCES):
        return _of_dataset
    if kind is arrow.ChunkedArray or issubclass(kind, arrow.Array):
        return lambda _, array: (kind.__name__, _chunks(array))
    return None


_FILE_REFERENCES = ("Dataset", "Fragment", "Factory")


def _of_dataset(_: Any, dataset: Any) -> None:
    raise TypeError(
        f"a {type(dataset).__name__} refers to files without holding their content; pass flowyml.File objects"
    )


def _chunks(array: Any) -> bytes:
    """Hash a column as an IPC stream, independent of chunks and without data outside of a slice.

    A stream rather than a record batch, because it also has the type with all parameters and the dictionaries.
    """
    arrow: Any = sys.modules["pyarrow"]
    file = _Hash()
    schema = arrow.schema([arrow.field("x", array.type)])
    with arrow.ipc.new_stream(arrow.PythonFile(file, mode="w"), schema) as stream:
        for chunk in _merged_chunks(array):
            stream.write(arrow.record_batch([chunk], schema=schema))
    return file.digest()


def _merged_chunks(array: Any) -> Iterable[Any]:
    """Return an array in as few chunks as possible: one, except for strings over 2 GB and nested dictionaries."""
    arrow: Any = sys.modules["pyarrow"]
    chunks = array.chunks if hasattr(array, "chunks") else [array]
    if len(chunks) == 1 and not _has_bitmap(chunks[0]):
        return chunks
    try:  # also for one chunk: the last byte of a slice's bitmap has bits from outside of the slice
        return [arrow.concat_arrays(chunks)] if chunks else [arrow.array([], array.type)]
    except (NotImplementedError, ValueError):  # pyarrow's errors are subclasses of these
        return chunks


def _has_bitmap(chunk: Any) -> bool:
    types: Any = sys.modules["pyarrow"].types
    kind = chunk.type
    return bool(chunk.null_count) or not ((types.is_primitive(kind) and not types.is_boolean(kind)) or _is_text(kind))


def _is_text(kind: Any) -> bool:
    types: Any = sys.modules["pyarrow"].types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind))


# ---- polars ------------------------------------------------------------------------------------------------------


def _polars(kind: type) -> Handler | None:
    polars: Any = sys.modules["polars"]
    if kind is polars.Series:
        return lambda _, series: ("polars series", *_of_series(series))
    if kind is polars.DataFrame:
        return lambda _, frame: ("polars frame", frame.height, [_of_series(column) for column in frame.get_columns()])
    return {polars.LazyFrame: _of_lazy_frame, polars.Expr: _of_expression}.get(kind)


def _of_series(series: Any) -> tuple[Any, ...]:
    polars: Any = sys.modules["polars"]
    objects = series.dtype == polars.Object
    return series.name, series.dtype, series.to_list() if objects else list(_parts(series.rechunk()))


def _parts(series: Any) -> Iterator[Any]:
    """Split a column into columns without bitmaps and categories.

    The last byte of a bitmap has undefined bits, a null has an undefined value, and the codes of categories differ
    between processes.
    """
    polars: Any = sys.modules["polars"]
    dtype = series.dtype
    yield len(series)
    if series.null_count():
        yield _stream(series.is_null().cast(polars.UInt8))
    if dtype == polars.Struct:
        for field in series.struct.fields:
            yield from _parts(series.struct.field(field))
    elif dtype == polars.List:
        lengths = series.list.len().fill_null(0)
        yield _stream(lengths)
        yield from _parts(series.filter(lengths > 0).explode().rechunk())
    elif dtype == polars.Array:
        yield from _parts(series.drop_nulls().explode().rechunk() if dtype.size else polars.Series(dtype=polars.Null))
    elif dtype == polars.Boolean:
        yield _stream(series.cast(polars.UInt8).fill_null(0))
    elif dtype == polars.String or dtype == polars.Categorical or dtype == polars.Enum:  # noqa: PLR1714  unhashable
        yield _stream(series.cast(polars.String).fill_null(""))
    elif dtype == polars.Binary:
        yield _stream(series.fill_null(b""))
    elif dtype != polars.Null:
        yield _stream(series.to_physical().fill_null(0))


def _stream(series: Any) -> bytes:
    file, oldest = _Hash(), sys.modules["polars"].CompatLevel.oldest()  # contiguous strings, no views
    series.rechunk().alias("").to_frame().write_ipc_stream(file, compression="uncompressed", compat_level=oldest)
    return file.digest()


def _of_lazy_frame(_: Any, frame: Any) -> None:
    del frame
    raise TypeError("a lazy frame may scan files without holding their content; collect() it, or pass a flowyml.File")


def _of_expression(_: Any, expression: Any) -> Any:
    """Return the form of an expression; refuse Python functions, of which it has only the name or the own code."""
    state = expression.__getstate__()
    if _PICKLE.search(state):
        raise TypeError(
            "a polars expression that calls a Python function has no content to hash; build it inside the step"
        )
    return "polars expression", state


# The beginning of the pickle of a function, as bytes and as a list of integers in MessagePack.
_PICKLE = re.compile(rb"\xcc?\x80\xcc?[\x02-\x08]\xcc?\x95")

_PACKAGES = {"pandas": _pandas, "pyarrow": _pyarrow, "polars": _polars}
