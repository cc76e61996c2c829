"""Forked workers: what tells them from exec'ed ones (nothing), and what becomes of them without their template."""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from worker_pools import (
    PROGRAM,
    ask,
    eventually,
    forked,
    helpers,
    is_running,
    marked,
    next_events,
    run,
    started,
    templates,
    wait_until,
)

from flowyml import ExecutorError, ParallelExecutor, Pipeline
from flowyml.executors.process.pool import command_line
from flowyml.executors.process.pool.worker_pool import WorkerPool
from flowyml.executors.process.pool.worker_process import WorkerExited, WorkerProcess, WorkerStarted

pytestmark = forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def forking(mark: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    """A pool whose stand-in workers are forked."""
    monkeypatch.delenv(command_line.START_VARIABLE, raising=False)
    pool = WorkerPool(2, program=PROGRAM)
    yield pool
    pool.shutdown(0)


def template(pool: WorkerPool) -> int:
    """Return the pid of a pool's template once it is the only one: a worker looks like it until it has its own tag."""
    looks: list[set[int]] = []

    def is_alone() -> bool:
        looks.append(set(templates(pool.supervisor_pid)))
        return len(looks[-1]) == 1

    assert eventually(is_alone)
    return looks[-1].pop()


def is_forked(pool: WorkerPool, worker: WorkerProcess) -> bool:
    """Tell whether a worker runs what its template runs: a fork does not change the command line."""
    line = ask(worker, "tell('worker.fork_server' in open('/proc/self/cmdline').read())")
    return line == "True"


def test_workers_are_forked_and_belong_to_the_guardian(forking):
    first, second = started(forking), started(forking)
    assert is_forked(forking, first)
    for worker in (first, second):
        assert ask(worker, "tell(os.getppid())") == str(forking.supervisor_pid)


def test_exec_can_be_chosen(pool, start):
    worker = started(pool)
    assert is_forked(pool, worker) == (start == "fork")
    assert bool(templates(pool.supervisor_pid)) == (start == "fork")


def test_another_choice_is_an_error_in_words(monkeypatch):
    monkeypatch.setenv(command_line.START_VARIABLE, "spoon")
    with pytest.raises(ExecutorError, match="FLOWYML_WORKER_START must be 'fork' or 'exec', it is 'spoon'"):
        WorkerPool(1).start()


def test_a_free_threaded_build_execs(monkeypatch):
    monkeypatch.delenv(command_line.START_VARIABLE, raising=False)
    assert command_line.may_fork()
    monkeypatch.setattr(sys, "abiflags", "t")
    assert not command_line.may_fork()


def test_the_command_line_is_its_own_and_main_is_fresh(pool):
    worker = started(pool)
    assert ask(worker, "tell((sys.argv[0], sys.argv[2], len(sys.argv)))") == f"('-c', '{worker.id}', 6)"
    assert ask(worker, "tell(sys.modules['__main__'].__dict__ is globals())") == "True"


def test_its_tag_is_seen_from_outside_and_by_what_it_starts(pool):
    worker = started(pool)
    other = started(pool)
    shown = ask(worker, "tell(open('/proc/self/environ').read().count(os.environ['FLOWYML_WORKER']))")
    handed = ask(worker, "tell(subprocess.check_output(['printenv', 'FLOWYML_WORKER'], text=True).strip())")
    assert (shown, handed) == ("1", ask(worker, "tell(os.environ['FLOWYML_WORKER'])"))
    assert handed != ask(other, "tell(os.environ['FLOWYML_WORKER'])")


def test_variables_are_those_of_the_moment(pool, monkeypatch):
    monkeypatch.setenv("FLOWYML_TEST_B", "old")
    started(pool)
    monkeypatch.delenv("FLOWYML_TEST_B")
    monkeypatch.setenv("FLOWYML_TEST_A", "new")
    text = "tell((os.environ.get('FLOWYML_TEST_A'), os.environ.get('FLOWYML_TEST_B'), os.getenvb(b'TZ')))"
    assert ask(pool.spawn_worker(), text) == str(("new", None, None))


def test_random_numbers_are_its_own(forking):
    text = "import random; tell(random.random())"
    numbers = {ask(started(forking), text) for _ in range(3)} | {str(random.random())}
    assert len(numbers) == 4


def test_a_lost_template_costs_no_worker_and_another_comes(forking, mark):
    worker, before = started(forking), template(forking)
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: not is_running(before))
    assert ask(worker, "tell(1)") == "1"
    assert eventually(lambda: templates(forking.supervisor_pid) - {before})
    assert is_forked(forking, started(forking))
    forking.shutdown()
    assert not marked(mark)


def test_a_template_that_is_lost_again_and_again_is_done_without(forking):
    started(forking)
    for _ in range(4):
        os.kill(before := template(forking), signal.SIGKILL)
        assert eventually(lambda before=before: before not in templates(forking.supervisor_pid))
        worker = started(forking)  # the next template was ready if this one is forked by it
    assert not templates(forking.supervisor_pid)
    assert not is_forked(forking, worker)


@pytest.mark.parametrize("moment", range(8))
def test_every_worker_comes_once_whenever_the_template_is_lost(forking, mark, moment):
    """It is killed while workers are asked for: each gets one process, forked or exec'ed, and answers."""
    started(forking)
    workers = [forking.spawn_worker() for _ in range(moment)]
    os.kill(template(forking), signal.SIGKILL)
    workers += [forking.spawn_worker() for _ in range(3)]
    assert [ask(worker, "tell(line.worker)") for worker in workers] == [str(worker.id) for worker in workers]
    assert eventually(lambda: len(marked(mark)) <= len(workers) + 1 + len(helpers(forking)))
    forking.read_events()
    assert len({worker.pid for worker in workers}) == len(workers)


def test_a_template_that_does_not_answer_is_given_up(forking, monkeypatch):
    text = command_line.SUPERVISOR.replace(
        "from supervisor.supervisor", "import supervisor.spawning as s; s.FORK_TIMEOUT_SECONDS = 2.0; {}"
    )
    monkeypatch.setattr(command_line, "SUPERVISOR", text.format("from supervisor.supervisor"))
    started(forking)
    os.kill(template(forking), signal.SIGSTOP)
    worker = forking.spawn_worker()
    assert ask(worker, "tell(1)") == "1"
    assert not is_forked(forking, worker)


@pytest.mark.parametrize("text", ["raise SystemExit(1)", "import os; os._exit(0)", "nonsense("])
def test_without_a_template_workers_are_execed(forking, monkeypatch, text):
    monkeypatch.setattr(command_line, "FORK_SERVER", text)
    workers = [forking.spawn_worker() for _ in range(3)]
    assert {ask(worker, "tell(1)") for worker in workers} == {"1"}
    assert not is_forked(forking, workers[0])
    assert not templates(forking.supervisor_pid)


def test_a_template_with_a_thread_does_not_fork(forking, monkeypatch, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert not is_forked(forking, forking.spawn_worker())
    assert not is_forked(forking, forking.spawn_worker())


def test_a_worker_killed_before_it_is_there_ends(forking):
    """The template is stopped, so that the request waits; the kill comes first."""
    started(forking)
    os.kill(pid := template(forking), signal.SIGSTOP)
    worker = forking.spawn_worker()
    forking.kill(worker)
    os.kill(pid, signal.SIGCONT)
    wait_until(forking, worker, WorkerExited)
    assert worker.exitcode == -signal.SIGKILL


def test_a_shutdown_does_not_wait_for_a_stopped_template(forking, mark):
    started(forking)
    os.kill(template(forking), signal.SIGSTOP)
    forking.spawn_worker()
    forking.shutdown(0.1)
    assert not marked(mark)


def test_what_ends_before_it_reports_is_not_forgotten(forking):
    """A hundred workers that end at once, some before the guardian has read of their birth."""
    started(forking)
    workers = [forking.spawn_worker() for _ in range(50)]
    for worker in workers:
        run(worker, "os._exit(7)")
    seen: list[object] = []
    while not all(worker.ended for worker in workers):
        seen += next_events(forking)
    assert {worker.exitcode for worker in workers} == {7}
    assert sum(isinstance(event, WorkerStarted) for event in seen) == 50


def test_a_lost_template_in_the_middle_of_runs(mark, monkeypatch):
    """Steps that die and a template that is killed with them: every other step has its value, the guilty are named."""
    monkeypatch.delenv(command_line.START_VARIABLE, raising=False)

    def work(i: int, guardian: int) -> int:
        if i % 10 == 3:
            for pid in templates(guardian):
                os.kill(pid, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    with ParallelExecutor(2) as executor:
        Pipeline("warm").add_step(abs, params={"x": 1}).run(executor=executor)
        guardian = executor._team.pool.supervisor_pid
        result = Pipeline("lost").map(work, range(40), params={"guardian": guardian}).run(executor=executor)
    states = [str(item.state) for item in result.step_results["work"].items]
    assert states == ["failed" if i % 10 == 3 else "success" for i in range(40)]
    assert not marked(mark)
