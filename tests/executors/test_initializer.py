"""`ParallelExecutor(initializer=)`: called once in each worker before its first step."""

from __future__ import annotations

import functools
import os
import signal
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from worker_pools import eventually

from flowyml import ExecutorError, ParallelExecutor, Pipeline, SerializationError

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = ("process", "thread")
HELD: dict[str, Any] = {}


def note(trace: Path) -> None:
    """Write down which worker this is."""
    with trace.open("a") as file:
        file.write(f"{os.getpid()} {threading.get_ident()}\n")


def worker(trace: Path, until: int) -> str:
    """Return which worker this is, once so many have begun."""
    assert eventually(lambda: len(trace.read_text().splitlines()) >= until)
    return f"{os.getpid()} {threading.get_ident()}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_worker_calls_it_once_before_its_first_step(backend: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pipeline = Pipeline("p").map(worker, [trace] * 8, name="work", params={"until": 2})
    with ParallelExecutor(2, backend, initializer=functools.partial(note, trace)) as executor:
        workers = {*pipeline.run(executor=executor)["work"], *pipeline.run(executor=executor)["work"]}
    noted = trace.read_text().splitlines()
    assert len(noted) == 2
    assert workers <= {*noted}


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_find_what_it_has_made(backend: Any) -> None:
    """Also those of another pipeline, and functions by value."""
    held = HELD

    def prepare() -> None:
        held["model"] = held.get("model", 0) + 41

    def use(x: int) -> int:
        return int(held["model"]) + x

    HELD.clear()
    with ParallelExecutor(1, backend, initializer=prepare) as executor:
        first = Pipeline("p").map(use, [1, 2], name="use").run(executor=executor)
        again = Pipeline("q").add_step(lambda: held["model"], name="use").run(executor=executor)
    assert (list(first["use"]), again["use"]) == ([42, 43], 41)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_it_raises_ends_the_run_and_the_next_one_tries_again(backend: Any, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    def prepare() -> None:
        if not flag.exists():
            raise ValueError("no model")

    pipeline = Pipeline("p").map(abs, [-1, -2, -3])
    with ParallelExecutor(2, backend, initializer=prepare) as executor:
        with pytest.raises(ExecutorError, match="initializer of the workers raised ValueError: no model") as caught:
            pipeline.run(executor=executor)
        flag.touch()
        assert list(pipeline.run(executor=executor)["abs"]) == [1, 2, 3]
    cause, result = caught.value.__cause__, caught.value.result
    assert isinstance(cause, ValueError)
    assert {frame.name for frame in traceback.extract_tb(cause.__traceback__)} <= {"prepare"}
    assert result is not None
    assert (result.success, len(result.failed)) == (False, 0)


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_whatever_it_raises_ends_the_run(backend: Any, error: str) -> None:
    def prepare() -> None:
        exec(f"raise {error}")

    with (
        ParallelExecutor(1, backend, initializer=prepare) as executor,
        pytest.raises(ExecutorError, match=error.partition("(")[0]),
    ):
        Pipeline("p").add_step(abs, params={"x": -1}).run(executor=executor)


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SilentError(), "SilentError: <str() of this SilentError raised RuntimeError>"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 10_000 + "\nmore"), f"ValueError: {'x' * 100}"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_it_raises_is_told_in_a_short_line(backend: Any, error: Exception, told: str) -> None:
    """Also where the exception cannot say what it is."""

    def prepare() -> None:
        raise error

    with ParallelExecutor(2, backend, initializer=prepare) as executor, pytest.raises(ExecutorError) as caught:
        Pipeline("p").map(abs, range(9)).run(executor=executor)
    line = str(caught.value)
    assert line.startswith(f"the initializer of the workers raised {told}")
    assert len(line) < 400
    assert line[-1] not in ": \n"


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_it_raises_when_its_run_is_over_is_not_the_next_ones(backend: Any, tmp_path: Path) -> None:
    """The worker tries again."""
    trace, first, second = tmp_path / "trace", tmp_path / "first", tmp_path / "second"

    def has_begun(times: int) -> bool:
        return eventually(lambda: len(trace.read_text().splitlines()) == times)

    def prepare() -> None:
        note(trace)
        try:
            first.touch(exist_ok=False)
        except FileExistsError:
            if not second.exists():
                assert eventually(second.exists)
                raise ValueError("late") from None

    def use(i: int) -> int:
        if not (tmp_path / "again").exists():
            assert has_begun(2)
            raise KeyError(i)
        second.touch()
        assert has_begun(3)
        return i

    pipeline = Pipeline("p").map(use, range(2))
    with ParallelExecutor(2, backend, initializer=prepare) as executor:
        assert pipeline.run(executor=executor, fail_fast=True).failed
        (tmp_path / "again").touch()
        assert list(pipeline.run(executor=executor)["use"]) == [0, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_does_not_wait_for_a_worker_that_has_nothing_to_do_any_more(backend: Any, tmp_path: Path) -> None:
    """Not even for the one step that it was given."""
    trace, first, end = tmp_path / "trace", tmp_path / "first", tmp_path / "end"

    def prepare() -> None:
        note(trace)
        try:
            first.touch(exist_ok=False)
        except FileExistsError:
            assert eventually(end.exists)

    with ParallelExecutor(2, backend, initializer=prepare) as executor:
        pipeline = Pipeline("p").map(worker, [trace] * 6, name="work", params={"until": 2})
        workers = pipeline.run(executor=executor)["work"]
        end.touch()
    assert len({*workers}) == 1


def test_one_that_runs_a_pipeline_on_its_own_executor_is_refused() -> None:
    """Else each of its workers would start others, in each other without end."""
    held: dict[str, ParallelExecutor] = {}

    def prepare() -> None:
        Pipeline("inner").map(abs, [-1]).run(executor=held["executor"])

    with ParallelExecutor(1, initializer=prepare) as executor:
        held["executor"] = executor
        with pytest.raises(ExecutorError, match="raised ExecutorError: an initializer cannot run a pipeline on"):
            Pipeline("p").map(abs, range(3)).run(executor=executor)


def test_one_that_runs_a_pipeline_on_another_executor_may(tmp_path: Path) -> None:
    file = tmp_path / "made"

    def prepare() -> None:
        with ParallelExecutor(1) as executor:
            file.write_text(str([*Pipeline("inner").map(abs, [-1]).run(executor=executor)["abs"]]))

    with ParallelExecutor(1, initializer=prepare) as executor:
        assert Pipeline("p").add_step(file.read_text, name="read").run(executor=executor)["read"] == "[1]"


def test_a_worker_that_dies_in_it_is_replaced(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def prepare() -> None:
        note(trace)
        if len(trace.read_text().splitlines()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with ParallelExecutor(1, initializer=prepare) as executor:
        assert Pipeline("p").add_step(abs, params={"x": -1}).run(executor=executor)["abs"] == 1


def test_one_that_kills_every_worker_ends_the_run() -> None:
    """No step is blamed: none has begun."""
    with (
        ParallelExecutor(1, initializer=functools.partial(os._exit, 7)) as executor,
        pytest.raises(ExecutorError, match="in the initializer, the last one: exit code 7") as caught,
    ):
        Pipeline("p").map(abs, range(9)).run(executor=executor)
    result = caught.value.result
    assert result is not None
    assert (result.success, len(result.failed)) == (False, 0)


@pytest.mark.parametrize("end", ["pass", "raise SystemExit"])
def test_a_child_that_it_forks_is_no_worker(end: str, tmp_path: Path) -> None:
    """It ends where the initializer does, however that is."""
    trace = tmp_path / "trace"

    def prepare() -> None:
        child = os.fork()
        if child == 0:
            exec(end)
            return
        assert os.waitpid(child, 0) == (child, 0)
        note(trace)

    with ParallelExecutor(1, initializer=prepare) as executor:
        assert list(Pipeline("p").map(abs, range(50)).run(executor=executor)["abs"]) == [*range(50)]
    assert len(trace.read_text().splitlines()) == 1


def test_one_that_takes_more_than_the_memory_limit_ends_the_run() -> None:
    """No step begins: there is none to blame."""

    def prepare() -> None:
        held = b"x" * (400 << 20)
        threading.Event().wait()
        del held

    with (
        ParallelExecutor(2, initializer=prepare, memory_limit="200MiB") as executor,
        pytest.raises(ExecutorError, match="before its first step, above the memory_limit of"),
    ):
        Pipeline("p").map(abs, range(4)).run(executor=executor)


def test_one_that_leaves_more_than_the_memory_limit_behind_ends_the_run_before_a_step_begins(tmp_path: Path) -> None:
    """However quickly it took it."""
    held = HELD

    def prepare() -> None:
        held["model"] = b"x" * (400 << 20)

    with (
        ParallelExecutor(1, initializer=prepare, memory_limit="200MiB") as executor,
        pytest.raises(ExecutorError, match="before its first step, above the memory_limit of"),
    ):
        Pipeline("p").map(lambda i: (tmp_path / str(i)).touch(), range(4), name="touch").run(executor=executor)
    assert not [*tmp_path.iterdir()]


def test_a_replaced_worker_calls_it_again(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pipeline = Pipeline("p").map(abs, range(3))
    with ParallelExecutor(1, initializer=functools.partial(note, trace), max_tasks_per_worker=1) as executor:
        pipeline.run(executor=executor)
    assert len(trace.read_text().splitlines()) == 3


def test_what_it_prints_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with ParallelExecutor(1, initializer=functools.partial(print, "ready")) as executor:
        Pipeline("p").add_step(abs, params={"x": -1}).run(executor=executor)
    assert capsys.readouterr().out == "ready\n"


def test_a_partial_of_an_imported_function_is_called_once_whatever_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """What it makes in its module is still there."""
    with ParallelExecutor(1, initializer=functools.partial(print, "ready", end="!")) as executor:
        Pipeline("p").add_step(abs, params={"x": -1}).run(executor=executor)
        Pipeline("q").map(len, ["a"]).run(executor=executor)
    assert capsys.readouterr().out == "ready!"


def test_a_partial_of_what_may_change_is_called_again_with_other_functions() -> None:
    """It comes with them, as it is in the driver."""
    held: list[int] = []
    with ParallelExecutor(1, initializer=functools.partial(held.append, 1)) as executor:
        seen = [Pipeline(name).add_step(lambda: len(held), name=name).run(executor=executor)[name] for name in "pq"]
    assert seen == [1, 1]


def test_what_it_sets_for_the_process_stays(tmp_path: Path) -> None:
    """As what a module sets while it is imported."""
    with ParallelExecutor(1, initializer=functools.partial(os.umask, 0o077)) as executor:
        pipeline = Pipeline("p").map(lambda i: (tmp_path / str(i)).touch(), range(2), name="touch")
        pipeline.run(executor=executor)
    assert [(tmp_path / str(i)).stat().st_mode & 0o777 for i in range(2)] == [0o600, 0o600]


@pytest.mark.parametrize(
    ("backend", "initializer", "error", "message"),
    [
        ("process", "load", TypeError, "initializer must be a function without arguments or None, got 'load'"),
        ("async", print, ValueError, "initializer is about workers"),
    ],
)
def test_a_wrong_one_is_refused(backend: Any, initializer: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ParallelExecutor(1, backend, initializer=initializer)


def test_a_coroutine_function_is_refused() -> None:
    async def prepare() -> None: ...

    with pytest.raises(TypeError, match="must be a plain function"):
        ParallelExecutor(1, initializer=prepare)


def test_one_that_does_not_pickle_is_named() -> None:
    lock = threading.Lock()
    with ParallelExecutor(1, initializer=lambda: lock) as executor, pytest.raises(SerializationError) as caught:
        Pipeline("p").add_step(abs, params={"x": -1}).run(executor=executor)
    assert str(caught.value).startswith("the workers' initializer cannot be pickled: closure variable 'lock'")
