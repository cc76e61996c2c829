"""What a step sets for its whole process is put back before the next step begins, or that begins in another worker."""

from __future__ import annotations

import locale
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def sets_umask() -> None:
    os.umask(0o077)


def sets_soft_limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    resource.prlimit(0, resource.RLIMIT_NOFILE, (50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def sets_nice() -> None:
    os.nice(3)


def sets_cores() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def sets_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 60)


def sets_locale() -> None:
    locale.setlocale(locale.LC_NUMERIC, "C.UTF-8" if sys.platform == "linux" else "C")


def changes_root(folder: str) -> None:
    os.chroot(folder)


def becomes_another() -> None:
    os.setresuid(64_321, 64_321, 64_321)


def lowers_hard_limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setresuid(64_321, 64_321, 64_321)


def traits() -> list[Any]:
    """Return what holds for the whole process."""
    umask = os.umask(0)
    os.umask(umask)
    limits = [resource.getrlimit(each) for each in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)]
    return [
        umask,
        limits,
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getaffinity(0),
        signal.getitimer(signal.ITIMER_REAL)[1] or signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        locale.setlocale(locale.LC_NUMERIC),
        os.getresuid(),
        os.stat("/").st_ino,  # noqa: PTH116
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
@pytest.mark.parametrize("sets", [sets_umask, sets_soft_limit, sets_nice, sets_cores, sets_alarm, sets_locale])
def test_what_can_be_put_back_is_put_back(one: ParallelExecutor, sets: Any, many: bool) -> None:
    if sets is sets_nice and os.geteuid() != 0:
        pytest.skip("only root may become less nice")
    first, *later = before_and_after(one, sets, many)
    assert all(each == first for each in later)  # the same worker, too


@pytest.mark.skipif(os.geteuid() != 0, reason="needs rights that only root has")
@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("sets", [changes_root, becomes_another, lowers_hard_limit])
def test_what_cannot_be_put_back_costs_the_worker(one: ParallelExecutor, sets: Any, many: bool, tmp_path: Path) -> None:
    """Its step is a success, what follows runs in another worker, and nobody says anything."""
    first, *later = before_and_after(one, sets, many, **({"folder": str(tmp_path)} if sets is changes_root else {}))
    assert all(each[0] == first[0] for each in later)
    assert all(each[1] != first[1] for each in later)


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
        return [os.umask, pickle.loads(pickle.dumps(os.umask)) is os.umask, str(inspect.signature(os.umask))]

    result = Pipeline("p").add_step(looks).run(executor=one, raise_on_failure=True)["looks"]
    assert result[:2] == [os.umask, True]


def test_a_limit_that_a_step_has_set_is_its_failure_alone(one: ParallelExecutor) -> None:
    def work(i: int) -> int:
        if i == 50:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        with Path("/dev/null").open() as file:
            return i + file.fileno() * 0

    result = Pipeline("p").map(work, range(100), name="w").run(executor=one)
    assert [each.step_name for each in result.failed] == ["w[50]"]
