"""The driver's side of worker processes."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from worker_pools import (
    HELPERS,
    PROGRAM,
    SLEEPER,
    ask,
    children,
    eventually,
    helpers,
    is_running,
    marked,
    next_events,
    open_fds,
    read_all,
    run,
    started,
    templates,
    wait_for,
    wait_until,
)

from flowyml.errors import ExecutorError
from flowyml.executors.process.pool import command_line, supervisor_client, worker_pool
from flowyml.executors.process.pool.worker_pool import WorkerPool
from flowyml.executors.process.pool.worker_process import SpawnFailed, SupervisorLost, WorkerExited, WorkerStarted
from flowyml.executors.process.protocol import claim_memory

if TYPE_CHECKING:
    from pathlib import Path


def test_a_worker_answers_and_its_pid_is_told(pool):
    worker = started(pool)
    assert ask(worker, "tell(os.getpid())") == str(worker.pid)


def test_a_worker_is_usable_before_it_is_up(pool):
    worker = pool.spawn_worker()
    assert ask(worker, "tell(line.worker)") == "0"


def test_a_worker_leads_its_own_session_and_reads_nothing(pool):
    worker = started(pool)
    assert ask(worker, "tell((os.getsid(0) == os.getpgid(0) == os.getpid(), sys.stdin.read()))") == "(True, '')"


def test_a_worker_has_no_descriptor_of_anything_else(pool):
    started(pool)
    worker = started(pool)
    text = "tell(sorted({os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in range(100) if exists(fd)}))"
    define = "exists = lambda fd: os.path.exists(f'/proc/self/fd/{fd}') or os.path.islink(f'/proc/self/fd/{fd}')\n"
    told = ask(worker, define + "tell(sum(map(exists, range(100))))\n")
    # In, out, err, the socket, claim words and results (Python keeps a descriptor of a map), the file for stacks.
    assert told == "7"
    assert ask(worker, text) == str(["/dev/null", "/memfd", "pipe", "socket"])


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_an_exit_code_is_reported_as_it_is(pool, code):
    worker = started(pool)
    run(worker, f"os._exit({code})")
    wait_until(pool, worker, WorkerExited)
    assert (worker.ended, worker.exitcode) == (True, code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_a_signal_is_reported_as_a_negative_number(pool, number):
    worker = started(pool)
    run(
        worker, f"signal.signal({number:d}, signal.SIG_DFL) if {number:d} != 9 else 0; os.kill(os.getpid(), {number:d})"
    )
    wait_until(pool, worker, WorkerExited)
    assert worker.exitcode == -number


def test_one_death_costs_one_worker(pool):
    doomed, other = started(pool), started(pool)
    run(doomed, "os._exit(1)")
    wait_until(pool, doomed, WorkerExited)
    assert ask(other, "tell(1)") == "1"


def test_kill_ends_a_worker_that_holds_the_interpreter(pool):
    worker = started(pool)
    ask(worker, "signal.signal(signal.SIGTERM, signal.SIG_IGN); tell(1); sum(range(10**12))")
    pool.kill(worker)
    wait_until(pool, worker, WorkerExited)
    assert worker.exitcode == -signal.SIGKILL


def test_kill_ends_a_stopped_worker(pool):
    worker = started(pool)
    os.kill(worker.pid, signal.SIGSTOP)
    pool.kill(worker)
    wait_until(pool, worker, WorkerExited)
    assert worker.exitcode == -signal.SIGKILL


def test_killing_a_dead_worker_does_nothing(pool):
    worker = started(pool)
    pool.kill(worker)
    pool.kill(worker)
    wait_until(pool, worker, WorkerExited)
    pool.kill(worker)
    assert ask(started(pool), "tell(1)") == "1"


def test_a_worker_asked_for_and_killed_at_once_ends(pool):
    worker = pool.spawn_worker()
    pool.kill(worker)
    wait_until(pool, worker, WorkerExited)
    assert worker.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("how", HELPERS)
@pytest.mark.parametrize("end", ["kill", "exit"])
def test_helpers_go_with_their_worker(pool, mark, how, end):
    worker = started(pool)
    ask(worker, HELPERS[how] + "\ntell(1)")
    if end == "kill":
        pool.kill(worker)
    else:
        run(worker, "os._exit(0)")
    wait_until(pool, worker, WorkerExited)
    assert eventually(lambda: marked(mark) <= helpers(pool), 1.0)


def test_a_helper_that_keeps_forking_does_not_slip_through(pool, mark):
    worker = started(pool)
    text = "import random\nwhile True:\n  if len(os.listdir('/proc')) < 400: os.fork()\n  time.sleep(0.001)"
    ask(worker, f"subprocess.Popen([sys.executable, '-S', '-c', {'import os, time' + chr(10) + text!r}]); tell(1)")
    assert eventually(lambda: len(marked(mark)) > 30)
    pool.kill(worker)
    wait_until(pool, worker, WorkerExited)
    assert eventually(lambda: marked(mark) <= helpers(pool), 1.0)


def test_orphans_are_reaped(pool):
    worker = started(pool)
    ask(worker, "if not os.fork(): os.fork(); os._exit(0)\nos.wait(); tell(1)")
    assert ask(worker, "tell(1)") == "1"
    assert eventually(lambda: children(pool.supervisor_pid) - templates(pool.supervisor_pid) == {worker.pid})


def test_results_and_prints_outlive_their_worker(pool):
    worker = started(pool)
    run(worker, "print('x' * 1000, flush=True); tell('result'); os.kill(os.getpid(), 9)")
    wait_until(pool, worker, WorkerExited)
    assert worker.socket.recv(100) == b"'result'\n"
    assert read_all(worker.stdout) == b"x" * 1000 + b"\n"
    assert read_all(worker.stderr) == b""


def test_the_driver_never_waits_for_a_worker(pool):
    worker = pool.spawn_worker()
    for read in (lambda: worker.socket.recv(1), lambda: os.read(worker.stdout, 1), lambda: os.read(worker.stderr, 1)):
        with pytest.raises(BlockingIOError):
            read()


def test_a_worker_knows_its_token(pool):
    worker = started(pool)
    assert ask(worker, "tell(line.token)") == repr(worker.token)


def test_claims_are_shared(pool):
    worker = started(pool)
    assert worker.claims.post(2) == 0
    assert ask(worker, "tell((line.claims.take(0, 5.0), line.claims.take(1, 6.0), line.claims.take(2, 7.0)))") == str(
        (True, True, False)
    )
    assert worker.claims.begun() == (2, 2, 6.0)
    assert worker.claims.last_claimed() == 1


def test_places_are_used_again_and_wiped_but_ids_are_not(pool):
    first = started(pool)
    first.claims.post(5)
    pool.kill(first)
    wait_until(pool, first, WorkerExited)
    pool.release(first)
    second = started(pool)
    assert (second.id, second.index) == (1, 0)
    assert second.claims.begun()[:2] == (0, 0)


def test_a_running_worker_is_not_released(pool):
    worker = started(pool)
    with pytest.raises(ValueError, match="worker 0 is still running"):
        pool.release(worker)


def test_too_many_workers_are_refused_in_words(pool, monkeypatch):
    monkeypatch.setattr(claim_memory, "MAX_WORKERS", 2)
    pool.spawn_worker(), pool.spawn_worker()
    with pytest.raises(ExecutorError, match="at most 2 worker processes"):
        pool.spawn_worker()


@pytest.mark.parametrize("start", ["exec"], indirect=True)  # a template that is there needs no interpreter to fork
def test_a_worker_that_cannot_start_is_refused(pool, monkeypatch):
    monkeypatch.setattr(worker_pool, "worker_command", lambda *_: [b"/no/such/python"])
    worker = pool.spawn_worker()
    (event,) = next_events(pool)
    assert isinstance(event, SpawnFailed)
    assert event.error.errno == errno.ENOENT
    assert (event.worker, worker.ended, worker.exitcode) == (worker, True, None)
    pool.release(worker)


def test_a_large_environment_arrives(pool, monkeypatch):
    for number in range(10):
        monkeypatch.setenv(f"LARGE_{number}", "x" * 100_000)
    assert ask(pool.spawn_worker(), "tell(len(os.environ['LARGE_9']))") == "100000"


def test_numeric_libraries_are_capped_where_the_user_left_it_open(pool, monkeypatch):
    for name in (command_line.OPENMP, *command_line.FOLLOWS_OPENMP, *command_line.ALONE):
        monkeypatch.delenv(name, raising=False)
    text = "tell([os.environ.get(name) for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')])"
    share = str(command_line.share_of(2))
    assert ask(pool.spawn_worker(), text) == str([share, share])
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert ask(pool.spawn_worker(), text) == str(["7", None])


def test_interpreter_flags_are_handed_on(mark):
    command = [
        sys.executable,
        "-O",
        "-W",
        "ignore",
        "-c",
        "from flowyml.executors.process.pool import command_line as e\n",
    ]
    command[-1] += "import sys\nprint(e.worker_command('', 1))"
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "b'-O'" in output
    assert "b'-Wignore'" in output


def test_a_thousand_workers_leave_no_descriptor_behind(mark):
    pool = WorkerPool(2, program=SLEEPER)
    pool.start()
    for cycle in range(60):
        if cycle == 10:
            before = open_fds(), open_fds(pool.supervisor_pid)
        workers = [pool.spawn_worker() for _ in range(5)]
        for worker in workers:
            pool.kill(worker)
        while not all(worker.ended for worker in workers):
            next_events(pool)
        for worker in workers:
            pool.release(worker)
    assert (open_fds(), open_fds(pool.supervisor_pid)) == before
    pool.shutdown()


def test_shutdown_leaves_nothing(mark):
    gc.collect()
    before = open_fds()
    pool = WorkerPool(2, program=PROGRAM)
    workers = [started(pool), pool.spawn_worker()]
    pool.shutdown()
    pool.shutdown()
    assert not marked(mark)
    assert all(worker.ended for worker in workers)
    assert pool.workers == []
    del workers  # the claim words' map keeps a descriptor
    assert open_fds() == before


def test_shutdown_lets_idle_workers_run_their_exit_functions(pool, tmp_path):
    worker = started(pool)
    ask(worker, f"import atexit, pathlib; atexit.register(pathlib.Path({str(tmp_path / 'x')!r}).touch); tell(1)")
    pool.shutdown()
    assert (tmp_path / "x").exists()


def test_shutdown_kills_workers_that_are_busy(pool, mark):
    worker = started(pool)
    ask(worker, "tell(1); time.sleep(1000)")
    pool.shutdown(0.1)
    assert not marked(mark)


def test_a_pool_starts_again_after_shutdown(pool):
    started(pool)
    pool.shutdown()
    assert ask(started(pool), "tell(1)") == "1"


def test_a_forgotten_pool_is_shut_down(mark):
    gc.collect()
    before = open_fds()
    pool = WorkerPool(2, program=PROGRAM)
    started(pool)
    del pool
    gc.collect()
    assert not marked(mark)
    assert open_fds() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_guardian_takes_the_workers_along_and_is_told(pool, mark, number):
    workers = [started(pool), started(pool)]
    ask(workers[0], HELPERS["own session"] + "\ntell(1)")
    os.kill(pool.supervisor_pid, number)
    while not isinstance((event := next_events(pool)[-1]), SupervisorLost):
        pass
    assert all(worker.ended for worker in workers)
    assert eventually(lambda: not marked(mark), 1.0)
    if number == signal.SIGKILL:
        assert "killed by SIGKILL" in event.reason


def test_after_a_lost_guardian_the_pool_starts_again_without_leaks(pool):
    worker = started(pool)
    before = open_fds()
    for _ in range(3):
        os.kill(pool.supervisor_pid, signal.SIGKILL)
        wait_for(pool)
        pool.read_events()
        pool.release(worker)
        worker = started(pool)
    assert open_fds() == before


def test_a_guardian_lost_while_nobody_looked_is_replaced(pool):
    before = started(pool)
    guardian = pool.supervisor_pid
    os.kill(guardian, signal.SIGKILL)
    assert eventually(lambda: not is_running(guardian))
    assert ask(started(pool), "tell(1)") == "1"
    assert before.ended
    assert len(pool.workers) == 1


def test_a_guardian_that_does_not_answer_is_given_up(pool, mark, monkeypatch):
    monkeypatch.setattr(supervisor_client, "END_TIMEOUT_SECONDS", 0.1)
    started(pool)
    os.kill(pool.supervisor_pid, signal.SIGSTOP)
    pool.shutdown(0)
    assert eventually(lambda: not marked(mark), 1.0)


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [("executable", "", "sys.executable is empty"), ("frozen", True, "frozen"), ("platform", "darwin", "need Linux")],
)
def test_where_processes_cannot_work_the_error_names_threads(pool, monkeypatch, attribute, value, words):
    monkeypatch.setattr(sys, attribute, value, raising=False)
    with pytest.raises(ExecutorError, match=words) as caught:
        pool.spawn_worker()
    assert "backend='thread'" in str(caught.value)


def test_an_interpreter_that_does_not_start_is_an_error_in_words(pool, monkeypatch):
    before = open_fds()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ExecutorError, match="supervisor process did not start"):
        pool.spawn_worker()
    assert open_fds() == before


def test_users_modules_do_not_reach_the_guardian(pool, monkeypatch, tmp_path: Path):
    for name in ("socket", "guardian", "sitecustomize", "select"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pool.spawn_worker()
    assert isinstance(next_events(pool)[0], WorkerStarted)
