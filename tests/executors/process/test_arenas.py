"""Large values between processes: where they lie, who sees what of them, and when they are gone."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from flowyml import ExecutorError, MemoryBudgetError, MemoryLimitError, ParallelExecutor, Pipeline
from flowyml._extension import PrivateMap
from flowyml.executors.process.driver import arena_owner
from flowyml.store import arenas
from flowyml.store.arenas import Arena, PickledValue

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def two() -> Iterator[ParallelExecutor]:
    """Two warm workers."""
    with ParallelExecutor(max_workers=2) as executor:
        yield executor


@pytest.fixture(scope="module")
def one() -> Iterator[ParallelExecutor]:
    """One warm worker."""
    with ParallelExecutor(max_workers=1) as executor:
        yield executor


def held(executor: ParallelExecutor) -> int:
    """Return the bytes of memory that the arenas of an executor take."""
    gc.collect()
    found = executor._team.arenas._arenas.values()
    return sum(os.fstat(arena.fd).st_blocks * 512 for arena in found)


def zeros(mib: int = 1) -> np.ndarray:
    return np.zeros(mib * MIB, dtype=np.uint8)


def unable() -> None:
    """Stand for a process whose descriptors nobody may open."""
    raise PermissionError


VALUES = {
    "array": np.arange(100_000.0),
    "fortran": np.asfortranarray(np.arange(90_000.0).reshape(300, 300)),
    "strided": np.arange(200_000.0)[::2],
    "bytes": bytes(range(256)) * 1000,
    "bytearray": bytearray(range(256)) * 1000,
    "text": "x" * 300_000,
    "frame": pd.DataFrame({"a": np.arange(50_000), "b": np.arange(50_000.0), "c": ["x"] * 50_000}),
    "mixed": {"few": np.arange(3), "many": [np.arange(30_000), b"y" * 100_000], "small": 1},
    "numbers": list(range(100_000)),
}


@pytest.mark.parametrize("name", VALUES)
def test_every_kind_of_value_arrives(two: ParallelExecutor, name: str) -> None:
    """At a step that reads it and at the driver, made by a step or given as a parameter: the same bytes."""
    value = VALUES[name]
    pipeline = Pipeline("kinds").add_step(lambda value: value, name="made", params={"value": value})
    pipeline.add_step(pickle.dumps, name="read", inputs={"obj": "made"})
    result = pipeline.run(executor=two)
    result.raise_for_failure()
    for found in (result["made"], pickle.loads(result["read"])):
        assert type(found) is type(value)
        assert pickle.dumps(found, 4) == pickle.dumps(value, 4)  # 5 tells how an array lies in memory, too


def test_a_step_may_change_its_own_copy(two: ParallelExecutor) -> None:
    """Nobody else sees it: no other reader, nor the result."""

    def spoil(a: np.ndarray) -> int:
        a += 7
        return int(a.sum() // a.size)

    pipeline = Pipeline("own").add_step(zeros)
    for k in range(4):
        pipeline.add_step(spoil, name=f"spoil_{k}", inputs={"a": "zeros"})
    result = pipeline.run(executor=two)
    assert [result[f"spoil_{k}"] for k in range(4)] == [7] * 4
    assert not result["zeros"].any()


def test_a_step_that_goes_on_writing_what_it_returned_changes_nothing(one: ParallelExecutor) -> None:
    """A value is what it was when it was returned."""

    def first() -> np.ndarray:
        global kept
        kept = zeros()
        return kept

    def second(a: np.ndarray) -> int:
        kept[:] = 9
        return int(a.sum())

    pipeline = Pipeline("later").add_step(first).add_step(second, inputs={"a": "first"})
    result = pipeline.run(executor=one)
    assert result["second"] == 0
    assert not result["first"].any()


def test_what_a_step_keeps_of_its_argument_stays_as_it_was(one: ParallelExecutor) -> None:
    """Though the run lets go of it, and others are written; and it is freed when the step's process lets go."""

    def keep(a: np.ndarray) -> int:
        global kept
        kept = a
        return 1

    def read(before: int) -> int:
        return int(kept.sum())

    def drop(before: int) -> int:
        global kept
        kept = None
        return 1

    pipeline = Pipeline("keep").add_step(lambda: np.ones(MIB, dtype=np.uint8), name="made")
    pipeline.add_step(keep, inputs={"a": "made"})
    pipeline.add_step(lambda before: zeros(4), name="more", inputs={"before": "keep"})
    pipeline.add_step(lambda a: a.size, name="size", inputs={"a": "more"})
    pipeline.add_step(read, inputs={"before": "size"})
    assert pipeline.run(executor=one, keep="leaves")["read"] == MIB
    assert held(one) == MIB + 4096
    Pipeline("drop").add_step(drop, params={"before": 1}).run(executor=one)
    assert held(one) == 0


def test_the_driver_neither_loads_nor_copies_what_nobody_looks_at(two: ParallelExecutor) -> None:
    """A value that cannot be loaded passes; what is in memory is in the arena."""

    class Fussy:
        def __init__(self) -> None:
            self.data = zeros(2)

        def __reduce__(self):
            return _load_in_worker, (os.getppid(), pickle.PickleBuffer(self.data))

    pipeline = Pipeline("unseen").add_step(Fussy, name="made").add_step(len, inputs={"obj": "made"})
    result = pipeline.run(executor=two)
    assert result["len"] == 2 * MIB
    assert 2 * MIB <= held(two) < 3 * MIB
    with pytest.raises(Exception, match="only a worker loads this"):
        result["made"]


def _load_in_worker(guardian: int, data: object) -> bytes:
    if os.getppid() != guardian:
        raise RuntimeError("only a worker loads this")
    return bytes(data)


def test_values_go_with_the_last_who_holds_them(two: ParallelExecutor) -> None:
    """The result, or an array that somebody took from it."""
    result = Pipeline("hold").map(zeros, [1, 2, 3]).run(executor=two)
    assert held(two) >= 6 * MIB
    array = result["zeros"][2]
    del result
    assert 3 * MIB <= held(two) < 4 * MIB
    assert not array.any()
    del array
    assert held(two) == 0


def test_keep_leaves_frees_what_nobody_will_read(two: ParallelExecutor) -> None:
    """While the run goes on: never more than a few of forty values are there."""

    def longest(a: np.ndarray, folder: str) -> np.ndarray:
        return a + 1

    pipeline = Pipeline("chain").add_step(zeros, name="s0")
    for k in range(40):
        pipeline.add_step(lambda a: a + 1, name=f"s{k + 1}", inputs={"a": f"s{k}"})
    result = pipeline.run(executor=two, keep="leaves")
    assert result["s40"][0] == 40
    assert held(two) < 2 * MIB


def test_a_result_can_be_read_after_shutdown() -> None:
    """Also for the first time."""
    with ParallelExecutor(max_workers=2) as executor:
        result = Pipeline("after").map(zeros, [1, 2]).run(executor=executor)
    assert [len(value) for value in result["zeros"]] == [MIB, 2 * MIB]


def test_an_argument_of_many_steps_lies_in_one_place(two: ParallelExecutor) -> None:
    """And what only one step reads is gone with the step."""
    table = np.ones(4 * MIB, dtype=np.uint8)
    pipeline = Pipeline("once")
    for k in range(20):
        pipeline.add_step(lambda a, k: int(a.sum()), name=f"s{k}", params={"a": table, "k": k})
    result = pipeline.run(executor=two)
    assert {result[f"s{k}"] for k in range(20)} == {4 * MIB}
    assert two._team.arenas._arguments[0].end <= 3 * 4 * MIB
    assert held(two) == 0


def test_a_worker_that_dies_in_a_step_leaves_nothing_behind(two: ParallelExecutor) -> None:
    """What it had begun to write is given back; what it had returned stays."""

    def die(a: np.ndarray) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pipeline = Pipeline("deaths").add_step(zeros).add_step(die, inputs={"a": "zeros"})
    result = pipeline.run(executor=two)
    assert str(result.step_results["die"].state) == "failed"
    assert not result["zeros"].any()
    del result
    assert held(two) == 0


def test_a_block_that_was_begun_is_cut_off() -> None:
    """By the driver, when its writer is dead."""
    arena = Arena.of_memory()
    first = arena.put(PickledValue(pickle.dumps(1), []))
    os.pwrite(arena.fd, b"x" * MIB, arena.end)
    arena.cut()
    assert os.fstat(arena.fd).st_blocks * 512 == arenas.padded(first.size)
    assert first.load() == 1


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 2 * PAGE + 1), (2 * PAGE, 1), (PAGE, PAGE + 1), (0, 1 << 40), ((1 << 63) - PAGE, PAGE)]
)
def test_a_part_beyond_the_end_of_its_file_is_not_mapped(offset: int, length: int) -> None:
    """To read it would be a SIGBUS. The rest of the last page reads as zeros."""
    fd = os.memfd_create("short")
    try:
        os.pwrite(fd, b"x" * (PAGE + 1), 0)
        assert bytes(memoryview(PrivateMap(fd, PAGE, PAGE))) == b"x" + bytes(PAGE - 1)
        with pytest.raises(
            ValueError, match=f"cannot map {length} bytes at offset {offset}: the file ends at {PAGE + 1}"
        ):
            PrivateMap(fd, offset, length)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        PrivateMap(fd, 0, 1)


def test_a_block_that_is_not_in_its_arena_is_an_error_and_no_signal() -> None:
    """As a worker might report one: the driver reads it."""
    arena = Arena.of_memory()
    arena.put(PickledValue(b"12", []))
    with pytest.raises(ValueError, match="the file ends at 2"):
        arena.adopt((arena.number, arena.fd, arena.end, 10, (MIB,))).load()


def test_an_arena_of_memory_cannot_be_cut() -> None:
    """By a step that found its descriptor: processes that have mapped a block can still read it."""
    arena = Arena.of_memory()
    stored = arena.put(PickledValue(pickle.dumps([1, 2]), []))
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 0)
    assert stored.load() == [1, 2]


def test_values_travel_through_sockets_where_there_is_no_room(one: ParallelExecutor) -> None:
    """A file that may not grow: here by a limit of the worker's process."""

    def limited() -> bytes:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, resource.RLIM_INFINITY))
        return b"x" * (3 * MIB)

    with ParallelExecutor(max_workers=1) as executor:
        result = Pipeline("full").add_step(limited).run(executor=executor)
        assert result["limited"] == b"x" * (3 * MIB)
        assert held(executor) == 0


def test_values_travel_through_sockets_where_descriptors_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that may not be looked at; a budget cannot be kept there."""
    monkeypatch.setattr(arena_owner, "check_fd_access", unable)
    table = np.ones(MIB, dtype=np.uint8)
    pipeline = Pipeline("sockets").add_step(zeros)
    pipeline.add_step(lambda a, b: int((a + b).sum()), name="sum", inputs={"a": "zeros"}, params={"b": table})
    with ParallelExecutor(max_workers=2) as executor:
        result = pipeline.run(executor=executor)
        assert result["sum"] == MIB
        assert not executor._team.arenas._arenas
    with ParallelExecutor(max_workers=2, memory_budget=MIB) as executor, pytest.raises(ExecutorError, match="budget"):
        pipeline.run(executor=executor)


def test_a_step_may_close_every_descriptor_and_open_others(tmp_path: Path) -> None:
    """Nothing of flowyml's is written to the step's files."""

    def careless(folder: str, a: np.ndarray) -> np.ndarray:
        for fd in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if "flowyml-values" in str(fd.readlink()):
                    os.close(int(fd.name))
        global files
        files = [os.open(Path(folder, str(k)), os.O_CREAT | os.O_WRONLY) for k in range(20)]
        return a + 1

    pipeline = Pipeline("careless").add_step(zeros)
    pipeline.add_step(careless, inputs={"a": "zeros"}, params={"folder": str(tmp_path)})
    pipeline.add_step(lambda a, b: int((a + b).sum()), name="sum", inputs={"a": "zeros", "b": "careless"})
    with ParallelExecutor(max_workers=1) as executor:
        assert pipeline.run(executor=executor)["sum"] == MIB
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {0}


def test_a_child_that_a_step_forked_keeps_what_it_sees(one: ParallelExecutor, tmp_path: Path) -> None:
    """The run lets go of the value and writes others while the child still reads."""

    def fork(a: np.ndarray, folder: str) -> int:
        ready, go = os.pipe()
        if not os.fork():
            os.read(ready, 1)
            Path(folder, "seen").write_text(str(int(a.sum())))
            os._exit(0)
        return go

    def finish(go: int, others: int, folder: str) -> str:
        os.write(go, b"x")
        os.wait()
        return Path(folder, "seen").read_text()

    pipeline = Pipeline("fork").add_step(lambda: np.ones(MIB, dtype=np.uint8), name="made")
    pipeline.add_step(fork, inputs={"a": "made"}, params={"folder": str(tmp_path)})
    pipeline.add_step(lambda go: zeros(2), name="more", inputs={"go": "fork"})
    pipeline.add_step(len, name="others", inputs={"obj": "more"})
    pipeline.add_step(finish, inputs={"go": "fork", "others": "others"}, params={"folder": str(tmp_path)})
    assert pipeline.run(executor=one, keep="leaves")["finish"] == str(MIB)


def test_a_forked_driver_does_not_free_its_parents_values(two: ParallelExecutor) -> None:
    """A child that ends in an orderly way collects its copy of everything."""
    result = Pipeline("forked").add_step(lambda: np.ones(MIB, dtype=np.uint8), name="made").run(executor=two)
    child = os.fork()
    if not child:
        value = int(result["made"].sum())
        del result
        gc.collect()
        os._exit(0 if value == MIB else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert int(result["made"].sum()) == MIB


def test_few_descriptors(one: ParallelExecutor) -> None:
    """A step reads two thousand large values at once, and the driver holds them, with a limit of 256."""
    script = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import numpy as np
from flowyml import ParallelExecutor, Pipeline
pipeline = Pipeline("many").map(lambda i: np.full(70_000, i % 7, np.uint8), range(2000), name="made")
pipeline.add_step(lambda made: sum(int(a[-1]) for a in made), name="sum", inputs=["made"])
with ParallelExecutor(max_workers=2) as executor:
    result = pipeline.run(executor=executor)
    result.raise_for_failure()
    print(result["sum"], sum(int(a[0]) for a in result["made"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert done.stdout.split() == [str(sum(i % 7 for i in range(2000)))] * 2, done.stderr


def test_pages_that_are_only_read_do_not_count_for_the_memory_limit() -> None:
    """Those that a step writes to do: they are its own then."""

    def read(a: np.ndarray) -> int:
        total = int(a.sum())
        time.sleep(0.2)  # the driver looks twenty times a second
        return total

    def write(a: np.ndarray) -> None:
        a += 1
        time.sleep(10)

    pipeline = Pipeline("limit")
    table = np.ones(200 * MIB, dtype=np.uint8)
    for step in (read, write):
        pipeline.add_step(step, params={"a": table})
    with ParallelExecutor(max_workers=1, memory_limit="180 MiB") as executor:
        result = pipeline.run(executor=executor)
    assert result["read"] == 200 * MIB
    assert isinstance(result.step_results["write"].exception, MemoryLimitError)


def test_nothing_is_left_when_the_driver_is_killed(tmp_path: Path) -> None:
    """A spilled value has no name."""
    script = """
import os, signal
from flowyml import ParallelExecutor, Pipeline
with ParallelExecutor(max_workers=2, memory_budget="1 MiB") as executor:
    result = Pipeline("killed").map(lambda i: bytes(2_000_000), range(4), name="made").run(executor=executor)
    assert result.success
    print(os.listdir(os.environ["TMPDIR"]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment)
    assert (done.stdout, done.returncode) == ("[]\n", -signal.SIGKILL), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_without_nameless_files_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name is gone before anything is written."""
    monkeypatch.delattr(os, "O_TMPFILE")
    arena = Arena.of_disk(str(tmp_path))
    assert not list(tmp_path.iterdir())
    assert arena.put(PickledValue(pickle.dumps("x"), [])).load() == "x"


# -- memory_budget=


@pytest.fixture(scope="module")
def tight() -> Iterator[ParallelExecutor]:
    """Two warm workers that may hold three MiB."""
    with ParallelExecutor(max_workers=2, memory_budget="3 MiB") as executor:
        yield executor


def spilled(executor: ParallelExecutor) -> int:
    """Return the bytes of disk that an executor's values take."""
    gc.collect()
    arenas = executor._team.arenas._arenas.values()
    return sum(os.fstat(arena.fd).st_blocks * 512 for arena in arenas if not arena.counts)


def test_values_beyond_the_budget_lie_on_disk(tight: ParallelExecutor) -> None:
    """All of them can be read by steps and by the driver; those in memory stay within the budget, but for one each."""
    pipeline = Pipeline("spill").map(lambda k: np.full(MIB, k, dtype=np.uint8), range(20), name="made")
    pipeline.map(lambda a: int(a[0]) + int(a[-1]), over="made", name="read")
    result = pipeline.run(executor=tight)
    assert list(result["read"]) == [2 * k for k in range(20)]
    assert [int(a.sum()) for a in result["made"]] == [k * MIB for k in range(20)]
    memory = held(tight) - spilled(tight)
    assert memory <= 5 * (MIB + 4096)
    assert spilled(tight) >= 15 * MIB
    del result
    assert held(tight) == 0


def test_room_that_is_free_again_is_used(tight: ParallelExecutor) -> None:
    """What is let go of makes room in memory."""
    for _ in range(3):
        result = Pipeline("room").map(zeros, [1, 1]).run(executor=tight)
        assert len(result["zeros"]) == 2
        assert held(tight) >= 2 * MIB
        assert spilled(tight) == 0
        del result


def test_arguments_count_too(tight: ParallelExecutor) -> None:
    """A table that is larger than the budget lies on disk as long as the run lasts."""
    table = np.ones(4 * MIB, dtype=np.uint8)
    pipeline = Pipeline("table")
    for k in range(4):
        pipeline.add_step(lambda a: int(a.sum()), name=f"s{k}", params={"a": table})
    result = pipeline.run(executor=tight)
    assert [result[f"s{k}"] for k in range(4)] == [4 * MIB] * 4
    assert held(tight) == 0


def test_a_value_that_finds_no_room_is_the_failure_of_its_step() -> None:
    """The disk is full: here the worker's files have a limit."""

    def limited() -> bytes:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, resource.RLIM_INFINITY))
        return b"x" * (3 * MIB)

    with ParallelExecutor(max_workers=1, memory_budget=2 * MIB) as executor:
        result = Pipeline("full").add_step(limited).add_step(zeros).run(executor=executor)
        assert isinstance(result.step_results["limited"].exception, MemoryBudgetError)
        assert "a value of 3.0 MiB has no room" in str(result.step_results["limited"].exception)
        assert len(result["zeros"]) == MIB
        assert spilled(executor) == 0


def test_a_worker_without_an_arena_reads_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when files are few: what it returns goes through its socket, what it is given lies where it lies."""
    new, made = arena_owner.ArenaOwner._new, []

    def only_the_first(self: arena_owner.ArenaOwner) -> tuple[Arena, Arena | None] | None:
        made.append(None if made else new(self))
        return made[-1]

    monkeypatch.setattr(arena_owner.ArenaOwner, "_new", only_the_first)
    with ParallelExecutor(max_workers=2) as executor:
        pipeline = Pipeline("unequal").map(lambda k: time.sleep(0.01) or bytes([k]) * MIB, range(20), name="big")
        pipeline.map(lambda big: time.sleep(0.01) or (os.getpid(), len(big)), over="big", name="size")
        sizes = pipeline.run(executor=executor, raise_on_failure=True)["size"]
    assert len({pid for pid, _ in sizes}) == len(made) == 2
    assert [size for _, size in sizes] == [MIB] * 20


@pytest.mark.parametrize("backend", ["thread", "async"])
def test_a_budget_is_for_worker_processes(backend: str) -> None:
    """Elsewhere values are the objects of their steps."""
    with pytest.raises(ValueError, match="memory_budget is about worker processes"):
        ParallelExecutor(backend=backend, memory_budget="1GiB")
    assert ParallelExecutor(memory_budget="1GiB").memory_budget == 1 << 30


# -- files


def test_cached_values_are_stored_whole(two: ParallelExecutor, tmp_path: Path) -> None:
    """Without being loaded in the driver; an array of the cache can be written to like any other."""

    def made() -> dict[str, object]:
        return {"a": np.arange(MIB), "b": b"x" * MIB, "f": pd.DataFrame({"x": np.arange(MIB)})}

    pipeline = Pipeline("stored", cache_dir=str(tmp_path)).add_step(made, cache=True)
    first, second = pipeline.run(executor=two), pipeline.run(executor=two)
    assert second.step_results["made"].cached
    second["made"]["a"][0] = 7
    assert second["made"]["b"] == first["made"]["b"]
    assert second["made"]["f"].equals(first["made"]["f"])
    assert int(second["made"]["a"].sum()) == int(first["made"]["a"].sum()) + 7
