"""A worker that dies costs the step it was in, by name, and nothing else; in batches of one and of a thousand."""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import worker_pools
from run_notes import executions, noted

from flowyml import ExecutorError, ParallelExecutor, Pipeline, SerializationError, ValueLoadError, WorkerLostError
from flowyml.executors.process.driver import arena_owner
from flowyml.executors.process.driver.backend import ProcessBackend
from flowyml.executors.process.worker.worker_loop import WorkerLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

DEATHS = {
    "os._exit": (lambda: os._exit(3), "exit code 3"),
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), r"SIGKILL \(9\)"),
    "SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), r"SIGTERM \(15\)"),
    "abort": (os.abort, r"SIGABRT \(6\)"),
    "segfault": (lambda: ctypes.string_at(0), r"SIGSEGV \(11\)"),
}


@pytest.fixture(scope="module", params=[1, 2, 8])
def processes(request: pytest.FixtureRequest) -> Iterator[ParallelExecutor]:
    """Process executors of several sizes."""
    with ParallelExecutor(request.param, "process") as executor:
        yield executor


@pytest.mark.parametrize("how", DEATHS)
def test_a_death_is_one_failed_step(processes: ParallelExecutor, how: str) -> None:
    """Named, with signal or exit code; all others finish."""
    die, words = DEATHS[how]
    pipeline = Pipeline("death")
    for i in range(20):
        pipeline.add_step((lambda i, die=die: die() if i == 7 else i), name=f"s{i}", params={"i": i})
    result = pipeline.run(executor=processes)
    assert [each.step_name for each in result.failed] == ["s7"]
    error = result.step_results["s7"].exception
    assert isinstance(error, WorkerLostError)
    assert error.step_name == "s7"
    with pytest.raises(WorkerLostError, match=words):
        raise error
    assert dict(result.outputs) == {f"s{i}": i for i in range(20) if i != 7}


@pytest.mark.parametrize("guilty", [[0], [999], [5_000], [9_999], [17, 18, 3_000, 3_001, 9_000]])
def test_blame_is_exact_in_large_batches(processes: ParallelExecutor, tmp_path: Path, guilty: list[int]) -> None:
    """Microsecond steps go in batches of hundreds: each guilty one is named, every other one runs exactly once."""
    count = 10_000

    def work(i: int, folder: str) -> int:
        if i in guilty:
            os._exit(1)
        return noted(folder, i) if i % 50 == 0 else i

    result = (
        Pipeline("batches")
        .map(work, range(count), name="work", params={"folder": str(tmp_path)})
        .run(executor=processes)
    )
    assert [each.step_name for each in result.failed] == [f"work[{i}]" for i in guilty]
    assert all(isinstance(each.exception, WorkerLostError) for each in result.failed)
    values = result["work"]
    assert all(values[i] == i for i in range(count) if i not in guilty)
    assert executions(tmp_path) == [i for i in range(0, count, 50) if i not in guilty]


def test_nothing_that_was_delivered_runs_again(tmp_path: Path) -> None:
    """Every step that is not guilty leaves exactly one trace, however many workers die around it."""
    guilty = range(10, 400, 37)

    def work(i: int, folder: str) -> int:
        if i in guilty:
            os.kill(os.getpid(), signal.SIGKILL)
        return noted(folder, i)

    with ParallelExecutor(2) as executor:
        result = (
            Pipeline("traces")
            .map(work, range(400), name="work", params={"folder": str(tmp_path)})
            .run(executor=executor)
        )
    assert [each.step_name for each in result.failed] == [f"work[{i}]" for i in guilty]
    assert executions(tmp_path) == [i for i in range(400) if i not in guilty]


def test_all_workers_die_at_the_same_moment(tmp_path: Path) -> None:
    """Each guilty step is named, the rest completes."""

    def work(i: int, folder: str) -> int:
        if i < 4:
            Path(folder, f"here{i}").touch()
            while len(list(Path(folder).iterdir())) < 4:
                time.sleep(0.001)
            os._exit(i + 1)
        return i

    with ParallelExecutor(4) as executor:
        result = (
            Pipeline("all").map(work, range(50), name="work", params={"folder": str(tmp_path)}).run(executor=executor)
        )
    assert [each.step_name for each in result.failed] == ["work[0]", "work[1]", "work[2]", "work[3]"]
    assert [each.exception.exitcode for each in result.failed] == [1, 2, 3, 4]
    assert all(result["work"][i] == i for i in range(4, 50))


def test_a_death_costs_its_dependents(processes: ParallelExecutor) -> None:
    """They are upstream_failed, as after an exception."""
    pipeline = Pipeline("dependents").add_step(lambda: os._exit(0), name="dies")
    pipeline.add_step(lambda dies: dies, name="reads").add_step(lambda: 1, name="free")
    result = pipeline.run(executor=processes)
    states = {name: str(each.state) for name, each in result.step_results.items()}
    assert states == {"dies": "failed", "reads": "upstream_failed", "free": "success"}
    assert "exit code 0" in str(result.step_results["dies"].error)


def test_fail_fast_after_a_death(processes: ParallelExecutor) -> None:
    """A death is a failure like any other."""

    def work(i: int) -> int:
        return os._exit(1) if i == 5 else i  # type: ignore[func-returns-value]

    result = Pipeline("fast").map(work, range(5_000), name="work").run(executor=processes, fail_fast=True)
    states = {str(item.state) for item in result.step_results["work"].items}
    assert states <= {"success", "failed", "cancelled"}
    assert [each.step_name for each in result.failed] == ["work[5]"]


def test_the_executor_works_again_after_deaths(processes: ParallelExecutor) -> None:
    """A dead worker is replaced."""
    Pipeline("dies").map(lambda _: os._exit(1), range(3), name="d").run(executor=processes)
    assert list(Pipeline("lives").map(abs, range(3), name="l").run(executor=processes)["l"]) == [0, 1, 2]


def test_an_idle_worker_that_is_killed_is_replaced_in_silence(capfd: Any) -> None:
    """Between two runs, and nobody is told."""
    with ParallelExecutor(1) as executor:
        pipeline = Pipeline("pid").add_step(os.getpid, name="pid")
        first = pipeline.run(executor=executor)["pid"]
        os.kill(first, signal.SIGKILL)
        second = pipeline.run(executor=executor)
    assert second.success
    assert second["pid"] != first
    assert capfd.readouterr() == ("", "")


def test_steps_behind_a_long_one_are_taken_back(tmp_path: Path) -> None:
    """A batch of small steps with a long one in it: those behind it run elsewhere meanwhile."""

    def work(i: int, folder: str) -> int:
        if i == 2_000:
            deadline = time.monotonic() + 30
            while len(os.listdir(folder)) < 1_900 and time.monotonic() < deadline:  # noqa: PTH208  no Path for each
                time.sleep(0.01)
            return len(os.listdir(folder))  # noqa: PTH208
        if i > 2_000:
            Path(folder, str(i)).touch()
        return i

    with ParallelExecutor(2) as executor:
        result = (
            Pipeline("long")
            .map(work, range(4_000), name="work", params={"folder": str(tmp_path)})
            .run(executor=executor)
        )
    assert result.success
    assert result["work"][2_000] >= 1_900


def test_a_worker_that_closes_its_socket_is_lost(processes: ParallelExecutor) -> None:
    """Closing all descriptors cuts the worker off; the step is blamed, the rest runs."""

    def work(i: int) -> int:
        if i == 3:
            os.closerange(3, 256)
        return i

    result = Pipeline("closes").map(work, range(20), name="work").run(executor=processes)
    assert [each.step_name for each in result.failed] == ["work[3]"]


def refuse() -> None:
    """Stand for a process whose descriptors nobody may open."""
    raise PermissionError


def test_a_step_that_forks_does_not_double(processes: ParallelExecutor) -> None:
    """The child that returns from the step ends; the parent's result counts once."""

    def work(i: int) -> int:
        if i == 3 and os.fork() == 0:
            return -1
        return i

    result = Pipeline("forks").map(work, range(20), name="work").run(executor=processes)
    assert list(result["work"]) == list(range(20))


def address_space(pid: int) -> int:
    """Return how many bytes a process has mapped."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.mark.parametrize("arenas", [True, False])
def test_an_argument_that_is_too_large_costs_its_step_only(
    monkeypatch: pytest.MonkeyPatch, mark: str, arenas: bool
) -> None:
    """Without arenas the worker dies of it before it begins the step, each time anew."""
    if not arenas:
        if "t" in sys.abiflags:
            pytest.skip("without its lock Python has an allocator that starts with a gigabyte of addresses")
        monkeypatch.setattr(arena_owner, "check_fd_access", refuse)
    large = 128 << 20
    with ParallelExecutor(1) as executor:
        Pipeline("start").add_step(abs, name="one", params={"x": 1}).run(executor=executor)
        for pid in worker_pools.marked(mark):  # so that workers to come live under the limit, and this process does not
            resource.prlimit(pid, resource.RLIMIT_AS, (address_space(pid) + large, resource.RLIM_INFINITY))
        pipeline = Pipeline("memory").map(abs, range(100), name="small")
        pipeline.add_step(len, name="big", params={"obj": bytes(large)}, after=["small"])
        pipeline.add_step(lambda: 2, name="other", after=["small"])
        result = pipeline.run(executor=executor)
    assert [each.step_name for each in result.failed] == ["big"]
    assert isinstance(result.step_results["big"].exception, ValueLoadError if arenas else WorkerLostError)
    assert list(result["small"]) == list(range(100))
    assert result["other"] == 2


class Exits:
    """Ends the process of whoever pickles it."""

    def __reduce__(self) -> Any:
        raise SystemExit(9)


class ExitsLater:
    """Ends the process of whoever loads it, but for the worker that made it."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __reduce__(self) -> Any:
        return (_exit_elsewhere, (self.home,))


def _exit_elsewhere(home: int) -> str:
    if os.getpid() != home:
        raise SystemExit(9)
    return "home"


def test_values_that_exit_when_they_are_pickled_or_loaded_cost_their_step(processes: ParallelExecutor) -> None:
    """Neither the driver nor the worker ends."""
    pipeline = Pipeline("exits").map(repr, [Exits()], name="argument")
    pipeline.add_step(lambda: Exits(), name="result").add_step(lambda: ExitsLater(), name="read")  # noqa: PLW0108
    pipeline.add_step(lambda: 1, name="other")
    result = pipeline.run(executor=processes)
    assert [each.step_name for each in result.failed] == ["argument[0]", "result"]
    assert all(isinstance(each.exception, SerializationError) for each in result.failed)
    with pytest.raises(ValueLoadError, match="'read'"):
        result["read"]
    assert result["other"] == 1


@pytest.mark.parametrize("how", ["detach", "reconfigure"])
def test_a_silent_step_that_spoils_its_streams_spoils_its_own(how: str, capfd: Any) -> None:
    """The next step prints as if nothing had been."""

    def culprit() -> None:
        if how == "detach":
            sys.stdout.detach()
        else:
            sys.stdout.reconfigure(encoding="utf-16")

    with ParallelExecutor(1) as executor:
        pipeline = (
            Pipeline("streams").add_step(culprit).add_step(lambda: print("hello"), name="next", after=["culprit"])
        )
        assert pipeline.run(executor=executor).success
    assert capfd.readouterr().out == "hello\n"


@pytest.mark.parametrize("how", ["closes", "replaces"])
def test_a_silent_step_that_spoils_its_descriptors_spoils_its_own(how: str, tmp_path: Path, capfd: Any) -> None:
    """The steps behind it in the same batch find stdin empty, and what they write to fd 1 arrives."""

    def work(i: int, folder: str) -> bytes | None:
        if i % 100 == 7:
            for number in (0, 1, 2):
                if how == "closes":
                    os.close(number)
                else:
                    with Path(folder, "file").open("a+") as file:
                        os.dup2(file.fileno(), number)
        if i % 100 != 8:
            return None
        os.write(1, b"%d\n" % i)
        return os.read(0, 10)

    with ParallelExecutor(1) as executor:
        pipeline = Pipeline("descriptors").map(work, range(1_000), name="work", params={"folder": str(tmp_path)})
        result = pipeline.run(executor=executor, raise_on_failure=True)
    assert result["work"][8::100] == [b""] * 10
    assert capfd.readouterr().out.split() == [str(i) for i in range(8, 1_000, 100)]


def test_a_guardian_that_dies_between_two_hires(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its workers along, so the run ends with an error, and no other guardian takes its place unnoticed."""
    hire = ProcessBackend.start_worker

    def hire_late(team: ProcessBackend) -> Any:
        if team.workers and team.pool.supervisor_pid is not None:
            os.kill(team.pool.supervisor_pid, signal.SIGKILL)
            assert worker_pools.eventually(lambda: not team.pool._session.is_alive())
        return hire(team)

    with ParallelExecutor(2) as executor:
        monkeypatch.setattr(ProcessBackend, "start_worker", hire_late)
        with pytest.raises(ExecutorError, match="the supervisor of the worker processes is lost"):
            Pipeline("lost").map(abs, range(10), name="abs").run(executor=executor)
        monkeypatch.setattr(ProcessBackend, "start_worker", hire)
        assert Pipeline("again").map(abs, range(10), name="abs").run(executor=executor).success


def _caller() -> Any:
    """Return what writes the results of the worker process that this step is in."""
    frame = sys._getframe()
    while frame is not None:
        worker = frame.f_locals.get("self")
        if isinstance(worker, WorkerLoop):
            return worker._caller
        frame = frame.f_back
    raise LookupError


@pytest.mark.parametrize("ahead", [-1, 1_000_000])
def test_a_result_for_no_posted_step_ends_its_worker(ahead: int, tmp_path: Path) -> None:
    """No result after it could be taken, so the run would hang."""

    def step(i: int) -> int:
        noted(str(tmp_path), i)
        if i == 3:
            caller = _caller()
            assert caller.put(caller.slot + ahead, 1.0, 2.0, "stray")
        return i

    with ParallelExecutor(1) as executor:
        result = Pipeline("stray").map(step, range(2_000), name="m").run(executor=executor)
        assert [item.state.value for item in result.step_results["m"].items].count("failed") == 1
        error = result.step_results["m"].items[3].exception
        assert isinstance(error, WorkerLostError)
        assert "shared memory of its results" in str(error)
        assert pickle.loads(pickle.dumps(error)).reason == error.reason
        assert Pipeline("after").add_step(lambda: 5, "five").run(executor=executor)["five"] == 5


def test_a_stray_result_between_two_runs_ends_its_worker_and_fails_no_step(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def first() -> int:
        caller = _caller()

        def later() -> None:
            with fifo.open("rb") as file:
                file.read()  # until the run has ended
            assert caller.put(caller.slot + 5, 1.0, 2.0, "stray")
            fifo.write_bytes(b"done")

        threading.Thread(target=later).start()
        return os.getpid()

    with ParallelExecutor(1) as executor:
        pid = Pipeline("p").add_step(first, "pid").run(executor=executor)["pid"]
        fifo.write_bytes(b"go")
        assert fifo.read_bytes() == b"done"
        result = Pipeline("q").add_step(os.getpid, "pid").run(executor=executor, raise_on_failure=True)
        assert result["pid"] != pid
