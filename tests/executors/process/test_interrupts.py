"""Ctrl-C ends a run within a second, on every backend, and keeps what was finished.

Where no second process is needed, a step sends the signal to the driver, which is the process of the test.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from step_states import states
from worker_pools import driver, eventually, is_asleep, marked, under_load

from flowyml import (
    ExponentialBackoff,
    LocalExecutor,
    ParallelExecutor,
    Pipeline,
    RunInterrupted,
    StepNotRunError,
    retry,
)
from flowyml.runtime.interrupts import InterruptHandler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LATE = 1.0
"""Seconds after Ctrl-C by which the driver must be out."""
UNCAUGHT = -signal.SIGINT if sys.version_info >= (3, 14) else 1


def interrupt(driver: int, clock: Path, number: int = signal.SIGINT) -> None:
    """Note the time, send the signal, and go on for long."""
    clock.write_text(str(time.monotonic()))
    os.kill(driver, number)
    time.sleep(60)


@contextmanager
def soon(clock: Path) -> Iterator[None]:
    """Out of the block within a second after the signal was sent."""
    try:
        yield
    finally:  # what is inside raises
        assert time.monotonic() - float(clock.read_text()) < under_load(LATE)


def interrupted(tmp_path: Path, before: int = 3) -> Pipeline:
    """A pipeline of some quick steps, one that sends the signal, and one after it."""
    pipeline = Pipeline("interrupted")
    for i in range(before):
        pipeline.add_step(lambda i: i, name=f"quick{i}", params={"i": i})
    names = [f"quick{i}" for i in range(before)]
    params = {"driver": os.getpid(), "clock": tmp_path / "clock"}
    pipeline.add_step(interrupt, name="long", params=params, after=names)
    return pipeline.add_step(lambda long: long, name="never")


def test_finished_steps_have_values_and_the_others_are_cancelled(fresh_executor: Any, tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted) as caught, soon(tmp_path / "clock"):
        interrupted(tmp_path).run(executor=fresh_executor)
    assert isinstance(caught.value, KeyboardInterrupt)
    result = caught.value.result
    quick = {f"quick{i}": "success" for i in range(3)}
    assert states(result) == {**quick, "long": "cancelled", "never": "cancelled"}
    assert [result[f"quick{i}"] for i in range(3)] == [0, 1, 2]
    assert (result.success, result.state, result.failed) == (False, "cancelled", [])


def test_the_traceback_shows_frames_of_the_user_only(fresh_executor: Any, tmp_path: Path) -> None:
    """Whatever the caller's thread waited in: none of it is the user's."""
    with pytest.raises(RunInterrupted) as caught:
        interrupted(tmp_path, before=0).run(executor=fresh_executor)
    frames = [
        frame
        for error in (caught.value, caught.value.__cause__)
        for frame in traceback.extract_tb(error.__traceback__ if error else None)
    ]
    assert {frame.filename for frame in frames} == {__file__}


def test_what_was_finished_in_the_same_batch_counts(fresh_executor: Any, tmp_path: Path) -> None:
    """Quick mapped items are called in one batch with the long one behind them."""
    params = {"driver": os.getpid(), "clock": tmp_path / "clock", "trace": tmp_path / "trace"}

    def work(i: int, driver: int, clock: Path, trace: Path) -> int:
        if i == 700:
            assert eventually(lambda: trace.stat().st_size == 700)
            time.sleep(under_load(0.05))  # the last one is about to be delivered
            interrupt(driver, clock)
        with trace.open("a") as file:
            file.write(".")
        return i

    pipeline = Pipeline("batch").map(work, range(701), name="work", params=params)
    with pytest.raises(RunInterrupted) as caught, soon(tmp_path / "clock"):
        pipeline.run(executor=fresh_executor)
    result = caught.value.result
    assert [result["work"][i] for i in range(700)] == list(range(700))
    assert [str(item.state) for item in result.step_results["work"].items] == ["success"] * 700 + ["cancelled"]


def test_a_run_of_millions_of_items_ends_as_soon(executor: Any, tmp_path: Path) -> None:
    """What its result is made of is not copied, whatever its length."""
    driver, clock = os.getpid(), tmp_path / "clock"

    def work(i: int) -> int:
        if i == 500:
            interrupt(driver, clock)
        return i

    with pytest.raises(RunInterrupted) as caught, soon(clock):
        Pipeline("long").map(work, range(5_000_000), name="work").run(executor=executor)
    assert caught.value.result.state == "cancelled"


@pytest.mark.parametrize("divisor", [0, 1])
def test_what_an_abandoned_thread_does_later_does_not_reach_the_result(divisor: int) -> None:
    """The result was handed out: it does not change any more."""
    over, threads = threading.Event(), []

    def late() -> float:
        threads.append(threading.current_thread())
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(20)
        return 1 / divisor

    with ParallelExecutor(1, "thread") as executor, pytest.raises(RunInterrupted) as caught:
        Pipeline("late").add_step(late).run(executor=executor)
    over.set()
    threads[0].join(20)
    assert states(caught.value.result) == {"late": "cancelled"}
    assert caught.value.result.failed == []
    with pytest.raises(StepNotRunError):
        caught.value.result["late"]


def test_steps_of_a_batch_do_not_wait_for_a_long_one_behind_them(tmp_path: Path) -> None:
    """On threads, quick steps and a long one may be claimed at once: dependents of the quick ones run meanwhile."""
    over = threading.Event()
    pipeline = Pipeline("long").map(lambda i: over.wait(20) if i == 1000 else i, range(1001), name="work")
    pipeline.map(lambda i: i, range(1001), name="other")
    pipeline.add_step(lambda quick: over.set() or quick, name="opens", after=["other"], params={"quick": 1})
    with ParallelExecutor(2, "thread") as executor:
        result = pipeline.run(executor=executor)
    assert result["work"][1000] is True


def test_the_old_handler_is_back_and_all_works_again(fresh_executor: Any, tmp_path: Path) -> None:
    pipeline = interrupted(tmp_path)
    for _ in range(2):
        with pytest.raises(RunInterrupted):
            pipeline.run(executor=fresh_executor)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert list(Pipeline("again").map(abs, range(5), name="abs").run(executor=fresh_executor)["abs"]) == [*range(5)]


def test_a_step_that_raises_it_fails_and_nothing_else(executor: Any) -> None:
    def press() -> None:
        raise KeyboardInterrupt

    pipeline = Pipeline("raises").add_step(press).add_step(lambda: 1, name="other")
    result = pipeline.run(executor=executor)
    assert states(result) == {"press": "failed", "other": "success"}
    assert isinstance(result.step_results["press"].exception, KeyboardInterrupt)


def test_a_step_that_exits_fails_and_nothing_else(executor: Any) -> None:
    pipeline = Pipeline("exits").add_step(exit, name="exit", params={"code": 3}).add_step(lambda: 1, name="other")
    result = pipeline.run(executor=executor)
    assert states(result) == {"exit": "failed", "other": "success"}
    assert isinstance(result.step_results["exit"].exception, SystemExit)


def test_a_step_that_swallows_it_does_not_keep_the_run_alive(tmp_path: Path) -> None:
    """Only the local executor calls steps in the thread that the signal hits."""

    def swallow() -> str:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            return "swallowed"

    pipeline = Pipeline("swallows").add_step(swallow)
    for i in range(5):
        pipeline.add_step((tmp_path / f"{i}").touch, name=f"next{i}")
    with pytest.raises(RunInterrupted) as caught:
        pipeline.run(executor=LocalExecutor())
    assert states(caught.value.result) == {"swallow": "success", **{f"next{i}": "cancelled" for i in range(5)}}
    assert not list(tmp_path.iterdir())


class Pressing(ExponentialBackoff):
    """A long delay; the signal comes when it begins, and until its end there is nothing to do."""

    clock: Path

    def delay(self, attempt: int, generator: Any = None) -> float:
        self.clock.write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGINT)
        return 60.0


@pytest.mark.parametrize("timeout", [None, 60])
def test_the_delay_of_a_retry_is_cut_short(
    fresh_executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    monkeypatch.setattr(Pressing, "clock", tmp_path / "clock", raising=False)
    pipeline = Pipeline("delayed").add_step(
        lambda: 1 / 0, name="fails", retry=retry(max_attempts=2, backoff=Pressing()), timeout=timeout
    )
    with pytest.raises(RunInterrupted) as caught, soon(tmp_path / "clock"):
        pipeline.run(executor=fresh_executor)
    assert states(caught.value.result) == {"fails": "cancelled"}


def test_a_signal_at_the_very_end_is_not_lost(fresh_executor: Any) -> None:
    """The last step sends it and is done: the result may be whole, the caller is interrupted all the same."""
    pipeline = Pipeline("end").add_step(os.kill, name="kill", params={"pid": os.getpid(), "signal": signal.SIGINT})
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  it may arrive after the run
            pipeline.run(executor=fresh_executor)
            time.sleep(5)


def test_a_handler_of_the_users_own_is_respected(fresh_executor: Any) -> None:
    heard = []

    def handler(number: int, _: Any) -> None:
        heard.append(number)

    old = signal.signal(signal.SIGINT, handler)
    try:
        pipeline = Pipeline("own").add_step(os.kill, name="kill", params={"pid": os.getpid(), "signal": signal.SIGINT})
        pipeline.add_step(lambda kill: 1, name="goes_on")
        result = pipeline.run(executor=fresh_executor)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, old)
    assert result.success
    assert heard == [signal.SIGINT]


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_handler_that_raises_ends_the_run(backend: str, tmp_path: Path) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def handler(*_: Any) -> None:
        raise Stop

    old = signal.signal(signal.SIGTERM, handler)
    params = {"driver": os.getpid(), "clock": tmp_path / "clock", "number": signal.SIGTERM}
    pipeline = Pipeline("stop").add_step(interrupt, name="long", params=params)
    try:
        with ParallelExecutor(2, backend) as executor:
            with pytest.raises(Stop), soon(tmp_path / "clock"):
                pipeline.run(executor=executor)
            assert Pipeline("again").add_step(lambda: 1, name="one").run(executor=executor)["one"] == 1
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_run_in_another_thread_installs_nothing(fresh_executor: Any) -> None:
    """It runs to its end; the main thread gets its `KeyboardInterrupt`."""
    results: list[Any] = []
    pipeline = Pipeline("thread").add_step(lambda: time.sleep(0.3), name="sleep")

    def run() -> None:
        results.append(pipeline.run(executor=fresh_executor))

    thread = threading.Thread(target=run)
    thread.start()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  it may arrive late
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    thread.join(20)
    assert results[0].success


def test_the_main_thread_may_be_interrupted_while_it_waits_for_its_turn(tmp_path: Path) -> None:
    """Another thread's run holds the executor."""
    clock, over = tmp_path / "clock", threading.Event()
    main = threading.get_ident()

    def main_thread_waits() -> bool:
        return sys._current_frames()[main].f_code is ParallelExecutor.execute.__code__

    def hold() -> None:
        assert eventually(main_thread_waits)
        clock.write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(20)

    with ParallelExecutor(1, "thread") as executor:
        holding = threading.Thread(target=lambda: Pipeline("hold").add_step(hold).run(executor=executor))
        holding.start()
        assert eventually(lambda: not executor._turn.acquire(blocking=False) or executor._turn.release())
        with pytest.raises(RunInterrupted) as caught, soon(clock):
            Pipeline("waits").add_step(lambda: 1, name="one").run(executor=executor)
        over.set()
        holding.join(20)
    assert states(caught.value.result) == {"one": "cancelled"}


@pytest.mark.parametrize("inner", ["local", "thread"])
def test_it_ends_a_run_within_a_step_and_the_run_around_it(inner: str, tmp_path: Path) -> None:
    """Local steps run in the main thread, so the inner run has the handler meanwhile."""
    executor = LocalExecutor() if inner == "local" else ParallelExecutor(2, "thread")

    def nest() -> None:
        interrupted(tmp_path).run(executor=executor)

    outer = Pipeline("outer").add_step(nest).add_step((tmp_path / "other").touch, name="other")
    with pytest.raises(RunInterrupted) as caught, soon(tmp_path / "clock"):
        outer.run()
    assert states(caught.value.result) == {"nest": "cancelled", "other": "cancelled"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    executor.shutdown()


# ---- from outside --------------------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys, time
from flowyml import *
def say(text): print(text, flush=True)
def stay():
    say("up")
    time.sleep(60)
def stubborn():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stay()
    finally:
        time.sleep(60)
executors = {
    "local": LocalExecutor, "thread": lambda: ParallelExecutor(2, "thread"), "process": lambda: ParallelExecutor(2),
}
executor = executors[sys.argv[1]]()
pipeline = Pipeline("script").add_step(lambda: 7, name="seven").add_step(stay, after=["seven"])
"""


@pytest.mark.parametrize("backend", ["local", "thread", "process"])
@pytest.mark.parametrize("group", [False, True])
def test_ctrl_c_ends_a_script(mark: str, backend: str, group: bool) -> None:
    """Also with the whole process group, as the terminal does it."""
    text = SCRIPT + "os.setpgid(0, 0)\npipeline.run(executor=executor)"
    with driver(text, mark, backend) as process:
        assert process.stdout.readline().endswith("up\n")
        assert eventually(lambda: is_asleep(process.pid))
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        assert eventually(lambda: process.poll() is not None, LATE)
        assert process.returncode == UNCAUGHT
        assert process.stderr.read().rstrip().splitlines()[-1].startswith("flowyml.errors.RunInterrupted: ")
        assert eventually(lambda: not marked(mark), 1.0)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_script_goes_on_and_ends_at_once(mark: str, backend: str) -> None:
    """Abandoned threads do not keep the interpreter alive."""
    text = SCRIPT + (
        "try:\n    pipeline.run(executor=executor)\n"
        "except RunInterrupted as error:\n"
        "    say((error.result['seven'], str(error.result.step_results['stay'].state)))\n"
        "say(Pipeline('again').add_step(lambda: 8, name='eight').run(executor=executor)['eight'])\n"
    )
    with driver(text, mark, backend) as process:
        assert process.stdout.readline().endswith("up\n")
        assert eventually(lambda: is_asleep(process.pid))
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "(7, 'cancelled')\n"
        assert process.stdout.readline() == "8\n"
        assert eventually(lambda: process.poll() is not None, 2.0)
        assert (process.returncode, process.stderr.read()) == (0, "")


@pytest.mark.parametrize("backend", ["local", "process"])
def test_the_second_one_is_immediate(mark: str, backend: str) -> None:
    """While the first is being dealt with: a step that cleans up for long, workers that are being killed."""
    stay = "try:\n        stay()\n    finally:\n        say('cleaning')\n        time.sleep(60)\n"
    text = SCRIPT + f"def cleans():\n    {stay}\nPipeline('two').add_step(cleans).run(executor=executor)"
    with driver(text, mark, backend) as process:
        assert process.stdout.readline() == "up\n"
        assert eventually(lambda: is_asleep(process.pid))
        process.send_signal(signal.SIGINT)
        if backend == "local":
            assert process.stdout.readline() == "cleaning\n"
            assert eventually(lambda: is_asleep(process.pid))
        process.send_signal(signal.SIGINT)
        assert eventually(lambda: process.poll() is not None, LATE)
        assert process.returncode == UNCAUGHT
        assert eventually(lambda: not marked(mark), 1.0)


def test_where_descriptors_are_made_no_signal_raises() -> None:
    interrupts, reached = InterruptHandler(), []

    def begin() -> None:
        with interrupts:
            with interrupts.held_back():
                for _ in range(3):
                    signal.raise_signal(signal.SIGINT)
            reached.append("the end of the block")
            with interrupts.may_raise():
                reached.append("what comes after it")

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert reached == ["the end of the block"]


BURST = (
    SCRIPT
    + """
import gc, random
def burst(driver, seed):
    draw = random.Random(seed)
    for _ in range(3):
        time.sleep(draw.random() * draw.choice([0, 0.001, 0.01]))
        os.kill(driver, signal.SIGINT)
    time.sleep(60)
def attempt(seed):
    try:
        Pipeline("burst").add_step(burst, params={"driver": os.getpid(), "seed": seed}).run(executor=executor)
    except KeyboardInterrupt:
        pass
def verify():
    assert list(Pipeline("works").map(abs, range(50), name="abs").run(executor=executor)["abs"]) == [*range(50)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    executor.shutdown()
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
def calm(function, *arguments):
    while True:
        try:
            return function(*arguments)
        except KeyboardInterrupt:
            pass
fds = calm(verify)
for seed in range(10):
    calm(attempt, seed)
    calm(verify)
say(calm(verify) - fds)
"""
)


def test_bursts_of_them_at_any_moment(mark: str) -> None:
    """While the executor starts, runs and ends: it works again, nothing piles up, nothing is left."""
    with driver(BURST, mark, "process") as process:
        out, errors = process.communicate(timeout=50)
        assert (out, process.returncode) == ("0\n", 0), errors
        assert eventually(lambda: not marked(mark), 1.0)
