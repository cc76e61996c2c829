"""Values of every kind that the content hash knows, from spaces so small that equal ones are drawn often.

`alike` compares two of them strictly and plainly, without anything of the package. Run as a script, the module prints
the contents of drawn values, so that two processes can be compared.
"""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import fractions
import math
import pathlib
import re
import types
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from flowyml.hashing.content import content


class Shade(enum.Enum):
    LIGHT = 1
    DARK = 2


class Level(enum.IntEnum):
    LOW = 1


class Bits(enum.Flag):
    ONE = 1
    TWO = 2


class Tally(collections.Counter):
    pass


class Labelled(dict):
    pass


class Slotted(set):
    __slots__ = ("note",)


class Listed(list):
    pass


@dataclass
class Point:
    x: Any
    y: Any = 0


class Annotated(np.ndarray):
    note: Any = None


class Ratio(np.float64):
    pass


class Metres(pa.ExtensionType):
    def __init__(self, unit: str) -> None:
        self.unit = unit
        super().__init__(pa.int64(), "drawn.metres")

    def __arrow_ext_serialize__(self) -> bytes:
        return self.unit.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Metres:
        del storage
        return cls(serialized.decode())


def noted(value: Any, note: Any) -> Any:
    value.note = note
    return value


notes = st.sampled_from([None, 1, "1"])
hours = st.integers(1, 2)
zones = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.builds(lambda hour: dt.timezone(dt.timedelta(hours=hour), "X"), hours),
    st.sampled_from(["Europe/Paris", "Europe/Rome"]).map(ZoneInfo),
)
texts = st.sampled_from(["", "a", "b", "1"])

plain = st.one_of(
    st.sampled_from([None, True, False, 0, 1, 2, 0.0, -0.0, 1.0, math.nan, 1j, -0j, b"", b"a", bytearray(b"a"), ...]),
    texts,
    st.sampled_from([Shade.LIGHT, Shade.DARK, Level.LOW, Bits.ONE, Bits.ONE | Bits.TWO, int, float, Shade]),
    st.sampled_from(["1", "1.0", "NaN", "-0"]).map(decimal.Decimal),
    st.sampled_from([fractions.Fraction(1), fractions.Fraction(1, 2)]),
    st.sampled_from([pathlib.Path("a"), pathlib.Path("b"), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")]),
    st.sampled_from([range(2), range(0, 2, 2), range(1), slice(2), slice(0, 2)]),
    st.builds(re.compile, st.sampled_from(["a", "b", b"a"]), st.sampled_from([0, re.IGNORECASE])),
    st.builds(dt.datetime, st.just(2020), st.just(10), hours, hours, tzinfo=zones, fold=st.integers(0, 1)),
    st.builds(dt.time, hours, tzinfo=zones, fold=st.integers(0, 1)),
    st.builds(dt.date, st.just(2020), hours, st.just(1)),
    st.builds(dt.timedelta, hours),
    st.builds(array.array, st.sampled_from("bBil"), st.lists(st.integers(0, 1), max_size=2)),
    st.builds(lambda data, form: memoryview(data).cast(form), st.sampled_from([b"ab", b"ac"]), st.sampled_from("Bb")),
)
hashable = st.one_of(st.booleans(), st.integers(0, 1), texts, st.sampled_from([0.0, b"a", (1, "a"), None, Level.LOW]))


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few, pairs = st.lists(inner, max_size=2), st.dictionaries(hashable, inner, max_size=2)
    keys = st.lists(hashable, max_size=3)
    return st.one_of(
        few,
        few.map(tuple),
        few.map(Listed),
        few.map(lambda each: each * 40),
        st.builds(collections.deque, few, st.sampled_from([None, 2, 3])),
        keys.map(set),
        keys.map(frozenset),
        st.builds(lambda each, note: noted(Slotted(each), note), keys, notes),
        pairs,
        pairs.map(collections.OrderedDict),
        pairs.map(lambda each: types.MappingProxyType(collections.OrderedDict(each))),
        st.builds(lambda each, note: noted(Labelled(each), note), pairs, notes),
        st.builds(lambda each, note: noted(Tally(each), note), keys, notes),
        st.builds(collections.defaultdict, st.sampled_from([None, int, list]), pairs),
        st.builds(Point, inner, inner),
        st.builds(lambda each: types.SimpleNamespace(a=each), inner),
        st.builds(lambda message, cause: caused(ValueError(message), cause), texts, inner),
    )


def caused(error: Exception, cause: Any) -> Exception:
    error.__cause__ = KeyError(cause)
    return error


# ---- numpy -------------------------------------------------------------------------------------------------------

fields = [("a", "i4"), ("b", "f4")]
dtypes = st.sampled_from(
    [
        *map(np.dtype, ["?", "i4", "i8", ">i4", "f4", "f8", "g", "c16", "U2", "S2", "O", "M8[s]", "M8[ms]", "m8[s]"]),
        np.dtype("i4", metadata={"unit": "m"}),
        np.dtype("i4", metadata={"unit": "km"}),
        np.dtype(fields),
        np.dtype(fields, align=True),
        np.dtype([("x", "i4"), ("b", "f4")]),
        np.dtype([("a", "i4"), ("b", "O")]),
        np.dtype({"names": ["a", "b"], "formats": ["i2", "i1"], "offsets": [0, 1], "itemsize": 4}),
        np.dtype("V4"),
        np.dtypes.StringDType(),
        np.dtypes.StringDType(na_object=None),
    ]
)


def laid_out(given_array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "strided" and given_array.ndim:
        return np.repeat(given_array, 2, axis=0)[::2]
    return np.array(given_array, order=layout) if layout in "CF" else given_array


def in_a_kind(values: np.ndarray, kind: str, note: Any) -> Any:
    if kind == "masked":
        return np.ma.array(values, mask=note is not None, hard_mask=note == 1)
    if kind == "matrix":
        return values.view(np.matrix) if values.ndim == 2 else values
    if kind == "annotated":
        return noted(values.view(Annotated), note)
    if kind == "record":
        return values.view(np.recarray)
    if kind == "scalar" and values.size and values.ndim:
        return values.ravel()[0]
    return noted(Ratio(values.size), note) if kind == "ratio" else values


def filled(dtype: np.dtype, shape: tuple[int, ...], first: int) -> np.ndarray:
    numbers = np.arange(first, first + math.prod(shape)).reshape(shape)
    if dtype.kind == "V" and not dtype.names:
        return numbers.astype("i4").view(dtype)
    return numbers.astype(str).astype(dtype) if dtype.kind == "T" else numbers.astype(dtype)


shapes = st.sampled_from([(2,), (0,), (1,), (1, 2), (2, 1), (2, 2), ()])
layouts = st.sampled_from(["C", "F", "strided"])
kinds = st.sampled_from(["array"] * 3 + ["masked", "matrix", "annotated", "record", "scalar", "ratio"])
buffers = st.builds(laid_out, st.builds(filled, dtypes, shapes, st.integers(0, 1)), layouts)
arrays = st.one_of(
    st.builds(in_a_kind, buffers, kinds, notes),
    dtypes,
    st.lists(st.one_of(plain, buffers), max_size=2).map(lambda each: np.fromiter(each, dtype=object)),
)


# ---- pandas ------------------------------------------------------------------------------------------------------


def of_categories(codes: list[int], categories: list[Any], *, ordered: bool) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories=categories, ordered=ordered)


codes = st.lists(st.integers(0, 1), min_size=2, max_size=2)
categories = st.sampled_from([["a", "b"], ["b", "a"], ["x", "y"], ["a", "b", "c"], [1, 2]])
times = st.builds(
    lambda days, zone, unit: pd.DatetimeIndex([f"2020-01-0{day + 1}" for day in days]).as_unit(unit).tz_localize(zone),
    codes,
    zones,
    st.sampled_from(["s", "ns"]),
)
frequencies = st.sampled_from([None, "D", "B", pd.offsets.CustomBusinessDay(holidays=["2021-01-01"])])
regular = st.builds(lambda freq: pd.DatetimeIndex(["2020-01-01", "2020-01-02"], freq=freq), frequencies)
backends = st.sampled_from(
    [
        "int64",
        "int8",
        "float64",
        "object",
        "str",
        "string",
        "string[python]",
        "Int64",
        "Float64",
        "boolean",
        "category",
        "int64[pyarrow]",
        "string[pyarrow]",
        "double[pyarrow]",
        "Sparse[int64]",
        "timedelta64[s]",
    ]
)
columns = st.one_of(
    st.builds(lambda numbers, backend: pd.Series(numbers, dtype="Int64").astype(backend).array, codes, backends),
    st.builds(
        lambda ordinals, freq: pd.PeriodIndex.from_ordinals(ordinals, freq=freq).array,
        codes,
        st.sampled_from(["D", "2D", "M"]),
    ),
    st.builds(of_categories, codes, categories, ordered=st.booleans()),
    times.map(lambda each: each.array),
    st.builds(lambda side: pd.interval_range(0, 2, closed=side).array, st.sampled_from(["left", "right"])),
    st.builds(pd.arrays.SparseArray, codes, fill_value=st.integers(0, 1)),
    st.lists(st.sampled_from([1, pd.NA]), min_size=2, max_size=2).map(lambda each: pd.array(each, dtype="Int64")),
    st.builds(
        lambda numbers, values: pd.array(dictionary_array(numbers, values), dtype=pd.ArrowDtype(DICTIONARY)),
        codes,
        st.sampled_from([["a", "b"], ["x", "y"]]),
    ),
)
names = st.sampled_from([None, "a", 1, ("a", 1)])
indexes = st.one_of(
    st.builds(pd.Index, codes, name=names),
    st.builds(lambda stop, name: pd.RangeIndex(stop - 2, stop, name=name), st.integers(2, 3), names),
    times,
    regular,
    st.builds(lambda each, name: pd.Index(each, name=name), columns, names),
    st.builds(
        lambda each, level: pd.MultiIndex.from_arrays([each, ["a", "b"]], names=["one", level]),
        codes,
        st.sampled_from([None, "two"]),
    ),
    st.builds(lambda last: pd.MultiIndex.from_product([["a", last], [1, 2]])[:2], st.sampled_from(["b", "c"])),
)


def annotated(data: Any, note: Any, *, duplicates: bool) -> Any:
    data.attrs.update({} if note is None else {"note": note})
    unique = all(axis.is_unique for axis in data.axes)
    return data.set_flags(allows_duplicate_labels=duplicates or not unique)


frames = st.one_of(
    columns,
    indexes,
    st.builds(
        lambda each, index, name, note, duplicates: annotated(
            pd.Series(each, index=index, name=name), note, duplicates=duplicates
        ),
        columns,
        indexes,
        names,
        notes,
        duplicates=st.booleans(),
    ),
    st.builds(
        lambda one, other, index, labels, note, duplicates: annotated(
            pd.concat([pd.Series(one), pd.Series(other)], axis=1).set_axis(labels, axis=1).set_axis(index, axis=0),
            note,
            duplicates=duplicates,
        ),
        columns,
        columns,
        indexes,
        indexes,
        notes,
        duplicates=st.booleans(),
    ),
    st.sampled_from([pd.NaT, pd.NA, pd.Timestamp("2020"), pd.Timestamp("2020").as_unit("s"), pd.Timedelta(1, "s")]),
    st.sampled_from([pd.Period("2020", "M"), pd.Period("2020-01", "Y"), pd.Interval(0, 1), pd.Interval(0, 1, "both")]),
)


# ---- pyarrow -----------------------------------------------------------------------------------------------------

DICTIONARY = pa.dictionary(pa.int32(), pa.string())


def dictionary_array(indices: list[int], values: list[str]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(values))


def nested(values: Any, how: str) -> Any:
    if how == "struct":
        return pa.StructArray.from_arrays([values], ["field"])
    if how == "list":
        return pa.ListArray.from_arrays([0, *range(1, len(values) + 1)], values)
    return values


def held(values: Any, how: str) -> Any:
    if how == "sliced":
        return pa.concat_arrays([values.slice(0, 1), values]).slice(1)
    if how == "chunked":
        return pa.chunked_array([values.slice(0, 1), values.slice(1)])
    if how == "table":
        return pa.table({"a": pa.chunked_array([values])})
    if how == "split table":
        return pa.table({"a": pa.chunked_array([values.slice(0, 1), values.slice(1)])})
    if how == "scalar":
        return values[0]
    return pa.record_batch({"a": values}) if how == "batch" else values


few = st.lists(st.sampled_from([0, 1, None]), min_size=2, max_size=2)
dictionaries = st.sampled_from([["a", "b"], ["b", "a"], ["x", "y"], ["a", "b", "c"]])
arrow_types = st.sampled_from(
    [
        pa.int8(),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.timestamp("s", "UTC"),
        pa.timestamp("s"),
        pa.timestamp("ms"),
        pa.decimal128(5),
        pa.decimal128(6),
        pa.bool_(),
    ]
)


def as_type(numbers: list[Any], kind: Any) -> Any:
    if pa.types.is_decimal(kind):
        return pa.array([each if each is None else decimal.Decimal(each) for each in numbers], kind)
    whole = pa.array(numbers, pa.int64())
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)
    return whole.cast(pa.string()).cast(kind) if is_text else whole.cast(kind)


arrow_columns = st.one_of(
    st.builds(as_type, few, arrow_types),
    st.builds(dictionary_array, few, dictionaries),
    st.builds(
        lambda numbers, unit: pa.ExtensionArray.from_storage(Metres(unit), pa.array(numbers, pa.int64())),
        few,
        st.sampled_from(["m", "km"]),
    ),
)


arrow_values = st.one_of(
    st.builds(
        lambda values, inside, how: held(nested(values, inside), how),
        arrow_columns,
        st.sampled_from(["plain", "struct", "list"]),
        st.sampled_from(["array", "sliced", "chunked", "table", "split table", "batch", "scalar"]),
    ),
    st.builds(
        lambda numbers, each: pa.Table.from_pandas(pd.DataFrame({"a": of_categories(numbers, each, ordered=False)})),
        codes,
        categories,
    ),
    st.builds(lambda note: pa.table({"a": [1]}).replace_schema_metadata({"note": note}), texts),
    st.builds(lambda numbers: pa.RunEndEncodedArray.from_arrays([1, 2], numbers), codes),
    arrow_types,
)


# ---- polars ------------------------------------------------------------------------------------------------------

polars_types = st.sampled_from(
    [
        pl.Int8,
        pl.Int64,
        pl.Float32,
        pl.String,
        pl.Boolean,
        pl.Categorical,
        pl.Decimal(5, 0),
        pl.Decimal(6, 0),
        pl.Datetime("us"),
        pl.Datetime("ms"),
        pl.Datetime("us", "UTC"),
        pl.Object,
    ]
)
polars_enums = st.sampled_from([["a", "b"], ["b", "a"], ["x", "y"], ["a", "b", "c"]])


def polars_column(numbers: list[Any], kind: Any) -> pl.Series:
    whole = pl.Series(numbers, dtype=pl.Int64)
    if kind == pl.Object:
        return pl.Series(list(map(str, numbers)), dtype=kind)
    return whole.cast(pl.String).cast(kind) if kind == pl.Categorical else whole.cast(kind)


polars_columns = st.one_of(
    st.builds(polars_column, few, polars_types),
    st.builds(lambda numbers, each: pl.Series([each[k] for k in numbers], dtype=pl.Enum(each)), codes, polars_enums),
    st.builds(lambda each: pl.Series(each, dtype=pl.Categorical), st.permutations(["a", "b", "c"])),
    st.builds(lambda each: pl.Series([each], dtype=pl.List(pl.Categorical)), st.permutations(["a", "b"])),
    st.lists(st.sampled_from([None, {"a": 1, "b": "x"}, {"a": None, "b": "y"}]), min_size=2, max_size=2).map(
        lambda each: pl.Series(each, dtype=pl.Struct({"a": pl.Int64, "b": pl.Categorical}))
    ),
    st.builds(
        lambda each, kind: pl.Series(each, dtype=pl.List(pl.Int64)).cast(pl.List(kind)),
        st.lists(st.sampled_from([None, [], [1], [1, None]]), min_size=2, max_size=2),
        st.sampled_from([pl.Int8, pl.Int64, pl.Boolean]),
    ),
    st.lists(st.sampled_from([None, [1, 2], [1, None]]), min_size=2, max_size=2).map(
        lambda each: pl.Series(each, dtype=pl.Array(pl.Int8, 2))
    ),
    st.sampled_from([pl.Series([], dtype=pl.Int8), pl.Series([], dtype=pl.Int16), pl.Series([None], dtype=pl.Int8)]),
)


def in_polars(series: pl.Series, name: str, how: str) -> Any:
    named = series.alias(name)
    if how == "chunked" and series.dtype != pl.Object:
        return pl.concat([named[:1], named[1:]], rechunk=False)
    if how == "sliced" and series.dtype != pl.Object:
        return pl.concat([named[:1], named])[1:]
    return pl.DataFrame([named]) if how == "frame" else named


polars_values = st.one_of(
    st.builds(in_polars, polars_columns, texts, st.sampled_from(["series", "chunked", "sliced", "frame"])),
    st.sampled_from([pl.col("a"), pl.col("b"), pl.col("a") + 1, pl.lit(1), pl.lit("1")]),
    polars_types,
    polars_enums.map(pl.Enum),
)

everything = st.one_of(plain, arrays, frames, arrow_values, polars_values)
values = st.one_of(everything, st.recursive(everything, containers, max_leaves=4))
spaces = {
    "plain": st.recursive(plain, containers, max_leaves=3),
    "numpy": arrays,
    "pandas": frames,
    "pyarrow": arrow_values,
    "polars": polars_values,
}


# ---- a strict comparison -----------------------------------------------------------------------------------------


def alike(one: Any, other: Any) -> bool:
    """Return whether two values are of one type and equal in all that is visible of them."""
    return type(one) is type(other) and _rule(one)(one, other)


def _rule(value: Any) -> Any:
    return next((rule for kind, rule in RULES if isinstance(value, kind)), _alike_objects)


def _alike_floats(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def _alike_lists(one: Any, other: Any) -> bool:
    same = getattr(one, "maxlen", None) == getattr(other, "maxlen", None) and len(one) == len(other)
    return same and all(map(alike, one, other)) and alike(_extra(one), _extra(other))


def _extra(value: Any) -> Any:
    """Return what an instance of a subclass has in addition to its elements."""
    return getattr(value, "__dict__", None) or getattr(value, "note", None)


def _alike_sets(one: Any, other: Any) -> bool:
    return _matched(list(one), list(other)) and alike(_extra(one), _extra(other))


def _alike_dicts(one: Any, other: Any) -> bool:
    if getattr(one, "default_factory", None) is not getattr(other, "default_factory", None):
        return False
    if isinstance(one, collections.OrderedDict):
        return alike(list(one.items()), list(other.items()))
    return _matched(list(one.items()), list(other.items())) and alike(_extra(one), _extra(other))


def _matched(one: list[Any], other: list[Any]) -> bool:
    rest = list(other)
    for each in one:
        at = next((k for k, candidate in enumerate(rest) if alike(each, candidate)), None)
        if at is None:
            return False
        del rest[at]
    return not rest


def _alike_arrays(one: Any, other: Any) -> bool:
    if not alike(one.dtype, other.dtype) or one.shape != other.shape or not alike(_attributes(one), _attributes(other)):
        return False
    if isinstance(one, np.ma.MaskedArray):
        pairs = [(one.data, other.data), (np.ma.getmaskarray(one), np.ma.getmaskarray(other))]
        return all(map(alike, *zip(*pairs, strict=True))) and one.hardmask is other.hardmask
    return alike(_elements(one), _elements(other))


def _elements(values: Any) -> Any:
    if values.dtype.names:
        return [_elements(np.asarray(values)[name]) for name in values.dtype.names]
    if values.dtype.kind in "MmV":
        return values.tobytes()
    return [repr(each) if values.dtype.char == "g" else each for each in np.asarray(values).ravel().tolist()]


def _attributes(values: Any) -> Any:
    return None if isinstance(values, np.ma.MaskedArray) else _extra(values)


def _alike_dtypes(one: Any, other: Any) -> bool:
    same = (
        one == other
        and one.str == other.str
        and one.type is other.type
        and one.isalignedstruct == other.isalignedstruct
    )
    return bool(same) and alike(dict(one.metadata or {}), dict(other.metadata or {}))


def _alike_frames(one: Any, other: Any) -> bool:
    check = pd.testing.assert_frame_equal if isinstance(one, pd.DataFrame) else pd.testing.assert_series_equal
    try:
        check(one, other, check_exact=True, check_names=True, check_freq=True, check_flags=True)
    except AssertionError:
        return False
    axes = zip(one.axes, other.axes, strict=True)
    parts = [one] if isinstance(one, pd.Series) else [one.iloc[:, k] for k in range(one.shape[1])]
    others = [other] if isinstance(other, pd.Series) else [other.iloc[:, k] for k in range(other.shape[1])]
    cells = zip(parts, others, strict=True)
    return (
        alike(one.attrs, other.attrs)
        and alike(getattr(one, "name", None), getattr(other, "name", None))
        and all(alike(a, b) for a, b in axes)
        and all(alike(a.array, b.array) for a, b in cells)
    )


def _alike_indexes(one: Any, other: Any) -> bool:
    if not alike(list(one.names), list(other.names)) or len(one) != len(other):
        return False
    if isinstance(one, pd.MultiIndex):
        return alike(list(one.levels), list(other.levels)) and alike(
            [list(map(int, each)) for each in one.codes], [list(map(int, each)) for each in other.codes]
        )
    if isinstance(one, pd.RangeIndex):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    return alike(one.array, other.array) and _frequency(one) == _frequency(other)


def _frequency(index: Any) -> str:
    freq = getattr(index, "freq", None)
    return f"{freq!r} {getattr(freq, 'holidays', None)}"


def _alike_columns(one: Any, other: Any) -> bool:
    if repr(one.dtype) != repr(other.dtype) or one.dtype != other.dtype or len(one) != len(other):
        return False
    if isinstance(one, pd.Categorical):
        same = alike(one.categories, other.categories) and one.ordered == other.ordered
        return same and list(one.codes) == list(other.codes)
    if isinstance(one, pd.arrays.SparseArray) and one.fill_value != other.fill_value:
        return False
    if isinstance(one, pd.arrays.ArrowExtensionArray) and not isinstance(one, pd.arrays.ArrowStringArray):
        return alike(
            pa.chunked_array([one.__arrow_array__()]) if _is_one(one) else one.__arrow_array__(),
            pa.chunked_array([other.__arrow_array__()]) if _is_one(other) else other.__arrow_array__(),
        )
    if getattr(one, "tz", None) is not None and one.tz.utcoffset(dt.datetime(2020, 1, 1)) != other.tz.utcoffset(  # noqa: DTZ001
        dt.datetime(2020, 1, 1)  # noqa: DTZ001
    ):
        return False
    return all(repr(a) == repr(b) and type(a) is type(b) for a, b in zip(one, other, strict=True))


def _is_one(column: Any) -> bool:
    return isinstance(column.__arrow_array__(), pa.Array)


def _alike_arrow(one: Any, other: Any) -> bool:
    if isinstance(one, pa.DataType):
        return one.equals(other, check_metadata=True) and _units(one) == _units(other)
    if isinstance(one, (pa.Table, pa.RecordBatch)):
        same = one.schema.equals(other.schema, check_metadata=True)
        return same and all(map(_alike_arrow, one.columns, other.columns))
    return _alike_arrow(one.type, other.type) and repr(_seen(one)) == repr(_seen(other))


def _units(kind: Any) -> list[Any]:
    """Return the parameters of the extension types in a type: pyarrow compares none of nested ones."""
    if isinstance(kind, Metres):
        return [kind.unit]
    return [_units(kind.field(k).type) for k in range(kind.num_fields)] if pa.types.is_nested(kind) else []


def _seen(column: Any) -> Any:
    """Return the values and the dictionary."""
    if isinstance(column, pa.Scalar):
        return column.as_py(), column.dictionary if isinstance(column, pa.DictionaryScalar) else None
    return column.to_pylist(), _plain(column.chunks[-1] if isinstance(column, pa.ChunkedArray) else column)


def _plain(chunk: Any) -> Any:
    if isinstance(chunk, pa.DictionaryArray):
        return chunk.dictionary.to_pylist()
    if isinstance(chunk, pa.StructArray):
        return _plain(chunk.field(0))
    return _plain(chunk.values) if isinstance(chunk, pa.ListArray) else None


def _alike_polars(one: Any, other: Any) -> bool:
    if isinstance(one, pl.Expr):
        return one.meta.eq(other)
    if isinstance(one, pl.DataFrame):
        return one.shape == other.shape and all(map(alike, one.get_columns(), other.get_columns()))
    return one.name == other.name and one.dtype == other.dtype and repr(one.to_list()) == repr(other.to_list())


def _alike_objects(one: Any, other: Any) -> bool:
    if isinstance(one, Exception):
        return alike(one.args, other.args) and (
            one.__cause__ is other.__cause__ is None or alike(one.__cause__, other.__cause__)
        )
    if isinstance(one, (Point, types.SimpleNamespace)):
        return alike(vars(one), vars(other))
    if isinstance(one, types.MappingProxyType):
        return alike(one.copy(), other.copy())
    if isinstance(one, (memoryview, array.array)):
        return (
            alike(list(one), list(other))
            and repr(getattr(one, "format", 0)) == repr(getattr(other, "format", 0))
            and (getattr(one, "typecode", 0) == getattr(other, "typecode", 0))
        )
    if isinstance(one, (dt.datetime, dt.time)):
        return (one.replace(tzinfo=None), one.fold, repr(one.tzinfo), getattr(one, "unit", None)) == (
            other.replace(tzinfo=None),
            other.fold,
            repr(other.tzinfo),
            getattr(other, "unit", None),
        )
    return one is other or (repr(one) == repr(other) and bool(np.all(one == other) or one != one))  # noqa: PLR0124  NaN


def _alike_numbers(one: Any, other: Any) -> bool:
    return _alike_arrays(np.asarray(one), np.asarray(other)) and alike(_extra(one), _extra(other))


RULES = (
    (np.generic, _alike_numbers),
    ((float, complex), _alike_floats),
    ((set, frozenset), _alike_sets),
    (dict, _alike_dicts),
    ((list, tuple, collections.deque), _alike_lists),
    (np.ndarray, _alike_arrays),
    (np.dtype, _alike_dtypes),
    ((pd.DataFrame, pd.Series), _alike_frames),
    (pd.Index, _alike_indexes),
    (pd.api.extensions.ExtensionArray, _alike_columns),
    ((pa.Array, pa.ChunkedArray, pa.Table, pa.RecordBatch, pa.Scalar, pa.DataType), _alike_arrow),
    ((pl.Series, pl.DataFrame, pl.Expr), _alike_polars),
)


def contents(count: int) -> list[str]:
    """Return the contents of values that are drawn alike in every process."""
    found = []

    @seed(1)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values)
    def collect(value: Any) -> None:
        found.append(content(value).hex())

    collect()
    return found


if __name__ == "__main__":
    print("\n".join(contents(1000)))
