"""polars frames between processes: equal on the other side, and large ones with their buffers out of band."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

from flowyml import ParallelExecutor, Pipeline
from flowyml.executors.process.protocol import polars_frames
from flowyml.executors.process.protocol.value_pickle import OutOfBandBuffers, dump_result, dump_value, load_value

pl = pytest.importorskip("polars")
pytest.importorskip("pyarrow")

LARGE = 1 << 17


def large() -> Any:
    return pl.DataFrame({"a": range(LARGE), "b": [str(k % 7) * 20 for k in range(LARGE)]})


def several(*columns: Any) -> Any:
    return pl.DataFrame([each.alias(f"c{k}") for k, each in enumerate(columns)])


FRAMES = {
    "numbers": lambda: pl.DataFrame({"a": [1, None, 3], "b": [0.5, float("nan"), None], "c": [True, None, False]}),
    "texts": lambda: pl.DataFrame({"a": ["x" * 30, "y", None], "b": [b"x", None, b""]}),
    "categorical": lambda: several(pl.Series(["x", "y", None], dtype=pl.Categorical)),
    "categories": lambda: several(pl.Series(["x", None], dtype=pl.Categorical(pl.Categories("drawn")))),
    "enum": lambda: several(pl.Series(["x", None, "y"], dtype=pl.Enum(["y", "x", "z"]))),
    "decimal": lambda: several(pl.Series([1, None]).cast(pl.Decimal(10, 2))),
    "times": lambda: several(
        *(
            pl.Series([1, 2]).cast(each)
            for each in (pl.Datetime("ms", "Europe/Paris"), pl.Date, pl.Time, pl.Duration("us"))
        )
    ),
    "lists": lambda: several(
        pl.Series([[1, 2], None, []]), pl.Series([["x"], None, []], dtype=pl.List(pl.Categorical))
    ),
    "structs": lambda: several(
        pl.Series([{"a": 1, "b": "x"}, None], dtype=pl.Struct({"a": pl.Int8, "b": pl.Enum(["x"])}))
    ),
    "arrays": lambda: several(pl.Series([[1, 2], None], dtype=pl.Array(pl.Int8, 2))),
    "wide integers": lambda: several(pl.Series([1, None]).cast(pl.Int128)),
    "nulls": lambda: pl.DataFrame({"a": [None, None]}),
    "objects": lambda: several(pl.Series([{1}, None, "x"], dtype=pl.Object), pl.Series([1, 2, 3])),
    "objects alone": lambda: several(pl.Series([{1}, None], dtype=pl.Object)),
    "chunks": lambda: pl.concat([pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [2]})], rechunk=False),
    "slice": lambda: large()[100:110],
    "without rows": lambda: pl.DataFrame(schema={"a": pl.Int8, "b": pl.Enum(["x"])}),
    "without columns": pl.DataFrame,
    "a column without a name": lambda: pl.DataFrame({"": [1]}),
    "sorted": lambda: several(pl.Series([1, 2]).set_sorted(), pl.Series([2, 1]).set_sorted(descending=True)),
}


def rebuilt(value: Any) -> Any:
    apart = OutOfBandBuffers(1)
    data = dump_result(value, apart=apart)
    return pickle.loads(data, buffers=[bytearray(each) for each in apart.take()])


def assert_alike(found: Any, frame: Any) -> None:
    assert type(found) is type(frame)
    columns = [frame] if isinstance(frame, pl.Series) else frame.get_columns()
    others = [found] if isinstance(found, pl.Series) else found.get_columns()
    for other, column in zip(others, columns, strict=True):
        assert (other.name, other.dtype, other.to_list().__repr__()) == (
            column.name,
            column.dtype,
            repr(column.to_list()),
        )
        ordered = ("SORTED_ASC", "SORTED_DESC")
        assert [other.flags[each] for each in ordered] == [column.flags[each] for each in ordered]


@pytest.mark.parametrize("name", FRAMES)
def test_frames_arrive_as_they_are(name, monkeypatch):
    monkeypatch.setattr(polars_frames, "MIN_BYTES", 0)
    frame = FRAMES[name]()
    assert_alike(rebuilt(frame), frame)
    assert_alike(rebuilt([frame])[0], frame)
    for column in frame.get_columns():
        assert_alike(rebuilt(column), column)


def test_the_buffers_of_a_large_frame_are_out_of_band():
    frame, apart = large(), OutOfBandBuffers(1 << 16)
    data = dump_result({"frame": frame}, apart=apart)
    assert len(data) < frame.estimated_size() / 10
    assert sum(map(len, apart.buffers)) >= LARGE * 8


def test_a_large_frame_is_made_over_the_buffers_that_arrive():
    frame, apart = pl.DataFrame({"a": range(LARGE)}), OutOfBandBuffers(1 << 16)
    data = dump_result(frame, apart=apart)
    (buffer,) = map(bytearray, apart.take())
    found = pickle.loads(data, buffers=[buffer])
    buffer[:8] = (77).to_bytes(8, "little")
    assert found["a"][0] == 77


def test_a_slice_with_strings_goes_without_the_rest_of_its_buffers(monkeypatch):
    monkeypatch.setattr(polars_frames, "MIN_BYTES", 1000)
    apart = OutOfBandBuffers(1)
    frame = large()[: LARGE // 100]
    data = dump_result(frame, apart=apart)
    assert len(data) + sum(map(len, apart.buffers)) < 3 * frame.estimated_size()


def test_a_small_frame_is_pickled_by_polars_and_pyarrow_is_not_imported():
    code = (
        "import sys, polars as pl\n"
        "from flowyml.executors.process.protocol.value_pickle import OutOfBandBuffers, dump_result, load_value\n"
        "frame = pl.DataFrame({'a': [1]})\n"
        "assert load_value(dump_result(frame, apart=OutOfBandBuffers(1 << 16))).equals(frame)\n"
        "assert 'pyarrow' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_pyarrow_frames_are_pickled_by_polars(monkeypatch):
    frame = large()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    apart = OutOfBandBuffers(1 << 16)
    assert load_value(dump_value(frame, apart=apart)).equals(frame)
    assert apart.buffers == []


def test_polars_is_not_imported_if_it_is_not_loaded():
    code = (
        "import sys; from flowyml.executors.process.protocol.value_pickle import dump_result; dump_result([1, {2}])\n"
        "assert not {'polars', 'flowyml.executors.process.protocol.polars_frames'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


kept: list[Any] = []


def make(rows: int) -> Any:
    return {"frame": pl.DataFrame({"a": range(rows), "b": ["text of some length"] * rows})}


def keep(make: Any) -> int:
    kept.append(make["frame"][:10])
    return int(make["frame"]["a"].sum())


def look(keep: int) -> list[Any]:
    return [each["a"].to_list() for each in kept]


def test_steps_on_processes_pass_frames_on():
    with ParallelExecutor(max_workers=1) as executor:
        pipeline = Pipeline("frames").add_step(make, params={"rows": LARGE}).add_step(keep)
        result = pipeline.add_step(look).run(executor=executor)
        assert result["keep"] == LARGE * (LARGE - 1) // 2
        assert result["look"] == [list(range(10))]
        assert result["make"]["frame"].height == LARGE
        again = Pipeline("again").add_step(lambda frame: frame.height, name="rows", params={"frame": large()})
        assert again.run(executor=executor)["rows"] == LARGE
