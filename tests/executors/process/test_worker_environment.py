"""What a step sees of the driver's process, and what the driver sees of a step's output, through the executor.

How each piece is captured and applied is tested in test_frame.py, test_output.py, test_capture.py and test_logs.py.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from worker_pools import eventually

from flowyml import ParallelExecutor, Pipeline, parallel_map
from flowyml.executors.cpus import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def one() -> Iterator[ParallelExecutor]:
    """One warm worker."""
    with ParallelExecutor(1) as executor:
        yield executor


@pytest.fixture(scope="module")
def two() -> Iterator[ParallelExecutor]:
    """Two warm workers."""
    with ParallelExecutor(2) as executor:
        yield executor


def ask(executor: ParallelExecutor, function: Callable[..., Any], **params: Any) -> Any:
    """Call a function in a worker."""
    result = Pipeline("ask").add_step(function, name="ask", params=params).run(executor=executor)
    result.raise_for_failure()
    return result["ask"]


def ask_both(executor: ParallelExecutor, function: Callable[[], Any], folder: Path) -> list[Any]:
    """Call a function in both workers, at the same time."""
    names = [folder / "a", folder / "b"]

    def meet(me: Path) -> Any:
        me.touch()
        assert eventually(lambda: all(name.exists() for name in names))
        return os.getpid(), function()

    result = Pipeline("both").map(meet, names).run(executor=executor)
    for name in names:
        name.unlink()
    (first, a), (second, b) = result["meet"]
    assert first != second
    return [a, b]


# ---- the run frame -------------------------------------------------------------------------------------------------


def test_the_working_directory_is_the_drivers(
    two: ParallelExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "next").mkdir()
    for folder in (tmp_path, tmp_path / "next"):
        monkeypatch.chdir(folder)
        assert ask_both(two, os.getcwd, tmp_path) == [str(folder)] * 2


def test_a_steps_own_chdir_ends_with_it(one: ParallelExecutor, tmp_path: Path) -> None:
    here, pipeline = str(Path.cwd()), Pipeline("chdir")
    for k in range(50):
        pipeline.add_step(os.chdir, name=f"go{k}", params={"path": str(tmp_path)})
        pipeline.add_step(os.getcwd, name=f"where{k}")
    result = pipeline.run(executor=one)
    assert {result[f"where{k}"] for k in range(50)} == {here}
    assert ask(one, os.getcwd) == here


def test_a_working_directory_that_is_gone_fails_the_steps_and_no_worker(
    one: ParallelExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(folder: str) -> int:
        for descriptor in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) == folder:
                    os.close(int(descriptor.name))
        Path(folder).rmdir()
        return os.getpid()

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    pipeline = Pipeline("lost").add_step(lose, params={"folder": str(here)})
    result = pipeline.map(str, range(3), name="next", after=["lose"]).run(executor=one)
    assert [type(item.exception) for item in result.step_results["next"].items] == [FileNotFoundError] * 3
    monkeypatch.chdir(tmp_path)
    assert ask(one, os.getpid) == result["lose"]


def test_a_module_that_was_just_written_is_found(
    two: ParallelExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, as a function of the driver's module, and by an import within the step."""
    workers = ask_both(two, os.getpid, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "just_written.py").write_text("def where(): return __name__, __file__\n")
    module = importlib.import_module("just_written")

    def imports() -> Any:
        import just_written

        return just_written.where()

    expected = ("just_written", str(tmp_path / "just_written.py"))
    assert ask(two, module.where) == expected
    assert ask(two, imports) == expected
    assert ask_both(two, os.getpid, tmp_path) == workers


def test_arguments_and_recursion_limit(one: ParallelExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--fast"])
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(limit + 123)
        assert ask(one, lambda: (sys.argv, sys.getrecursionlimit())) == (["script.py", "--fast"], limit + 123)
    finally:
        sys.setrecursionlimit(limit)


def test_variables_come_change_and_go(one: ParallelExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a warm worker, and a step's own changes of them end with the next run that brings others."""

    def look() -> Any:
        shell = subprocess.run(["sh", "-c", "echo $FLOWYML_TEST_A"], capture_output=True, text=True).stdout.strip()
        return os.getpid(), os.environ.get("FLOWYML_TEST_A"), shell

    pid, *before = ask(one, look)
    assert before == [None, ""]
    for value in ("1", "2"):
        monkeypatch.setenv("FLOWYML_TEST_A", value)
        assert ask(one, look) == (pid, value, value)
    monkeypatch.delenv("FLOWYML_TEST_A")
    assert ask(one, look) == (pid, None, "")


def test_variables_read_at_start_mean_new_workers(one: ParallelExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> Any:
        return os.getpid(), os.environ["OMP_NUM_THREADS"], os.environ.get("OPENBLAS_NUM_THREADS")

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    share = str(usable_cpus())
    pid, *caps = ask(one, look)
    assert caps == [share, share]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    other, *caps = ask(one, look)
    assert other != pid
    assert caps == ["3", None]
    assert ask(one, look)[0] == other


def test_numeric_libraries_share_the_cores(two: ParallelExecutor, tmp_path: Path) -> None:
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]

    def look() -> Any:
        np.ones((300, 300)) @ np.ones((300, 300))
        return [os.environ[name] for name in names], len(list(Path("/proc/self/task").iterdir()))

    share = str(max(1, usable_cpus() // 2))
    assert not set(names) & set(os.environ)
    for caps, threads in ask_both(two, look, tmp_path):
        assert caps == [share] * 3
        assert share != "1" or threads == 1


def test_warning_filters(one: ParallelExecutor) -> None:
    """A warning that the driver made an error is one in the step; one that it ignores is not seen."""

    def warn(category: type[Warning]) -> str:
        warnings.warn("mine", category, stacklevel=1)
        return "fine"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(Exception, match="mine") as caught:
            ask(one, warn, category=UserWarning)
        assert isinstance(caught.value.__cause__, UserWarning)
        assert ask(one, warn, category=FutureWarning) == "fine"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ask(one, warn, category=UserWarning) == "fine"


def test_stdin_is_empty(one: ParallelExecutor) -> None:
    def read() -> Any:
        with pytest.raises(EOFError):
            input("name? ")
        return sys.stdin.read(), os.read(0, 10), subprocess.run(["cat"], capture_output=True).stdout

    assert ask(one, read) == ("", b"", b"")


def test_random_generators_differ(two: ParallelExecutor, tmp_path: Path) -> None:
    def draw() -> tuple[float, float]:
        return random.random(), float(np.random.rand())  # noqa: NPY002  the global one is what is asked about

    drawn = [ask_both(two, draw, tmp_path) for _ in range(2)]
    flat = [number for pair in drawn for both in pair for number in both]
    assert len(set(flat)) == 8


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_workers_share_the_cpus(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`max_workers=None` inside a step is the worker's share, an explicit number is that number."""

    def look() -> tuple[int, int]:
        inner = ParallelExecutor()
        assert parallel_map(abs, range(-3, 0)) == [3, 2, 1]
        return inner.max_workers, ParallelExecutor(7).max_workers

    for workers, share in ((1, usable_cpus()), (2, max(1, usable_cpus() // 2)), (64, 1)):
        with ParallelExecutor(workers, backend) as executor:
            assert ask(executor, look) == (share, 7)
    monkeypatch.setattr("flowyml.executors.cpus.usable_cpus", lambda: 12)
    with ParallelExecutor(3, backend) as executor:
        assert ask(executor, look) == (4, 7)


# ---- output --------------------------------------------------------------------------------------------------------


class Touching(io.StringIO):
    """A stream that makes a file when a word comes by."""

    def __init__(self, word: str, file: Path) -> None:
        super().__init__()
        self.word, self.file = word, file

    def write(self, text: str) -> int:
        if self.word in text:
            self.file.touch()
        return super().write(text)


WAYS: dict[str, Callable[[], Any]] = {
    "print": lambda: print("now"),
    "os.write": lambda: os.write(1, b"now\n"),
    "subprocess": lambda: subprocess.run(["echo", "now"]),
    "stderr": lambda: print("now", file=sys.stderr),
}


@pytest.mark.parametrize("way", WAYS)
def test_output_arrives_before_the_step_ends(two: ParallelExecutor, tmp_path: Path, way: str) -> None:
    """The step waits until its words have been shown."""
    file = tmp_path / "seen"

    def speak(file: Path) -> bool:
        WAYS[way]()
        return eventually(file.exists, 10.0)

    with contextlib.redirect_stdout(Touching("now", file)) as out, contextlib.redirect_stderr(Touching("now", file)):
        assert ask(two, speak, file=file)
    assert way == "stderr" or out.getvalue().removeprefix("[ask] ") == "now\n"


def test_log_records_arrive_before_the_step_ends(one: ParallelExecutor, tmp_path: Path) -> None:
    file = tmp_path / "seen"

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "it is now":
                file.touch()

    def speak(file: Path) -> bool:
        logging.getLogger("tests.live").warning("it is %s", "now")
        return eventually(file.exists, 10.0)

    handler = Handler()
    logging.getLogger("tests").addHandler(handler)
    try:
        assert ask(one, speak, file=file)
    finally:
        logging.getLogger("tests").removeHandler(handler)


def test_levels_are_the_drivers(one: ParallelExecutor, caplog: pytest.LogCaptureFixture) -> None:
    def speak() -> None:
        for name in ("tests.loud", "tests.quiet"):
            logging.getLogger(name).info("info of %s", name)
            logging.getLogger(name).error("error of %s", name)

    caplog.set_level(logging.ERROR, "tests.quiet")
    caplog.set_level(logging.DEBUG, "tests.loud")
    ask(one, speak)
    assert [(record.name, record.levelname) for record in caplog.records if record.name.startswith("tests.")] == [
        ("tests.loud", "INFO"),
        ("tests.loud", "ERROR"),
        ("tests.quiet", "ERROR"),
    ]
    caplog.clear()
    caplog.set_level(logging.CRITICAL, "tests.loud")
    caplog.set_level(logging.CRITICAL, "tests.quiet")
    ask(one, speak)
    assert not [record for record in caplog.records if record.name.startswith("tests.")]


def test_unconfigured_logging_says_warnings_once(two: ParallelExecutor) -> None:
    text = """
import logging
from flowyml import *
def speak(): logging.getLogger("mine").warning("careful"); logging.getLogger("mine").info("nothing")
with ParallelExecutor(2) as executor:
    assert Pipeline("p").add_step(speak).run(executor=executor).success
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("", "careful\n")


def speak_in_every_way(word: str) -> None:
    """Say a word on both streams, through all layers."""
    print(f"{word} printed")
    sys.stdout.write(f"{word} un")
    sys.stdout.write("finished")
    sys.stdout.flush()
    os.write(1, b" written\n")
    subprocess.run(["echo", f"{word} echoed"])
    print(f"{word} complained", file=sys.stderr)


SAID = ["{} printed", "{} unfinished written", "{} echoed"]


def test_one_worker_shows_words_as_they_are(one: ParallelExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    ask(one, speak_in_every_way, word="it")
    assert capsys.readouterr() == ("".join(f"{line.format('it')}\n" for line in SAID), "it complained\n")


def test_several_workers_put_the_step_before_each_line(
    two: ParallelExecutor, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pipeline = Pipeline("speak")
    for word in ("this", "that"):
        pipeline.add_step(speak_in_every_way, name=word, params={"word": word})
    ask_both(two, int, tmp_path)
    pipeline.run(executor=two)
    out, errors = capfd.readouterr()
    for word in ("this", "that"):
        mine = [line.removeprefix(f"[{word}] ") for line in out.splitlines() if line.startswith(f"[{word}] ")]
        assert mine == [line.format(word) for line in SAID]
    assert len(out.splitlines()) == 6
    assert sorted(errors.splitlines()) == ["[that] that complained", "[this] this complained"]


def test_nothing_is_lost_doubled_or_out_of_order(two: ParallelExecutor, capfd: pytest.CaptureFixture[str]) -> None:
    """Quick steps in large batches, and the last ones just before the run ends."""

    def speak(i: int) -> None:
        print(f"{i} first")
        print(f"{i} second", end="")

    Pipeline("many").map(speak, range(3000), name="speak").run(executor=two)
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"[speak[{i}]] {i} {word}" for i in range(3000) for word in ("first", "second"))
    places = {line: place for place, line in enumerate(lines)}
    assert all(places[f"[speak[{i}]] {i} first"] < places[f"[speak[{i}]] {i} second"] for i in range(3000))


def test_many_megabytes(two: ParallelExecutor) -> None:
    """Both workers print 16 MiB, more than any buffer holds, and nothing is mixed into the results."""
    line = "x" * 1023

    def speak(i: int) -> int:
        for _ in range(16 << 10):
            print(line)
        return i

    with contextlib.redirect_stdout(io.StringIO()) as out:
        result = Pipeline("much").map(speak, range(2), name="s").run(executor=two)
    assert list(result["s"]) == [0, 1]
    shown = out.getvalue()
    assert shown.count(f"[s[0]] {line}\n") == shown.count(f"[s[1]] {line}\n") == 16 << 10
    assert len(shown) == (2 << 24) + (2 << 14) * len("[s[0]] ")


def test_ten_thousand_records(one: ParallelExecutor, caplog: pytest.LogCaptureFixture) -> None:
    def speak() -> None:
        for k in range(10_000):
            logging.getLogger("tests.many").warning("record %d", k)

    ask(one, speak)
    said = [record.getMessage() for record in caplog.records if record.name == "tests.many"]
    assert said == [f"record {k}" for k in range(10_000)]


def test_a_step_that_logs_or_prints_without_end_does_not_hold_the_others(tmp_path: Path) -> None:
    """The loop looks at every worker in turn."""
    over = tmp_path / "over"

    def floods(over: Path) -> None:
        while not over.exists():
            logging.getLogger("tests.flood").debug("x" * 100)
            print("y" * 1000)

    logger = logging.getLogger("tests.flood")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        pipeline = Pipeline("flood").add_step(floods, params={"over": over})
        pipeline.map(abs, range(200), name="first")
        pipeline.add_step(over.touch, name="touch", after=["first"])
        with ParallelExecutor(2) as executor, contextlib.redirect_stdout(io.StringIO()):
            assert pipeline.run(executor=executor).success
    finally:
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def test_a_thread_left_behind_prints_on_without_harm(one: ParallelExecutor) -> None:
    """Between runs, in other runs, and with no end; the lines have no owner or an old one."""

    def leaves() -> None:
        import threading

        def prints() -> None:
            while True:
                print("still here")

        threading.Thread(target=prints, daemon=True).start()

    with ParallelExecutor(2) as executor, contextlib.redirect_stdout(io.StringIO()):
        pipeline = Pipeline("left").map(abs, range(100), name="abs").add_step(leaves)
        assert pipeline.run(executor=executor).success
        begin = time.monotonic()
        for k in range(5):
            small = Pipeline("small").map(abs, range(k + 1), name="abs").run(executor=executor)
            assert list(small["abs"]) == [*range(k + 1)]
        assert time.monotonic() - begin < 10


def test_a_stream_that_breaks_loses_the_words_and_not_the_run(one: ParallelExecutor) -> None:
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise RuntimeError("broken")

    with contextlib.redirect_stdout(Broken()):
        assert ask(one, lambda: print("lost") or 5) == 5


# ---- the seed of hash() ----------------------------------------------------------------------------------------------


def text_hash(_: int) -> tuple[int, int, str | None]:
    return hash("a text"), os.getpid(), os.environ.get("PYTHONHASHSEED")


@pytest.mark.parametrize("given", [None, "random"])
def test_all_workers_have_one_seed_of_hash(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    """Forked, exec'ed, renewed, of another executor; steps see what the user has set."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if given:
        monkeypatch.setenv("PYTHONHASHSEED", given)
    found = []
    for start in ("fork", "exec", "exec"):
        monkeypatch.setenv("FLOWYML_WORKER_START", start)
        with ParallelExecutor(2, max_tasks_per_worker=1) as executor:
            found += Pipeline("p").map(text_hash, range(4)).run(executor=executor)["text_hash"]
    hashes, pids, seen = zip(*found, strict=True)
    assert (len(set(pids)), len(set(hashes)), set(seen)) == (12, 1, {given})


def test_workers_that_are_started_again_have_the_same_seed_of_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with ParallelExecutor(1) as executor:
        before = ask(executor, text_hash, _=0)
        executor.shutdown()
        assert ask(executor, text_hash, _=0)[0] == before[0]


def test_a_seed_of_hash_that_the_user_has_set_is_that_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "from flowyml import *\nwith ParallelExecutor(1) as e:\n"
    script += (
        "    p = Pipeline('p').add_step(lambda: hash('a'), name='h')\n    print(p.run(executor=e)['h'] == hash('a'))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


# ---- no terminal -----------------------------------------------------------------------------------------------------


def breaks() -> str:
    breakpoint()  # noqa: T100
    return "went on"


def sets_trace() -> None:
    import pdb  # noqa: T100

    pdb.set_trace()  # noqa: T100


def asks() -> str:
    return input("which? ")


@pytest.mark.parametrize("step", [breaks, sets_trace, asks])
def test_a_step_that_needs_a_terminal_fails_with_a_hint_at_the_local_executor(
    one: ParallelExecutor, step, monkeypatch
) -> None:
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    (failed,) = Pipeline("p").add_step(step).run(executor=one).failed
    assert failed.error_line.endswith("run it in this process: run(executor=LocalExecutor())")


def test_a_breakpoint_that_is_switched_off_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    with ParallelExecutor(1) as executor:
        assert ask(executor, breaks) == "went on"
