"""The content of values: equal for equal values, whatever they were made of, and different for all others."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import functools
import pickle
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml.hashing.content import UnhashableError, content


class Number(int):
    pass


class Shade(enum.IntEnum):
    DARK = 1


class Tone(enum.Enum):
    LOW = 1


@dataclass
class Point:
    x: object
    y: object


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


def linked():
    """Return an object that holds itself, by way of a dict and a list."""
    point = Point([], {})
    point.x.append(point)
    point.y["me"] = point.y
    return point


ONES = [
    1,
    1.0,
    True,
    "1",
    b"1",
    1j,
    Number(1),
    Shade.DARK,
    Tone.LOW,
    np.int64(1),
    np.int32(1),
    np.float64(1),
    np.bool_(1),
]
SEQUENCES = [
    *((), [], {}, set(), frozenset(), "", b"", bytearray(), range(0)),
    *((1, 2), [1, 2], {1, 2}, frozenset([1, 2]), {1: 2}, [2, 1], [[1, 2]], [1.0, 2]),
    *([1] * 100, (1,) * 100, [1.0] * 100, [True] * 100, [1] * 101, [[1] * 100]),
    *(collections.deque([1, 2]), collections.OrderedDict({1: 2}), collections.defaultdict(int, {1: 2})),
    *(collections.Counter({1: 2}), types.MappingProxyType({1: 2})),
]
ARRAYS = [
    *(np.arange(6), np.arange(6.0), np.arange(6).astype("i4"), np.arange(6).reshape(2, 3), np.arange(7)),
    *(np.array(["a", "b"]), np.array(["a", "b"], dtype=object), np.array(["a", 1], dtype=object), np.array(1)),
    *(np.arange(3).astype("M8[s]"), np.arange(3).astype("M8[ms]"), np.zeros(2, dtype=[("a", "i4")]), np.zeros((0, 3))),
    *(
        pd.Series([1, 2]),
        pd.Series([1, 2], name="n"),
        pd.Series([1, 2], index=[1, 2]),
        pd.Index([1, 2]),
        pd.Series([1.0, 2]),
    ),
    *(pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"b": [1, 2]}), pd.DataFrame({"a": [1, 3]}), pd.RangeIndex(1, 3)),
    *(
        pd.Series(["a", "b"]),
        pd.Series(["a", "b"], dtype="category"),
        pd.Series(["a", None]),
        pd.Series([1, None], dtype="Int64"),
    ),
    *(pd.date_range("2020", periods=2), pd.date_range("2020", periods=2, tz="UTC"), pd.Timestamp("2020"), pd.NaT),
]
OTHERS = [
    *(
        None,
        float("nan"),
        0.0,
        -0.0,
        dt.date(2020, 1, 1),
        dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        Path("a"),
        len,
        max,
        pickle.dumps,
    ),
    *(Point(1, 2), Point(2, 1), Point(1.0, 2), Slotted(1), Slotted(2), Point, Slotted, int, linked()),
    *(lambda x: x, lambda x: x + 1, lambda x: x + 2, functools.partial(len, [1]), functools.partial(len, [2]), np.sum),
]


@pytest.mark.parametrize("values", [ONES, SEQUENCES, ARRAYS, OTHERS], ids=["ones", "sequences", "arrays", "others"])
def test_values_that_differ_in_anything_have_different_contents(values):
    contents = [content(value) for value in values]
    clashes = [(values[k], values[contents.index(each)]) for k, each in enumerate(contents) if contents.index(each) < k]
    assert clashes == []


@pytest.mark.parametrize("values", [ONES, SEQUENCES, ARRAYS], ids=["ones", "sequences", "arrays"])
def test_a_value_that_was_stored_has_the_content_that_it_had(values):
    for value in values:
        if not isinstance(value, types.MappingProxyType):
            assert content(pickle.loads(pickle.dumps(value))) == content(value), repr(value)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(plain_values)
def test_content_survives_pickling(value):
    assert content(pickle.loads(pickle.dumps(value))) == content(value)


@given(plain_values, plain_values)
def test_different_plain_values_differ(one, other):
    if repr(one) != repr(other) and pickle.dumps(one) != pickle.dumps(other) and one != other:
        assert content(one) != content(other)


@given(st.dictionaries(st.text() | st.integers() | st.tuples(st.text(), st.floats(allow_nan=False)), st.integers()))
def test_the_order_of_a_dict_does_not_count(mapping):
    turned = dict(reversed(mapping.items()))
    assert content(turned) == content(mapping)
    assert content([Point(1, turned)]) == content([Point(1, mapping)])
    assert content(collections.Counter(turned)) == content(collections.Counter(mapping))


def test_the_order_of_an_ordered_dict_counts():
    assert content(collections.OrderedDict(a=1, b=2)) != content(collections.OrderedDict(b=2, a=1))


def test_the_order_of_a_set_does_not_count():
    names = [f"name {k}" for k in range(100)]
    assert content({*names}) == content({*reversed(names)})
    assert content(frozenset([(1, "a"), ("b",)])) == content(frozenset([("b",), (1, "a")]))


def test_sets_of_texts_are_alike_in_every_process():
    code = (
        "from flowyml.hashing.content import content; import collections\n"
        "value = [{'a', 'b', ('d', 1)}, {frozenset(['x', 'y']): 1, 'z': {'u', 'v'}}, collections.Counter('abcab')]\n"
        "print(content(value).hex())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert len(set(runs)) == 1
    assert len(runs[0]) > 30


def test_it_does_not_matter_which_parts_are_one_object():
    text, part = "a text" * 5, [1, 2]
    assert content([text, text, part, part]) == content(["a text" * 5, "".join(["a text"] * 5), [1, 2], [1, 2]])


def test_a_nan_is_equal_to_itself():
    assert content([float("nan"), {"a": float("nan")}]) == content([float("nan"), {"a": float("nan")}])
    assert content(np.array([np.nan])) == content(np.array([float("nan")]))


def test_what_holds_itself_has_a_content():
    assert content(linked()) == content(linked())
    one, other = linked(), linked()
    other.x.append(1)
    assert content(one) != content(other)


def test_equal_arrays_have_one_content_whatever_their_strides_are():
    array = np.arange(24).reshape(4, 6)
    alike = [array.copy(order="F"), np.repeat(array, 2, axis=0)[::2], array[::-1][::-1], array.T.copy().T]
    assert {content(each) for each in alike} == {content(array)}


def test_equal_frames_have_one_content_whatever_their_blocks_are():
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [3, 4]})
    grown = pd.DataFrame({"a": [1, 2]})
    grown["b"], grown["c"] = ["x", "y"], [3, 4]
    assert content(grown) == content(frame) == content(pd.concat([frame, frame]).iloc[:2].reset_index(drop=True))
    assert content(frame[["a", "c", "b"]]) != content(frame)


def test_what_lies_between_the_fields_of_an_array_does_not_count():
    layout = np.dtype({"names": ["a", "b"], "formats": ["u1", "u1"], "offsets": [0, 4], "itemsize": 8})
    one, other = np.zeros(2, layout), np.frombuffer(b"\x00\x07\x07\x07\x00\x07\x07\x07" * 2, layout)
    assert content(one) == content(other)


def test_arrays_that_differ_in_the_middle_differ():
    one, other = np.zeros(5000), np.zeros(5000)
    other[2500] = 1e-300
    assert content(one) != content(other)


def test_arrow_tables_have_one_content_whatever_their_chunks_are():
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"a": [1, 2, None, 4], "b": ["w", "x", "y", "z"]})
    chunked = arrow.concat_tables([table.slice(0, 1), table.slice(1, 3)])
    assert content(chunked) == content(table) == content(arrow.concat_tables([table, table]).slice(4, 4))
    assert content(table.slice(1)) != content(table)
    assert content(table.column("a")) != content(table.column("b"))
    assert content(arrow.array([1, 2])) != content(arrow.array([1, 3]))


def dictionary(values):
    return pytest.importorskip("pyarrow").array(values).dictionary_encode()


def holding(kind):
    """Return what puts a dictionary array into a value of some kind."""
    arrow = pytest.importorskip("pyarrow")
    return {
        "array": lambda array: array,
        "chunked array": lambda array: arrow.chunked_array([array]),
        "table": lambda array: arrow.table({"a": array}),
        "record batch": lambda array: arrow.record_batch({"a": array}),
        "struct": lambda array: arrow.StructArray.from_arrays([array], ["a"]),
        "list": lambda array: arrow.ListArray.from_arrays([0, 1, 2], array),
        "union": lambda array: arrow.UnionArray.from_dense(
            arrow.array([0, 0], arrow.int8()), arrow.array([0, 1], arrow.int32()), [array]
        ),
        "ArrowDtype": lambda array: pd.Series(array, dtype=pd.ArrowDtype(array.type)),
        "from_pandas": lambda array: arrow.Table.from_pandas(pd.DataFrame({"a": array.to_pandas()})),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["array", "chunked array", "table", "record batch", "struct", "list", "union", "ArrowDtype", "from_pandas"],
)
def test_the_dictionaries_of_arrow_data_count(kind):
    held = holding(kind)
    assert content(held(dictionary(["a", "b"]))) != content(held(dictionary(["x", "y"])))
    assert content(held(dictionary(["a", "b"]))) == content(held(dictionary(["a", "b"])))


def test_arrow_types_count_with_their_parameters():
    arrow = pytest.importorskip("pyarrow")
    plain, noted = (arrow.struct([arrow.field("a", arrow.int64(), metadata=each)]) for each in (None, {"unit": "m"}))
    assert content(arrow.array([{"a": 1}], plain)) != content(arrow.array([{"a": 1}], noted))
    assert content(arrow.array([1])) != content(arrow.chunked_array([[1]]))


def test_files_behind_a_dataset_or_a_lazy_frame_are_not_content(tmp_path):
    arrow, polars = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    polars.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    dataset = pytest.importorskip("pyarrow.dataset").dataset(tmp_path / "a.parquet")
    for value in (dataset, polars.scan_parquet(tmp_path / "a.parquet")):
        with pytest.raises(UnhashableError, match=r"flowyml\.File"):
            content(value)
    assert content(dataset.to_table()) == content(arrow.table({"a": [1]}))


def test_a_polars_expression_that_calls_a_function_is_no_content():
    polars = pytest.importorskip("polars")
    assert content(polars.col("a") + 1) != content(polars.col("a") + 2)
    with pytest.raises(UnhashableError, match="calls a Python function"):
        content(polars.col("a").map_elements(len, return_dtype=polars.Int64))


class Annotated(np.ndarray):
    """An array with something on it that numpy does not pickle."""


class Ratio(np.float64):
    """A number with something on it."""


class Tally(collections.Counter):
    """A counter with something on it."""


class Slotted2(set):
    __slots__ = ("note",)


def noted(value, note):
    value.note = note
    return value


def caused(cause):
    error = ValueError("x")
    error.__cause__ = KeyError(cause)
    return error


def zoned(hours):
    return pd.to_datetime([0], utc=True).tz_convert(dt.timezone(dt.timedelta(hours=hours), "X"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            *(pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=each) for each in (True, False)), id="flags"
        ),
        pytest.param(
            *(pd.Series([1]).set_flags(allows_duplicate_labels=each) for each in (True, False)), id="series flags"
        ),
        pytest.param(zoned(1), zoned(2), id="time zones of one name"),
        pytest.param(pd.Series(zoned(1)), pd.Series(zoned(2)), id="time zones of a series"),
        pytest.param(
            *(
                pd.DatetimeIndex(["2020-01-02"], freq=pd.offsets.CustomBusinessDay(holidays=each))
                for each in (["2021-01-01"], ["2021-01-04"])
            ),
            id="holidays of a frequency",
        ),
        pytest.param(
            *(pd.MultiIndex.from_product([each, [1]])[:1] for each in (["a", "b"], ["a"])), id="levels without a label"
        ),
        pytest.param(*(np.array([(1, 2)], [(each, "i4"), ("b", "i4")])[0] for each in "ac"), id="fields of a scalar"),
        pytest.param(
            np.array([(1,)], [("a", "i4")])[0], np.array([(1,)], [("a", "i4")]).view(np.recarray)[0], id="record"
        ),
        pytest.param(
            *(np.zeros(1, np.dtype("i4", metadata={"unit": each})) for each in "mk"), id="metadata of a dtype"
        ),
        pytest.param(*(noted(np.zeros(1).view(Annotated), each) for each in "ab"), id="attributes of an array"),
        pytest.param(*(noted(Ratio(1), each) for each in "ab"), id="attributes of a number"),
        pytest.param(*(np.ma.array([1], mask=[0], hard_mask=each) for each in (True, False)), id="hard mask"),
        pytest.param(*(noted(Tally("a"), each) for each in "ab"), id="attributes of a counter"),
        pytest.param(*(noted(Slotted2("a"), each) for each in "ab"), id="slots of a set"),
        pytest.param(
            *(types.MappingProxyType(collections.OrderedDict(each)) for each in ([(1, 1), (2, 2)], [(2, 2), (1, 1)])),
            id="order behind a proxy",
        ),
        pytest.param(pickle.PickleBuffer(b"a"), b"a", id="buffer"),
        pytest.param(memoryview(b"ab"), memoryview(b"ab").cast("b"), id="format of a view"),
        pytest.param(caused(1), caused(2), id="cause of an exception"),
    ],
)
def test_what_is_easily_missed_counts(one, other):
    assert content(one) != content(other)


def test_the_padding_of_long_doubles_does_not_count():
    one, other = np.ones(3, "longdouble"), np.ones(3, "longdouble")
    if np.finfo("longdouble").nmant == 63:
        other.view(np.uint8).reshape(3, -1)[:, 10:] = 7
    assert (one == other).all()
    assert content(one) == content(other)
    assert content(one[0]) == content(other[0])


def test_a_class_whose_object_was_pickled_has_the_same_content():
    class Box:
        pass

    before = content(Box)
    Box().__reduce_ex__(2)
    assert "__slotnames__" in vars(Box)
    assert content(Box) == before


def test_a_class_counts_with_its_methods():
    def made(source):
        names = {"__name__": "__main__"}
        exec(source, names)
        return names["Box"]()

    plain = "class Box:\n    def get(self):\n        return 1\n"
    assert content(made(plain)) == content(made(f"# more\n{plain}"))
    assert content(made(plain)) != content(made(plain.replace("1", "2")))


@pytest.mark.parametrize("value", [threading.Lock(), (each for each in ()), [open("/dev/null")]])  # noqa: PTH123, SIM115
def test_what_does_not_pickle_has_no_content(value):
    with pytest.raises(UnhashableError, match="cannot pickle"):
        content(value)


class Raises:
    def __reduce__(self):
        raise SystemExit(3)


def test_a_reducer_that_raises_or_exits_is_no_content():
    with pytest.raises(UnhashableError, match="SystemExit: 3"):
        content([Raises()])


def test_no_package_is_imported_for_it():
    code = (
        "import sys; from flowyml.hashing.content import content; content({1: [len, {2}]})\n"
        "assert not {'numpy', 'pandas', 'pyarrow', 'cloudpickle'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
