"""The guardian by itself: its protocol, its searches in the process table, and how little it needs."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from worker_pools import MARK, eventually, marked

from flowyml.executors.process.pool.command_line import supervisor_command
from flowyml.executors.process.supervisor import process_tree, supervisor
from flowyml.executors.process.supervisor.supervisor import COMMAND, END, REFUSED, REPORT, SPAWN


@pytest.fixture
def served(mark):
    """A guardian whose driver is this process, and the control socket."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = supervisor_command(theirs.fileno())
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        command, pass_fds=[theirs.fileno()], start_new_session=True, stdin=null, stdout=null, stderr=subprocess.PIPE
    )
    theirs.close()
    with control, process:
        yield process, control
        process.kill()


def refusal(control: socket.socket, worker: int = 0) -> tuple[bytes, int, int, int]:
    """Have a spawn refused (it brings no descriptors): a sign that the guardian is up."""
    control.send(COMMAND.pack(SPAWN, worker, 0.0))
    return REPORT.unpack(control.recv(REPORT.size))


def test_the_end_of_the_socket_ends_it(served):
    process, control = served
    control.close()
    assert process.wait(10) == 0


def test_the_command_end_ends_it(served):
    process, control = served
    control.send(COMMAND.pack(END, 0, 0.0))
    assert process.wait(10) == 0
    assert control.recv(100) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(served, number):
    process, control = served
    refusal(control)
    process.send_signal(number)
    assert process.wait(10) == 0


def test_a_spawn_without_descriptors_is_refused(served):
    _, control = served
    kind, worker, _, status = refusal(control, 7)
    assert (kind, worker, os.strerror(status)) == (REFUSED, 7, "Too many open files")


def test_a_driver_that_does_not_read_does_not_block_it(served):
    _, control = served
    control.setblocking(False)
    sent = 0
    while sent < 3000:
        select.select([], [control], [], 10)
        try:
            control.send(COMMAND.pack(SPAWN, sent, 0.0))
        except BlockingIOError:
            continue
        sent += 1
    control.setblocking(True)
    assert [REPORT.unpack(control.recv(REPORT.size))[1] for _ in range(3000)] == list(range(3000))


def test_a_fault_of_its_own_is_told(served):
    process, control = served
    control.send(b"nonsense")
    assert process.wait(10) == 1
    assert b"struct.error" in process.stderr.read()


def test_it_has_a_session_of_its_own_and_nothing_open(served):
    process, control = served
    refusal(control)
    assert os.getsid(process.pid) == process.pid

    def opened() -> set[str]:
        entries = list(Path(f"/proc/{process.pid}/fd").iterdir())
        return {os.path.realpath(entry).rpartition("/")[2].split(":")[0] for entry in entries}

    # The pipe is stderr, the last the driver's pidfd; while it gets ready it loads a library.
    assert eventually(lambda: opened() <= {"null", "pipe", "socket", "anon_inode"})


def test_it_imports_next_to_nothing():
    folder = Path(supervisor.__file__).parent.parent
    text = f"import sys; sys.path.append({str(folder)!r}); import supervisor.supervisor; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-S", "-s", "-P", "-c", text], check=True, capture_output=True, text=True)
    heavy = {"site", "typing", "pathlib", "contextlib", "re", "subprocess", "dataclasses", "threading", "flowyml"}
    assert not heavy & set(output.stdout.split())


def test_the_process_table_holds_this_process():
    assert process_tree.process_table()[os.getpid()] == (os.getppid(), os.getsid(0))


def test_a_name_with_brackets_and_blanks_does_not_confuse_the_table(mark, tmp_path):
    strange = tmp_path / ") S 1 (x"
    strange.symlink_to("/bin/sleep")
    with subprocess.Popen([strange, "1000"]) as process:
        assert process_tree.process_table()[process.pid][0] == os.getpid()
        process.kill()


def test_descendants_are_roots_and_all_below():
    table = {1: (0, 1), 2: (1, 1), 3: (2, 1), 4: (1, 1), 5: (4, 1), 9: (9, 9)}
    assert process_tree.descendants(table, {2, 5}) == {2, 3, 5}
    assert process_tree.descendants(table, {9, 77}) == {9, 77}


def test_kill_all_looks_until_nothing_is_new(mark):
    with subprocess.Popen(["sleep", "1000"]) as first, subprocess.Popen(["sleep", "1000"]) as second:
        finds = iter([{first.pid}, {first.pid, second.pid}, {first.pid, second.pid}])
        process_tree.kill_all(lambda: next(finds))
        assert (first.wait(), second.wait()) == (-9, -9)
        assert next(finds, None) is None


def test_signals_to_what_is_gone_are_no_error(mark):
    with subprocess.Popen(["true"]) as process:
        process.wait()
    process_tree.send_signal(os.kill, process.pid, signal.SIGKILL)


def test_a_tag_is_found_whole_or_not_at_all(mark):
    with subprocess.Popen(["sleep", "1000"]) as process:
        assert eventually(lambda: process_tree.carries(process.pid, f"{MARK}={mark}".encode()))
        assert not process_tree.carries(process.pid, f"{MARK}={mark[:-1]}".encode())
        process.kill()
    assert not process_tree.carries(process.pid, f"{MARK}={mark}".encode())


def test_everything_is_killed_and_reaped(mark):
    text = f"""
import os, signal, subprocess, sys
sys.path.insert(0, {str(Path(supervisor.__file__).parent.parent)!r})
from supervisor import supervisor
supervisor.become_subreaper()
for _ in range(3): subprocess.Popen(["sh", "-c", "setsid sleep 1000 & sleep 1000"])
class Quiet(supervisor.Supervisor):
    def __init__(self): self.pid = os.getpid(); self.wakeup = 0
Quiet().kill_everything()
print(supervisor.has_children())
"""
    output = subprocess.run([sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, timeout=20)
    assert output.stdout == "False\n", output.stderr
    assert not marked(mark)


def test_without_pidfds_the_parents_number_is_watched(mark):
    """A sandbox may forbid pidfd_open; the socket is held open by somebody else, so only the parent's number tells."""
    text = f"""
import os, socket, subprocess, sys
control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
program = ("import os, sys; del os.pidfd_open; os.pidfd_open = lambda pid: os.close(-1); "
    "sys.path.append(sys.argv[3]); from supervisor.supervisor import main; main()")
holder = subprocess.Popen(["sleep", "1000"], pass_fds=[control.fileno()])
folder = {str(Path(supervisor.__file__).parent.parent)!r}
command = [sys.executable, "-S", "-c", program, str(theirs.fileno()), str(os.getpid()), folder]
subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
control.send(b"k" + bytes({COMMAND.size} - 1))
print(holder.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as process:
        holder = int(process.stdout.readline())
    assert eventually(lambda: marked(mark) == {holder}, 3.0)
    os.kill(holder, signal.SIGKILL)
