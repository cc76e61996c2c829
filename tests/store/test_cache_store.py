"""CacheStore: what is stored and removed, by whom, and what happens to files that somebody has spoiled."""

from __future__ import annotations

import datetime as dt
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flowyml import CacheStore, Pipeline, StoreError, step
from flowyml.store.cache_index import FORMAT
from flowyml.store.cache_store import database_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> CacheStore:
    return CacheStore(tmp_path / "cache")


@step(cache=True)
def small(n: int) -> dict[str, int]:
    return {"n": n}


@step(cache=True)
def large(n: int) -> np.ndarray:
    return np.full(20_000, n)


def run(store: CacheStore, *items: int, steps: tuple[Any, ...] = (small, large)) -> list[str]:
    """Run steps over items; return the states of all items."""
    pipeline = Pipeline("p", cache_dir=store)
    for each in steps:
        pipeline.map(each, items)
    result = pipeline.run()
    for each in steps:
        for item, value in zip(items, result[each.name], strict=True):
            assert (value["n"] if each is small else value[7]) == item
    return [str(item.state) for done in result.step_results.values() for item in done.items]


def files(store: CacheStore) -> list[Path]:
    return sorted(path for path in (store.cache_dir / "objects").rglob("*") if path.is_file())


def told(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- what is stored and removed


def test_everything_is_private(store):
    run(store, 1)
    for path in (store.cache_dir, store.cache_dir / "index.db", *files(store)):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (store.cache_dir / ".gitignore").read_text() == "*\n"


def test_clear_removes_everything(store):
    run(store, 1, 2)
    assert (store.clear(), store.clear(), store.stats()["total_entries"], files(store)) == (4, 0, 0, [])
    assert run(store, 1) == ["success"] * 2


def test_clear_step_removes_what_the_step_stored_or_used(store):
    run(store, 1, 2)
    Pipeline("p", cache_dir=store).add_step(small, "other", {"n": 1}).run()
    assert (store.clear_step("small"), store.clear_step("small")) == (2, 0)
    run(store, 1)
    Pipeline("p", cache_dir=store).add_step(small, "other", {"n": 1}).run()
    assert store.clear_step("other") == 1
    assert run(store, 1) == ["success", "cached"]


def test_invalidate_by_key_and_by_time(store):
    run(store, 1, 2)
    with database_of(store).opened() as index:
        keys = [row[0].hex() for row in index._read("SELECT key FROM entries WHERE step = 'large'")]
    assert (store.invalidate(keys[0]), store.invalidate(key=keys[0]), len(files(store))) == (1, 0, 1)
    now = dt.datetime.now(dt.UTC)
    assert store.invalidate(before=now - dt.timedelta(hours=1)) == 0
    assert store.invalidate(step_name="large", before=now.isoformat()) == 1
    assert (store.invalidate(), store.invalidate(before=(now + dt.timedelta(days=1)).date())) == (0, 2)


def test_a_file_that_two_entries_name_goes_with_the_last_one(store):
    same = np.zeros(20_000)
    for name in ("a", "b"):
        Pipeline("p", cache_dir=store).add_step(lambda name: same, name, {"name": name}, cache=True).run()
    assert len(files(store)) == 1
    store.clear_step("a")
    assert len(files(store)) == 1
    store.clear_step("b")
    assert files(store) == []


def test_stats_of_an_empty_store(store):
    assert store.stats() == {
        "cache_dir": str(store.cache_dir),
        "total_entries": 0,
        "total_size_mb": 0.0,
        "hits": 0,
        "misses": 0,
        "hit_rate": 0.0,
        "by_step": {},
    }
    assert not store.cache_dir.exists()


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path):
    store = CacheStore(tmp_path / "cache", max_bytes=1_000_000)  # six values of 160 kB
    for n in range(10):
        run(store, n, steps=(large,))
        if n == 4:
            with database_of(store).opened() as index:  # as if it had been used an hour ago, and all others before
                index._connection.execute("UPDATE entries SET used = used - 7200")
            assert run(store, 0, steps=(large,)) == ["cached"]
    assert store.stats()["total_size_mb"] < 1
    assert len(files(store)) == store.stats()["total_entries"] <= 6
    assert run(store, 0, 9, steps=(large,)) == ["cached"] * 2
    assert run(store, 1, steps=(large,)) == ["success"]


def test_without_a_limit_nothing_goes(tmp_path):
    store = CacheStore(tmp_path / "cache", max_bytes=None)
    run(store, *range(10), steps=(large,))
    assert store.stats()["total_entries"] == 10


def test_a_store_without_a_run_leaves_no_open_file(store):
    run(store, 1)
    with store as same:
        assert same is store
        store.stats()
    fds = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(256)]
    assert [path for path in fds if str(store.cache_dir) in path] == []


# -- what somebody has spoiled


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [lambda path: flip(path, 5000), lambda path: os.truncate(path, 70_000), lambda path: path.write_bytes(b"")],
    ids=["flipped", "truncated", "empty"],
)
def test_a_damaged_file_is_named_and_never_served(store, caplog, spoil):
    run(store, 1, steps=(large,))
    path = files(store)[0]
    spoil(path)
    assert run(store, 1, steps=(large,)) == ["success"]
    assert told(caplog) == [
        f"cache: {path} is damaged: its content is not what was stored; it is removed, and its step runs"
    ]
    caplog.clear()
    assert run(store, 1, steps=(large,)) == ["cached"]
    assert told(caplog) == []


def test_old_files_that_no_entry_names_go_once_a_day(store):
    run(store, 1, steps=(large,))
    folder = files(store)[0].parent
    for name, age in (("0" * 30, 7200), ("1" * 30, 60), ("mine", 7200)):
        path = folder / name
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age,) * 2)
    run(store, 2, steps=(large,))
    assert len(files(store)) == 5
    os.utime(store.cache_dir / "swept", (time.time() - 90_000,) * 2)
    run(store, 3, steps=(large,))
    left = {path.name for path in folder.iterdir()}
    assert left >= {"1" * 30, "mine"}
    assert "0" * 30 not in left


def test_a_file_that_is_gone_is_no_damage(store, caplog):
    run(store, 1, steps=(large,))
    files(store)[0].unlink()
    assert [run(store, 1, steps=(large,)), run(store, 1, steps=(large,))] == [["success"], ["cached"]]
    assert told(caplog) == []


@pytest.mark.parametrize("field", ["step", "created", "kind", "value", "content", "recipe", "key"])
def test_a_damaged_row_is_never_served(store, caplog, field):
    run(store, 1, 2, steps=(small,))
    with database_of(store).opened() as index:
        key = index._read("SELECT key FROM entries ORDER BY created DESC, rowid DESC LIMIT 1")[0][0]
        change = {"created": "created + 1", "step": "'other'", "content": "x'00'", "key": "x'00'"}.get(
            field, f"x'70' || substr({field}, 2)"
        )
        index._connection.execute(f"UPDATE entries SET {field} = {change} WHERE key = ?", [key])
    states = run(store, 1, 2, steps=(small,))
    assert sorted(states) == ["cached", "success"]
    assert ["is damaged; it is removed, and its step runs" in each for each in told(caplog)] == (
        [] if field == "key" else [True]
    )


@pytest.mark.parametrize("size", [0, 10, 4096, 5000, 20_000])
def test_an_index_that_was_cut_off_is_put_aside(store, caplog, size):
    run(store, *range(100), steps=(small,))
    index = store.cache_dir / "index.db"
    os.truncate(index, size)
    assert set(run(store, 1, 2)) <= {"success", "cached"}
    caplog.clear()
    assert (run(store, 1, 2), told(caplog)) == (["cached"] * 4, [])


def test_an_index_of_junk_is_named_and_put_aside(store, caplog):
    run(store, 1)
    index = store.cache_dir / "index.db"
    index.write_bytes(random.Random(0).randbytes(50_000))
    assert [run(store, 1), run(store, 1)] == [["success"] * 2, ["cached"] * 2]
    assert len(told(caplog)) == 1
    assert f"cache: {index} is damaged" in told(caplog)[0]
    assert len([*store.cache_dir.glob("index.db.damaged-*")]) == 1


def test_bits_that_flip_anywhere_in_the_index_never_give_a_wrong_value(store, caplog):
    run(store, *range(40), steps=(small,))
    index = store.cache_dir / "index.db"
    whole, rng = index.read_bytes(), random.Random(1)
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(20):
            data[rng.randrange(100, len(data))] ^= 1 << rng.randrange(8)
        for beside in store.cache_dir.glob("index.db*"):
            beside.unlink()
        index.write_bytes(data)
        assert set(run(store, *range(40), steps=(small,))) <= {"success", "cached"}


@pytest.mark.parametrize(("other", "age"), [(FORMAT - 1, "an older"), (FORMAT + 1, "a newer")])
def test_another_format_is_named_and_left_alone(store, caplog, other, age):
    run(store, 1, steps=(small,))
    index = store.cache_dir / "index.db"
    connection = sqlite3.connect(index)
    connection.execute(f"PRAGMA user_version = {other}")
    connection.close()
    before = index.read_bytes()
    assert run(store, 1, steps=(small,)) == ["success"]
    reason = f"has format {other} of {age} version of flowyml, and this version reads format {FORMAT}"
    remedy = f"delete the directory {store.cache_dir}, or use another cache_dir"
    assert told(caplog) == [f"cache: {index} {reason}: {remedy}; the run continues without the cache"]
    assert index.read_bytes() == before
    with pytest.raises(StoreError, match=remedy):
        store.stats()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_somebody_else_is_refused(store, caplog):
    run(store, 1)
    os.chown(files(store)[0], 12345, -1)
    assert run(store, 1) == ["cached", "success"]
    assert "belongs to another user (id 12345), and loading it would run code from it" in told(caplog)[0]
    for path in (store.cache_dir / "index.db", store.cache_dir):
        os.chown(path, 12345, -1)
        caplog.clear()
        assert run(store, 1) == ["success"] * 2
        assert [str(path) in each and "the run continues without the cache" in each for each in told(caplog)] == [True]
        with pytest.raises(StoreError, match="belongs to another user"):
            store.clear()
        os.chown(path, os.geteuid(), -1)


def test_a_folder_that_everybody_may_write_to_is_refused(store, caplog):
    run(store, 1)
    store.cache_dir.chmod(0o777)
    assert run(store, 1) == ["success"] * 2
    assert "is writable by everybody" in told(caplog)[0]


# -- disks


CODE = """
import logging
from flowyml import *
import numpy as np
logging.basicConfig(format="%(message)s")
def large(n): return np.full(20_000, n)
def states():
    result = Pipeline("p", cache_dir=disk + "/cache").map(large, range(20), cache=True).run()
    assert [int(value[3]) for value in result["large"]] == list(range(20))
    return sum(item.cached for item in result.step_results["large"].items)
"""


def test_a_full_disk_is_one_warning_and_the_run_completes(on_disk):
    told = on_disk(
        f"{CODE}\nprint(states(), states())\nimport os\nprint(os.popen(f'find {{disk}} -size +100k').read())\n"
    )
    lines = told.splitlines()
    assert lines[:2] == ["0 0", ""]
    warnings = [line for line in lines if "No space left" in line or "full" in line]
    assert len(warnings) == 2  # one a run
    assert all(
        line.startswith("cache: ") and line.endswith("; the run continues without the cache") for line in warnings
    )


def test_a_disk_that_is_full_from_the_start(on_disk):
    told = on_disk(f"{CODE}\nopen(disk + '/all', 'wb').write(bytes(16384))\nprint(states())", size="16k")
    assert told.splitlines()[0] == "0"
    assert told.count("the run continues without the cache") == 1


def test_a_disk_that_cannot_be_written_to(on_disk):
    told = on_disk(f"{CODE}\nremount('ro')\nprint(states())\nremount('rw')\nprint(states(), states())", size="20m")
    lines = told.splitlines()
    assert lines[:2] == ["0", "0 20"]
    assert len(lines) == 3
    assert "Read-only file system" in lines[2]


# -- several at once


def fill(folder: str, first: int, seed: int) -> None:
    """Run the same items as others do, in another order."""
    items = [*range(first, first + 60)] * 2
    random.Random(seed).shuffle(items)
    store = CacheStore(folder)
    for start in range(0, len(items), 20):
        run(store, *items[start : start + 20])


def test_processes_that_store_the_same_keys_at_once(store, caplog):
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=fill, args=(str(store.cache_dir), 0, seed)) for seed in range(3)]
    for each in others:
        each.start()
    for each in others:
        each.join(50)
    assert [each.exitcode for each in others] == [0, 0, 0]
    assert store.stats()["total_entries"] == 120
    assert set(run(store, *range(60))) == {"cached"}
    assert told(caplog) == []


WRITER = """
import sys
from flowyml import *
import numpy as np
def large(n): return np.full(20_000, n)
def small(n): return {"n": n}
def each(first):
    pipeline = Pipeline("p", cache_dir=sys.argv[1])
    items = range(first, first + 20)
    return pipeline.map(large, items, cache=True).map(small, items, cache=True).run()
print("go", flush=True)
for first in range(0, 100_000, 20):
    each(first)
"""


def test_a_writer_that_is_killed_leaves_whole_values(store, tmp_path, caplog):
    (tmp_path / "writer.py").write_text(WRITER)
    rng = random.Random(2)
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "writer.py", str(store.cache_dir)], cwd=tmp_path, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.3))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert set(run(store, *range(30))) <= {"success", "cached"}
    assert told(caplog) == []
    with database_of(store).opened() as index:
        assert index._read("PRAGMA integrity_check") == [("ok",)]
    for path in files(store):
        assert path.name.endswith(".part") or path.stat().st_size > 100_000
