"""The journal: whole records survive whatever happens to the file; nothing else is served."""

from __future__ import annotations

import logging
import os
import random
import shutil
import struct
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import Pipeline, StoreError
from flowyml.caching.journal_index import RUN, JournalIndex
from flowyml.store.journal import FORMAT, LOST, Journal, first_body
from flowyml.store.run_directory import RunDirectory, directory_of, remove_leftovers, unfinished_runs
from flowyml.store.serialization import SerializedValue, packed

if TYPE_CHECKING:
    from pathlib import Path


def fail(error: Exception) -> None:
    raise error


def opened(folder: Path, **options: Any) -> Journal:
    return Journal(folder, on_trouble=fail, **options)


def filled(folder: Path, count: int = 20) -> list[Any]:
    """Write records; return their bodies."""
    journal = opened(folder)
    bodies = [[k, "x" * k] for k in range(count)]
    for body in bodies:
        journal.write(body, [b"payload", b"%d" % body[0]])
    journal.close()
    return bodies


def read(folder: Path) -> tuple[list[Any], int]:
    """Return the bodies that are there, and how many bytes were cut off."""
    journal = opened(folder)
    bodies = [record.body for record in journal.records()]
    journal.close()
    return bodies, journal.cut


def test_what_was_written_is_there(tmp_path):
    bodies = filled(tmp_path)
    assert read(tmp_path) == (bodies, 0)
    assert first_body(tmp_path / "journal") == bodies[0]
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_it_goes_on_behind_what_is_there(tmp_path):
    filled(tmp_path, 2)
    journal = opened(tmp_path)
    assert len([*journal.records()]) == 2
    journal.write(["more"])
    journal.close()
    assert read(tmp_path)[0][2:] == [["more"]]


@pytest.mark.parametrize("always", [False, True])
def test_values_come_back(tmp_path, always):
    journal = opened(tmp_path, always=always)
    values = [packed(b"small pickle"), packed(b"large pickle" * 10_000), SerializedValue(b"m", b"\xe9\x01\x00\x00\x00")]
    stand = [journal.prepared(value) for value in values]
    journal.write([each for each, _ in stand], [data for _, data in stand])
    journal.close()
    journal = opened(tmp_path)
    (record,) = journal.records()
    at = record.payload
    for value, body in zip(values, record.body, strict=True):
        if value.kind == b"p":
            assert journal.load(body, at) == value.data
        at += body[2] if body[0] == 0 else 0
    assert journal.load("an atom", 0) == "an atom"
    with pytest.raises(LookupError, match="could not be stored"):
        journal.load(LOST, 0)
    journal.close()
    assert len([path for path in (tmp_path / "objects").rglob("*") if path.is_file()]) == 1


def test_a_torn_end_is_cut_off_wherever_it_is_torn(tmp_path):
    bodies = filled(tmp_path, 6)
    data = (tmp_path / "journal").read_bytes()
    for size in range(len(data)):
        (tmp_path / "journal").write_bytes(data[:size])
        found, cut = read(tmp_path)
        assert found == bodies[: len(found)]
        assert size < 24 or (tmp_path / "journal").stat().st_size + cut == size
        assert read(tmp_path) == (found, 0)
    assert len(found) == 5


def test_a_flipped_bit_ends_what_is_believed(tmp_path):
    bodies = filled(tmp_path, 6)
    data, rng = (tmp_path / "journal").read_bytes(), random.Random(0)
    for _ in range(300):
        position = rng.randrange(20, len(data))
        spoilt = bytearray(data)
        spoilt[position] ^= 1 << rng.randrange(8)
        (tmp_path / "journal").write_bytes(spoilt)
        found, _ = read(tmp_path)
        assert found == bodies[: len(found)]


def test_a_flipped_bit_in_a_payload_is_found_when_the_value_is_loaded(tmp_path):
    journal = opened(tmp_path)
    body, data = journal.prepared(packed(b"a pickle"))
    journal.write([body], [data])
    journal.close()
    text = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(text.replace(b"a pickle", b"a pickld"))
    journal = opened(tmp_path)
    (record,) = journal.records()
    with pytest.raises(LookupError, match="is damaged: a value in it is not what was stored"):
        journal.load(record.body[0], record.payload)
    journal.close()


def test_records_of_another_journal_are_not_its_own(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        filled(tmp_path / name, 3 if name == "one" else 9)
    tail = (tmp_path / "other" / "journal").read_bytes()[-200:]
    with (tmp_path / "one" / "journal").open("ab") as file:
        file.write(tail)
    assert len(read(tmp_path / "one")[0]) == 3


@pytest.mark.parametrize(("other", "age"), [(FORMAT - 1, "an older"), (FORMAT + 1, "a newer")])
def test_something_else_and_other_formats_are_refused(tmp_path, other, age):
    path = tmp_path / "journal"
    path.write_bytes(b"something else, of more than twenty bytes")
    with pytest.raises(StoreError, match="journal is not the journal of a run"):
        opened(tmp_path)
    path.write_bytes(struct.pack("<16sI", b"flowyml journal\n", other))
    with pytest.raises(StoreError, match=f"has format {other} of {age} version of flowyml, and this version reads"):
        opened(tmp_path)
    assert path.stat().st_size == 20
    path.write_bytes(b"flowyml jou")  # cut off before its first record
    assert read(tmp_path) == ([], 0)


@pytest.mark.parametrize(("told", "seed"), [([], None), ([None], None), ([7], 7)])
def test_a_journal_tells_the_seed_of_its_run_unless_an_older_version_wrote_it(tmp_path, told, seed):
    journal = opened(tmp_path)
    journal.write([RUN, "r", "p", 1.0, *told])
    journal.close()
    journal = opened(tmp_path)
    finished = JournalIndex(journal)
    journal.close()
    assert (finished.run, finished.seed) == (("r", "p", 1.0), seed)


def test_it_is_synced_in_the_background(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(time.monotonic()))
    journal = opened(tmp_path)
    begun = time.monotonic()
    while time.monotonic() < begun + 0.4:
        journal.write(["x"])
        time.sleep(0.001)
    journal.close()
    assert 4 <= len(synced) <= 12
    assert all(later - earlier > 0.04 for earlier, later in pairwise(synced[:-1]))
    count = len(synced)
    time.sleep(0.1)
    assert len(synced) == count


def test_a_disk_that_does_not_sync_is_trouble(tmp_path, monkeypatch):
    told: list[Exception] = []

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    journal = Journal(tmp_path, on_trouble=told.append)
    monkeypatch.setattr(os, "fdatasync", broken)
    journal.write(["x"])
    deadline = time.monotonic() + 5
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    journal.close()
    assert [str(each) for each in told] == ["[Errno 5] Input/output error"]


@pytest.mark.parametrize("durability", ["batch", "always"])
def test_a_journal_that_is_removed_while_its_run_goes_on_is_one_warning(tmp_path, caplog, durability, monkeypatch):
    """The run goes on; that it cannot be continued is said, not found out at the next run."""
    monkeypatch.chdir(tmp_path)

    def work(i):
        if i == 2:
            shutil.rmtree(".flowyml")
        time.sleep(0.03)
        return 1 / (i != 11)

    pipeline = Pipeline("p", enable_checkpointing=True, durability=durability).map(work, range(12))
    result = pipeline.run()
    assert [each.step_name for each in result.failed] == ["work[11]"]
    told = [record.getMessage() for record in caplog.records if "journal" in record.getMessage()]
    assert len(told) == 1
    assert "it was removed while its run continues, with everything in it" in told[0]
    assert "runs again when it is resumed" in told[0]


# -- folders of runs


def test_a_folder_is_held_once(tmp_path):
    one, other = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    assert (one.acquire(), other.acquire(), one.acquire()) == (True, False, False)
    one.release()
    one.release()
    assert other.acquire()
    other.release()


def test_names_of_runs_become_names_of_files(tmp_path):
    names = ["plain", "../up", "a/b", ".hidden", "", "ü", "x" * 400, "x" * 401]
    paths = [directory_of(tmp_path, name).path for name in names]
    assert len({*paths}) == len(names)
    assert {path.parent for path in paths[:4] + paths[5:]} == {tmp_path}
    assert all(len(path.name) < 200 for path in paths)


def test_unfinished_runs_are_found_the_last_one_first(tmp_path):
    for age, name in enumerate(["a", "b", "c"]):
        folder = RunDirectory(tmp_path / name)
        assert folder.acquire()
        opened(folder.path).close()
        os.utime(folder.path / "journal", (time.time() - age,) * 2)
        folder.release()
    (tmp_path / "d").mkdir()
    assert [folder.path.name for folder in unfinished_runs(tmp_path)] == ["a", "b", "c"]
    assert unfinished_runs(tmp_path / "nowhere") == []


def test_what_is_left_of_a_run_that_was_being_removed_goes(tmp_path):
    for name in ("left", "new", "held", "mine"):
        folder = RunDirectory(tmp_path / name)
        assert folder.acquire()
        if name != "held":
            folder.release()
        if name == "mine":
            (folder.path / "notes").touch()
        if name != "new":
            os.utime(folder.path, (time.time() - 100,) * 2)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "mine", "new"]
    assert remove_leftovers(tmp_path / "nowhere") is None


def test_what_is_left_of_a_run_that_was_about_to_begin_goes(tmp_path):
    """At once, but for what somebody is at, or what looks alike and is not ours."""
    for name in ("begun", "held", "empty", "mine", "other", "told"):
        folder = RunDirectory(tmp_path / name)
        assert folder.acquire()
        journal = opened(folder.path)
        if name == "told":
            journal.write(["which"])
        journal.close()
        if name != "held":
            folder.release()
    (tmp_path / "empty" / "journal").write_bytes(b"")
    (tmp_path / "mine" / "notes").touch()
    (tmp_path / "other" / "journal").write_bytes(b"dear diary")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "mine", "other", "told"]


def test_what_somebody_else_keeps_there_stays(tmp_path):
    """Whatever it is called, and however old it is; a folder with it is not even touched."""
    theirs = ["out/.gitignore", "game/objects/hero.obj", "game/objects/aa/hero.obj", "x/journal", "x/objects/x"]
    for name in [*theirs, "y/lock"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text({"out/.gitignore": "*\n", "y/lock": "theirs"}.get(name, ""))
    (tmp_path / "nothing").mkdir()
    for folder in tmp_path.iterdir():
        os.utime(folder, (time.time() - 100,) * 2)
    before = sorted(tmp_path.rglob("*"))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_is_called_like_somebody_elses_folder_takes_only_its_own_away(tmp_path):
    theirs = [tmp_path / "src" / name for name in ("code.py", "objects/hero.obj", "objects/aa/hero.obj")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path)
    assert pipeline.map(bytes, [100_000] * 3, name="large").run(run_id="src").success
    assert [path for path in sorted((tmp_path / "src").rglob("*")) if path.is_file()] == sorted(theirs)


# -- what a pipeline makes of spoilt journals


RAN: list[int] = []


def item(i: int) -> int:
    RAN.append(i)
    if i == 9:
        raise ValueError(i)
    return i


def run(folder: Path, **options: Any) -> Any:
    RAN.clear()
    pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=folder)
    for i in range(10):
        pipeline.add_step(item, f"s{i}", {"i": i}, after=[f"s{i - 1}"] if i else None)
    return pipeline.run(**options)


def told(caplog: Any) -> list[str]:
    messages = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    return [message for message in messages if "continues run" not in message]


def test_what_is_left_of_a_torn_journal_counts(tmp_path, caplog):
    first = run(tmp_path)
    path = tmp_path / first.run_id / "journal"
    os.truncate(path, path.stat().st_size // 2)
    second = run(tmp_path)
    assert second.run_id == first.run_id
    assert 3 < len(RAN) < 9
    assert f"{path} ends with an incomplete record; its last" in told(caplog)[0]


@pytest.mark.parametrize(("other", "age"), [(FORMAT - 1, "an older"), (FORMAT + 1, "a newer")])
def test_a_journal_of_another_format_is_named_and_left_alone(tmp_path, caplog, other, age):
    first = run(tmp_path)
    path = tmp_path / first.run_id / "journal"
    data = bytearray(path.read_bytes())
    data[16] = other
    path.write_bytes(data)
    with pytest.raises(StoreError, match="has format"):
        run(tmp_path, resume=first.run_id)
    second = run(tmp_path)
    assert (second.run_id != first.run_id, len(RAN), path.read_bytes()) == (True, 10, bytes(data))
    reason = f"has format {other} of {age} version of flowyml, and this version reads format {FORMAT}"
    remedy = f"finish its run with that version, or delete the directory {path.parent}"
    assert told(caplog) == [f"journal: {path} {reason}: {remedy}; it is left alone, and its run is not continued"]
    dry = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path).add_step(item, "s0", {"i": 0})
    assert dry.run(dry_run=True, resume="last").resumed is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["journal", "."])
def test_a_journal_of_somebody_else_is_refused(tmp_path, caplog, what):
    first = run(tmp_path)
    path = tmp_path / first.run_id / what
    os.chown(path, 12345, -1)
    second = run(tmp_path)
    assert (second.run_id != first.run_id, len(RAN)) == (True, 10)
    assert [f"{path} belongs to another user" in each for each in told(caplog)] == [True]
    with pytest.raises(StoreError, match="belongs to another user"):
        run(tmp_path, resume=first.run_id)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_somebody_else_is_no_journal(tmp_path, caplog):
    (tmp_path / "runs").mkdir(mode=0o700)
    os.chown(tmp_path / "runs", 12345, -1)
    assert run(tmp_path / "runs").resumed is None
    assert len(told(caplog)) == 1
    assert "the run continues without a journal, and cannot be resumed" in told(caplog)[0]


def test_a_large_value_that_is_damaged_or_gone_is_made_again(tmp_path, caplog):
    def large(i: int) -> bytes:
        RAN.append(i)
        return b"x" * 100_000 + bytes([i])

    def run() -> Any:
        RAN.clear()
        pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path)
        return pipeline.map(large, [1, 2, 3]).add_step(item, "last", {"i": 9}, after=["large"]).run()

    run()
    one, two, _ = sorted(path for path in tmp_path.glob("*/objects/*/*") if path.is_file())
    one.write_bytes(b"y" + one.read_bytes()[1:])
    two.unlink()
    caplog.clear()
    run()
    assert len(RAN) == 3
    assert sorted("runs again" in each for each in told(caplog)) == [True, True]
    caplog.clear()
    run()
    assert (RAN, told(caplog)) == ([9], [])


def test_a_run_whose_end_was_written_is_over(tmp_path, monkeypatch):
    """It was killed between the last word of its journal and the removal."""
    first = run(tmp_path)
    shutil.copytree(tmp_path / first.run_id, tmp_path / "copy")
    folder = RunDirectory(tmp_path / "copy")
    assert folder.acquire()
    journal = opened(folder.path)
    assert len([*journal.records()]) > 1
    journal.write([4, "success"])
    journal.close()
    folder.release()
    shutil.rmtree(tmp_path / first.run_id)
    assert run(tmp_path).resumed is None
    assert not (tmp_path / "copy").exists()


CODE = """
import logging, sys
from flowyml import *
logging.basicConfig(format="%(message)s")
ran = []
def value(i, fails=()):
    ran.append(i)
    if i in fails: raise ValueError(i)
    return bytes([i]) * 50_000
def run(**options):
    ran.clear()
    pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=disk + "/runs")
    for i in range(40):
        pipeline.add_step(value, f"s{i}", {"i": i}, after=[f"s{i - 1}"] if i else None)
    pipeline.add_step(value, "bad", {"i": 40, "fails": [40]}, after=["s39"])
    result = pipeline.run(**options)
    assert [result[f"s{i}"][5] for i in range(40)] == list(range(40))
    print(len(ran), result.resumed)
"""


def test_a_full_disk_is_one_warning_and_resume_does_not_lie(on_disk):
    told = on_disk(f"{CODE}\nrun()\nremount('size=20m')\nrun(resume='last')\nrun()")
    lines = [line for line in told.splitlines() if not line.startswith(("  bad", "pipeline 'p': 1 step"))]
    assert lines[0] == "41 None"
    again = int(lines[1].split()[0])
    assert 20 < again < 40
    assert lines[1] == f"{again} {41 - again} finished steps taken over"
    assert lines[2] == "1 40 finished steps taken over"
    warnings = [line for line in lines if line.startswith("journal: ")]
    assert len(warnings) == 1
    assert warnings[0].endswith(
        "No space left on device; the run continues, but what it finishes from now on runs again when it is resumed"
    )


def test_a_disk_that_cannot_be_written_to(on_disk):
    told = on_disk(f"{CODE}\nremount('ro')\nrun()\nrun(resume='last')", size="20m")
    lines = [line for line in told.splitlines() if not line.startswith(("  bad", "pipeline 'p': 1 step"))]
    assert lines[:2] == ["41 None", "41 None"]
    assert len(lines) == 4
    assert all("Read-only file system" in line and line.endswith("cannot be resumed") for line in lines[2:])
