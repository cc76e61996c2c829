"""`File(path)`: used like a path, and counted by its content in the keys of cached and continued steps."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_notes import note, ran

from flowyml import File, Pipeline, step
from flowyml.hashing import file as files
from flowyml.hashing.content import UnhashableError, content


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def read(source: Any, folder: str) -> str:
    note(folder, "read")
    return Path(source).read_text()


# -- as a value


def test_it_is_used_like_a_path(tmp_path):
    file = File(write(tmp_path / "a.csv", "a,b\n1,2\n"))
    with open(file) as opened:  # noqa: PTH123  the way of most programs
        assert opened.readline() == "a,b\n"
    assert pd.read_csv(file)["b"].tolist() == [2]
    assert (os.fspath(file), str(file), file.path) == (str(tmp_path / "a.csv"),) * 3
    assert Path(file) == tmp_path / "a.csv"
    assert isinstance(file, os.PathLike)


def test_it_is_compared_hashed_shown_and_pickled_by_its_path():
    file = File("a.csv")
    assert file == File(Path("a.csv")) == File(file) == pickle.loads(pickle.dumps(file))
    assert {file: 1}[File("a.csv")] == 1
    assert file != File("b.csv")
    assert file != "a.csv"
    assert repr(file) == "File('a.csv')"


def test_it_cannot_be_changed():
    file = File("a.csv")
    with pytest.raises(AttributeError, match="cannot be changed"):
        file.path = "b.csv"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot be changed"):
        del file.path


@pytest.mark.parametrize("path", [3, None, b"a.csv"])
def test_only_text_is_a_path(path):
    with pytest.raises(TypeError, match="str"):
        File(path)


# -- its content


def test_its_content_is_its_path_and_the_bytes_of_the_file(tmp_path):
    one, other = write(tmp_path / "a", "1"), write(tmp_path / "b", "1")
    before = content(File(one))
    assert content(File(one)) == before
    assert content(File(other)) != before
    assert content(str(one)) != before
    write(one, "2")
    assert content(File(one)) != before
    assert content([{"a": (File(one),)}]) != content([{"a": (File(other),)}])
    write(one, "1")
    assert content(File(one)) == before


def test_a_change_that_keeps_size_and_time_of_a_file_is_seen(tmp_path):
    path = write(tmp_path / "a", "1")
    os.utime(path, ns=(10**18, 10**18))
    before = content(File(path))
    write(path, "2")
    os.utime(path, ns=(10**18, 10**18))
    assert content(File(path)) != before


def test_a_file_that_has_not_changed_for_a_while_is_read_once(tmp_path, monkeypatch):
    path, reads = write(tmp_path / "a", "1"), []
    monkeypatch.setattr(files, "_TICK_SECONDS", -1.0)
    read = files._read
    monkeypatch.setattr(files, "_read", lambda path: reads.append(path) or read(path))
    assert content(File(path)) == content(File(path))
    assert reads == [str(path)]
    write(path, "22")
    assert content(File(path)) == content(File(path))
    assert reads == [str(path)] * 2


def test_a_file_that_was_changed_just_now_is_read_again(tmp_path, monkeypatch):
    path, reads = write(tmp_path / "a", "1"), []
    monkeypatch.setattr(files, "_TICK_SECONDS", 3600.0)
    read = files._read
    monkeypatch.setattr(files, "_read", lambda path: reads.append(path) or read(path))
    assert content(File(path)) == content(File(path))
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = write(tmp_path / "a", "1")
    read = files._read

    def changing(path: str) -> bytes:
        found = read(path)
        Path(path).write_text("more than before")
        monkeypatch.setattr(files, "_read", read)
        return found

    monkeypatch.setattr(files, "_read", changing)
    assert content(File(path)) == content(File(path))


def test_what_is_no_readable_file_has_no_content(tmp_path):
    for path, reason in (
        (tmp_path / "none", "No such file"),
        (tmp_path, r"File\(file\)"),
        ("/dev/null", "not a regular file"),
    ):
        with pytest.raises(UnhashableError, match=reason):
            content(File(path))


def test_its_content_is_the_same_in_every_process(tmp_path):
    path = write(tmp_path / "a", "1")
    code = "from flowyml import File; from flowyml.hashing.content import content; "
    code += f"print(content(File({str(path)!r})).hex())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == content(File(path)).hex()


# -- cached steps


def states(result: Any) -> list[str]:
    return [str(each.state) for each in result.step_results.values()]


def cached(tmp_path: Path, folder: Path) -> Pipeline:
    return Pipeline("p", context={"folder": str(folder)}, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("way", ["params", "nested", "inputs", "context", "item", "partial"])
def test_a_cached_step_runs_again_if_its_file_has_changed(tmp_path, folder, executor, way):
    file = File(write(tmp_path / "a", "1"))

    def first(source: Any, folder: str) -> str:
        return read(source[0]["file"], folder)

    def run() -> tuple[Any, str]:
        pipeline = cached(tmp_path, folder)
        given: dict[str, Any] = {}
        if way == "params":
            pipeline.add_step(read, "read", {"source": file}, cache=True)
        elif way == "nested":
            pipeline.add_step(first, "read", {"source": [{"file": file}]}, cache=True)
        elif way == "item":
            pipeline.map(read, [file], name="read", cache=True)
        elif way == "partial":
            pipeline.add_step(step(read, name="read", cache="input_hash"), params={"source": file})
        else:
            pipeline.add_step(read, "read", cache=True)
            given = {way: {"source": file}}
        result = pipeline.run(executor=executor, **given)
        value = result["read"]
        return value if isinstance(value, str) else value[0], states(result)[0]

    assert run() == ("1", "success")
    assert run()[0] == "1"
    assert len(ran(folder)) == 1
    write(tmp_path / "a", "2")
    assert run() == ("2", "success")
    assert run()[0] == "2"


def test_what_reads_the_file_of_a_step_counts_its_content(tmp_path, folder, executor):
    def make(number: int, path: str, folder: str) -> File:
        note(folder, f"make {number}")
        Path(path).write_text("even" if number % 2 == 0 else "odd")
        return File(path)

    def run(number: int) -> Any:
        pipeline = cached(tmp_path, folder).add_step(make, params={"number": number, "path": str(tmp_path / "made")})
        return pipeline.add_step(read, params={}, inputs={"source": "make"}, cache=True).run(executor=executor)

    assert run(1)["read"] == "odd"
    assert states(run(3)) == ["success", "cached"]
    again = run(4)
    assert (states(again), again["read"]) == (["success", "success"], "even")


class Result:
    """A value with a class of the user's, and a file."""

    def __init__(self, file: File) -> None:
        self.file = file


@pytest.mark.parametrize("kind", [lambda file: [file], Result], ids=["list", "object"])
@pytest.mark.parametrize("is_read", [False, True], ids=["alone", "read"])
def test_a_cached_step_whose_file_is_gone_or_changed_runs_again(tmp_path, folder, executor, kind, is_read):
    made = tmp_path / "made"

    def make(path: str, folder: str) -> Any:
        note(folder, "make")
        Path(path).write_text("1")
        return kind(File(path))

    def run() -> list[str]:
        pipeline = cached(tmp_path, folder).add_step(make, params={"path": str(made)}, cache=True)
        if is_read:
            pipeline.add_step(lambda make: repr(make) and 1, "use", cache=True)
        return states(pipeline.run(executor=executor))[:1]

    assert (run(), run()) == (["success"], ["cached"])
    made.unlink()
    assert (run(), run()) == (["success"], ["cached"])
    write(made, "2")
    assert (run(), made.read_text()) == (["success"], "1")


def test_a_value_is_not_stored_if_its_file_changed_while_the_step_ran(tmp_path, folder, executor, caplog):
    file = File(write(tmp_path / "a", "1"))

    def appending(source: Any, folder: str) -> str:
        with Path(source).open("a") as opened:
            opened.write("more")
        return read(source, folder)

    def run() -> Any:
        return cached(tmp_path, folder).add_step(appending, "add", {"source": file}, cache=True).run(executor=executor)

    assert run()["add"] == "1more"
    assert "a file among its arguments changed while it ran" in caplog.text
    write(tmp_path / "a", "1")
    assert states(run()) == ["success"]


def test_a_value_is_not_stored_if_the_file_of_another_step_changed_while_it_ran(tmp_path, folder, executor, caplog):
    made = write(tmp_path / "made", "")

    def make(path: str) -> File:
        Path(path).write_text("1")
        return File(path)

    def appending(make: Any, folder: str) -> str:
        with Path(make).open("a") as opened:
            opened.write("more")
        return read(make, folder)

    pipeline = cached(tmp_path, folder).add_step(make, params={"path": str(made)})
    pipeline.add_step(appending, cache=True).run(executor=executor)
    assert "a file among its arguments changed while it ran" in caplog.text


@pytest.mark.parametrize("changes", [True, False])
def test_a_finished_step_whose_file_changed_while_it_ran_runs_again(tmp_path, folder, executor, caplog, changes):
    """Its key is made when it ends, and must not be that of bytes which the step has not read."""
    file = File(write(tmp_path / "a", "1"))

    def reading(source: Any, folder: str, others: str) -> str:
        found = read(source, folder)
        if others:
            Path(source).write_text(others)
        return found

    def run(others: str) -> Any:
        pipeline = Pipeline("p", {"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs")
        pipeline.add_step(reading, "reads", {"source": file, "others": others})
        return pipeline.add_step(lambda: 1 / 0, "fails", after=["reads"]).run(executor=executor)

    others = "22" if changes else ""
    assert run(others)["reads"] == "1"
    assert ("a file among its arguments changed while it ran" in caplog.text) == changes
    second = run(others)
    assert (second["reads"], states(second)[0]) == (("22", "success") if changes else ("1", "cached"))


def test_a_missing_file_is_one_warning_and_the_step_runs(tmp_path, folder, executor, caplog):
    def exists(source: Any) -> bool:
        return Path(source).exists()

    pipeline = cached(tmp_path, folder).map(
        exists, [File(tmp_path / "no"), File(tmp_path / "none")], name="e", cache=True
    )
    assert pipeline.run(executor=executor)["e"] == [False, False]
    told = [each.getMessage() for each in caplog.records if "is not cached" in each.getMessage()]
    assert len(told) == 1
    assert "FileNotFoundError" in told[0]


# -- continued runs


def test_a_continued_run_runs_a_step_again_whose_file_has_changed(tmp_path, folder):
    file = File(write(tmp_path / "a", "1"))

    def fail() -> None:
        raise OSError

    def run() -> Any:
        pipeline = Pipeline("p", {"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs")
        return pipeline.add_step(read, params={"source": file}).add_step(fail, after=["read"]).run()

    assert states(run())[0] == "success"
    assert states(run())[0] == "cached"
    write(tmp_path / "a", "2")
    again = run()
    assert (states(again)[0], again["read"]) == ("success", "2")


def test_a_continued_run_runs_a_step_again_whose_own_file_has_changed(tmp_path, folder, executor):
    made = tmp_path / "made"

    def make(path: str, folder: str) -> dict[str, File]:
        note(folder, "make")
        Path(path).write_text("1")
        return {"file": File(path)}

    def fail(make: Any) -> None:
        raise OSError

    def run() -> str:
        pipeline = Pipeline("p", {"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs")
        pipeline.add_step(make, params={"path": str(made)}).add_step(fail)
        return states(pipeline.run(executor=executor))[0]

    assert (run(), run()) == ("success", "cached")
    made.unlink()
    assert (run(), run()) == ("success", "cached")
    write(made, "2")
    assert (run(), made.read_text()) == ("success", "1")
