"""The umask, the environment, signal handlers and timers are put back before the next step begins."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def sets_umask() -> None:
    os.umask(0o077)


def sets_variables() -> None:
    os.environ["OF_A_STEP"] = "1"
    del os.environ["HOME"]
    os.environ.update(PATH="/nowhere")


def sets_zone() -> None:
    os.environb[b"TZ"] = b"Asia/Tokyo"
    time.tzset()


def sets_handlers() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)


def sets_alarm_with_a_handler() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(60)


def sets_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 60)


def traits() -> list[Any]:
    """Return what holds for the whole process."""
    umask = os.umask(0)
    os.umask(umask)
    return [
        umask,
        signal.getitimer(signal.ITIMER_REAL)[1] or signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)],
        [os.environ.get(name) for name in ("OF_A_STEP", "HOME", "PATH", "TZ")],
        subprocess.check_output([sys.executable, "-c", "import os; print('OF_A_STEP' in os.environ)"]),
        time.localtime(0).tm_hour,
    ]


@pytest.fixture(scope="module")
def one() -> Iterator[ParallelExecutor]:
    with ParallelExecutor(1) as executor:
        yield executor


def before_and_after(executor: ParallelExecutor, sets: Callable[..., None], many: bool, **params: Any) -> list[Any]:
    """Return the traits that steps see before and after a step in the middle of a batch, and the workers."""

    def work(i: int) -> Any:
        if i == 150:
            sets(**params)
        return [traits(), os.getpid()] if i in {0, 151, 299} else i

    if many:
        result = Pipeline("many").map(work, range(300), name="w").run(executor=executor, raise_on_failure=True)["w"]
        return [result[0], result[151], result[299]]
    pipeline = Pipeline("few").add_step(work, "a", {"i": 0}).add_step(work, "b", {"i": 150}, after=["a"])
    pipeline.add_step(work, "c", {"i": 151}, after=["b"])
    result = pipeline.run(executor=executor, raise_on_failure=True)
    return [result["a"], result["c"]]


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize(
    "sets", [sets_umask, sets_variables, sets_zone, sets_handlers, sets_alarm, sets_alarm_with_a_handler]
)
def test_what_can_be_put_back_is_put_back(one: ParallelExecutor, sets: Any, many: bool) -> None:
    first, *later = before_and_after(one, sets, many)
    assert all(each == first for each in later)  # the same worker, too


def test_what_the_initializer_sets_stays() -> None:
    def prepare() -> None:
        os.environ["OF_THE_INITIALIZER"] = "1"
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def work(i: int) -> Any:
        os.environ["OF_THE_INITIALIZER"], before = str(i), os.environ["OF_THE_INITIALIZER"]
        return before, str(signal.signal(signal.SIGUSR2, signal.SIG_DFL))

    with ParallelExecutor(1, initializer=prepare) as executor:
        for _ in range(2):
            found = Pipeline("p").map(work, range(30)).run(executor=executor, raise_on_failure=True)["work"]
            assert set(found) == {("1", str(signal.SIG_IGN))}


def test_what_a_module_sets_when_it_is_imported_stays(
    one: ParallelExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported once, also where a step does it in its middle."""
    (tmp_path / "setting.py").write_text("import os\nos.umask(0o031)\n")
    monkeypatch.syspath_prepend(tmp_path)

    def imports(i: int) -> int:
        import setting  # noqa: F401

        found = os.umask(0)
        os.umask(found)
        return found

    try:
        assert set(Pipeline("p").map(imports, range(40)).run(executor=one)["imports"]) == {0o031}
    finally:
        one.shutdown()


def test_watched_functions_are_as_the_ones_they_stand_for(one: ParallelExecutor) -> None:
    import inspect
    import pickle

    def looks() -> list[Any]:
        class Holds:
            mask = os.umask

        Holds().mask(os.umask(0o022))
        names = [os.umask, os.putenv, signal.alarm, signal.setitimer]
        same = [pickle.loads(pickle.dumps(each)) is each for each in names]
        return [os.umask, same, str(inspect.signature(os.umask))]

    result = Pipeline("p").add_step(looks).run(executor=one, raise_on_failure=True)["looks"]
    assert result[:2] == [os.umask, [True] * 4]


def test_variables_that_a_module_sets_when_it_is_imported_stay(
    one: ParallelExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "setting_a_variable.py").write_text("import os\nos.environ['OF_A_MODULE'] = '1'\n")
    monkeypatch.syspath_prepend(tmp_path)

    def imports(i: int) -> str | None:
        import setting_a_variable  # noqa: F401

        found = os.environ.get("OF_A_MODULE")
        os.environ["OF_A_MODULE"] = str(i)
        return found

    try:
        assert set(Pipeline("p").map(imports, range(2, 40)).run(executor=one)["imports"]) == {"1"}
    finally:
        one.shutdown()


def test_what_is_not_put_back_ends_with_the_worker() -> None:
    """A step that gets a process of its own finds none of it."""

    def work(_: int) -> Any:
        before = os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_CORE)[0]
        os.nice(3)
        resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        return before

    with ParallelExecutor(1, max_tasks_per_worker=1) as executor:
        found = Pipeline("p").map(work, range(3)).run(executor=executor, raise_on_failure=True)["work"]
    assert len(set(found)) == 1
