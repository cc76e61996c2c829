"""Whatever way the driver ends, no process of its pool is there a second later."""

from __future__ import annotations

import signal

import pytest
from worker_pools import HELPERS, clear, driver, eventually, marked, under_load

DRIVER = """
import os, signal, sys, time
from worker_pools import *
from flowyml.executors.process.pool.worker_pool import WorkerPool
pool = WorkerPool(2, program=PROGRAM)
workers = [started(pool), started(pool)]
for worker in workers:
    assert ask(worker, "tell(1)") == "1"
def say(text): print(text, flush=True)
"""
STAY = "say('up'); time.sleep(1000)\n"


def is_up(process) -> bool:
    line = process.stdout.readline()
    return line == "up\n" or pytest.fail(line + process.stderr.read())


@pytest.mark.parametrize("helper", [None, *HELPERS])
def test_kill_9_of_the_driver_leaves_nothing(mark, helper):
    script = DRIVER + (f"ask(workers[0], {HELPERS[helper]!r} + '\\ntell(1)')\n" if helper else "") + STAY
    with driver(script, mark) as process:
        assert is_up(process)
        process.kill()
        process.wait()
        assert eventually(lambda: not marked(mark), 1.0)


def test_kill_9_of_a_driver_with_busy_workers_leaves_nothing(mark):
    script = DRIVER + "for worker in workers: run(worker, 'sum(range(10**12))')\n" + STAY
    with driver(script, mark) as process:
        assert is_up(process)
        process.kill()
        process.wait()
        assert eventually(lambda: not marked(mark), 1.0)


@pytest.mark.parametrize("fork", ["before", "after"])
def test_kill_9_of_a_driver_whose_forked_child_lives_on_leaves_nothing_else(mark, fork):
    """The child may hold the driver's descriptors (a fork in C runs no hooks): only the pidfd tells."""
    child = "import ctypes\nchild = ctypes.CDLL(None).fork()\nif not child: time.sleep(1000)\n"
    script = child + DRIVER if fork == "before" else DRIVER + child
    with driver("import time\n" + script + "print(child, flush=True)\n" + STAY, mark) as process:
        child = int(process.stdout.readline())
        assert is_up(process)
        process.kill()
        process.wait()
        assert eventually(lambda: marked(mark) == {child}, 1.0)
        clear(mark)


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "del pool, workers", "pool.shutdown()"])
def test_a_normal_end_leaves_nothing_and_says_nothing(mark, end):
    with driver(DRIVER + end, mark) as process:
        assert process.communicate() == ("", "")
        assert process.returncode == 0
        assert not marked(mark)


def test_an_exception_leaves_nothing(mark):
    with driver(DRIVER + "raise ValueError('mine')", mark) as process:
        _, errors = process.communicate()
        assert errors.endswith("ValueError: mine\n")
        assert not marked(mark)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(mark, number):
    with driver(DRIVER + STAY, mark) as process:
        assert is_up(process)
        process.send_signal(number)
        process.communicate()
        assert eventually(lambda: not marked(mark), 1.0)


def test_an_exec_of_the_driver_leaves_nothing_else(mark):
    with driver(DRIVER + "os.execvp('sh', ['sh', '-c', 'echo up; exec sleep 1000'])", mark) as process:
        assert is_up(process)
        assert eventually(lambda: marked(mark) == {process.pid}, 1.0)
        process.kill()


def test_a_forked_child_is_as_if_its_pool_was_never_started(mark):
    script = """
before = open_fds()
child = os.fork()
if child == 0:
    here = open_fds()
    assert here == before - 9, (here, before)  # control, errors, claims; socket, stdout, stderr of two workers
    assert pool.workers == [] and pool.supervisor_pid is None
    pool.kill(workers[0])
    mine = started(pool)
    assert ask(mine, "tell(2)") == "2"
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
for worker in workers:
    assert ask(worker, "tell(3)") == "3"
say("up")
"""
    with driver(DRIVER + script, mark) as process:
        out, errors = process.communicate()
        assert (out, errors) == ("up\n", "")
        assert not marked(mark)


def test_a_multiprocessing_child_leaves_the_parents_workers_alone(mark):
    script = """
import multiprocessing
def work(): pass
for method in ("fork", "spawn"):
    process = multiprocessing.get_context(method).Process(target=time.sleep, args=(0,))
    process.start(); process.join()
    assert process.exitcode == 0
assert ask(workers[0], "tell(3)") == "3"
"""
    with driver(DRIVER + script, mark) as process:
        assert process.communicate() == ("", "")


def test_a_pool_started_in_a_thread_outlives_the_thread(mark):
    script = """
import threading
thread = threading.Thread(target=lambda: workers.append(started(pool)))
pool.shutdown()
thread.start(); thread.join()
assert ask(workers[-1], "tell(1)") == "1"
pool.kill(workers[-1])
wait_until(pool, workers[-1], WorkerExited)
assert workers[-1].exitcode == -9
"""
    with driver(DRIVER + script, mark) as process:
        assert process.communicate() == ("", "")


def test_the_first_worker_is_up_soon(mark):
    """To the pid of a worker that its template has forked: a tenth of a second on two idle cores."""
    script = """
pool.shutdown()
start = time.perf_counter()
started(pool)
say(time.perf_counter() - start)
"""
    with driver(DRIVER + script, mark) as process:
        assert float(process.stdout.readline()) < under_load(1.0)


def test_kill_9_of_a_stopped_driver_leaves_nothing(mark):
    with driver(DRIVER + "os.setpgid(0, 0); say('up'); os.killpg(0, signal.SIGSTOP)", mark) as process:
        assert is_up(process)
        process.kill()
        process.wait()
        assert eventually(lambda: not marked(mark), 1.0)


NESTED = """
from flowyml.executors.process.pool.worker_pool import WorkerPool
import worker_pools
inner = WorkerPool(2, program=worker_pools.PROGRAM)
worker_pools.ask(inner.spawn_worker(), worker_pools.HELPERS['own session'] + '\\\\ntell(1)')
tell(1)
"""


def test_kill_9_of_the_driver_ends_pools_within_pools(mark):
    with driver(DRIVER + f"ask(workers[0], '''{NESTED}''')\n" + STAY, mark) as process:
        assert is_up(process)
        process.kill()
        process.wait()
        assert eventually(lambda: not marked(mark), 1.0)


@pytest.mark.parametrize("end", ["pool.kill(worker)", "run(worker, 'os._exit(0)')", "run(worker, 'os.abort()')"])
def test_a_pool_within_a_worker_ends_with_it(mark, end):
    script = f"""
worker = workers[0]
pool.kill(workers[1])
ask(worker, '''{NESTED}''')
{end}
wait_until(pool, worker, WorkerExited)
mark = os.environ[MARK]
assert eventually(lambda: marked(mark) == helpers(pool), 1.0)
"""
    with driver(DRIVER + script, mark) as process:
        assert process.communicate() == ("", "")


def test_children_that_the_driver_ignores_are_reported_all_the_same(mark):
    script = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
pool.shutdown()
worker = started(pool)
ask(worker, "tell(1)")
run(worker, "assert subprocess.call(['false']) == 1; os.kill(os.getpid(), signal.SIGTERM); time.sleep(1000)")
wait_until(pool, worker, WorkerExited)
assert worker.exitcode == -signal.SIGTERM, worker.exitcode
"""
    with driver(DRIVER + script, mark) as process:
        assert process.communicate() == ("", "")
