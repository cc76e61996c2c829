"""Claim words between two real processes, and at the door of the binding.

Every interleaving of the protocol is tried in tests/claims/; here the words lie in memory that two processes share.
"""

from __future__ import annotations

import math
import mmap
import os
import random
import struct
import subprocess
import sys

import pytest

from flowyml._core import ClaimWords

SLOTS = 100_000

WORKER = """
import mmap, struct, sys
from flowyml._core import ClaimWords
claims = ClaimWords(mmap.mmap(int(sys.argv[1]), 0), 1)
taken = bytearray()
for line in sys.stdin:
    first, count = map(int, line.split())
    for slot in range(first, first + count):
        if claims.take(slot, slot / 2):
            taken += struct.pack("Q", slot)
sys.stdout.buffer.write(taken)
"""


@pytest.fixture
def memory():
    """Two workers' words in a memfd."""
    fd = os.memfd_create("claims")
    os.posix_fallocate(fd, 0, 2 * ClaimWords.STRIDE)
    os.set_inheritable(fd, True)
    yield fd
    os.close(fd)


def test_two_processes_agree_on_every_slot(memory):
    """Each slot is begun by the worker or taken back by the driver, never both, never neither."""
    driver = ClaimWords(mmap.mmap(memory, 0), 1)
    choose = random.Random(7)
    command = [sys.executable, "-c", WORKER, str(memory)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "pass_fds": [memory]}
    back: list[int] = []
    posted = 0
    with subprocess.Popen(command, **pipes) as worker:
        while posted < SLOTS:
            count = choose.randrange(1, 300)
            if (first := driver.post(count)) is not None:
                assert first == posted
                posted += count
                worker.stdin.write(f"{first} {count}\n".encode())
                worker.stdin.flush()
            if choose.random() < 0.3:
                slot, taken = driver.take_back(choose.randrange(3))
                back += range(slot, slot + taken)
            following, end, time = driver.begun()
            assert following <= end <= posted
            assert time in (math.inf, driver_time(driver, time))
        worker.stdin.close()
        data = worker.stdout.read()
    begun = memoryview(data).cast("Q").tolist()
    assert sorted([*begun, *back]) == list(range(posted))
    assert back
    assert begun
    assert driver.last_claimed() == begun[-1]
    assert driver.begun()[2] == begun[-1] / 2


def driver_time(driver: ClaimWords, time: float) -> float:
    """Times are those of slots: half their number."""
    return time if (2 * time).is_integer() and 2 * time <= (driver.last_claimed() or 0) else math.nan


def test_workers_have_words_of_their_own(memory):
    shared = mmap.mmap(memory, 0)
    first, second = ClaimWords(shared, 0), ClaimWords(shared, 1)
    first.post(3)
    assert first.begun()[:2] == (0, 3)
    assert second.begun()[:2] == (0, 0)
    assert not second.take(0, 1.0)


def test_a_worker_sets_the_time_of_its_step_anew():
    memory = bytearray(ClaimWords.STRIDE)
    driver, worker = ClaimWords(memory, 0), ClaimWords(memory, 0)
    driver.post(2)
    worker.take(0, 61.0)
    worker.set_time(0, 2.0)
    assert (driver.begun(), driver.last_claimed()) == ((1, 2, 2.0), 0)


def test_a_post_waits_after_a_take_back_and_then_jumps():
    shared = bytearray(ClaimWords.STRIDE)
    driver, worker = ClaimWords(shared, 0), ClaimWords(shared, 0)
    assert driver.post(4) == 0
    assert worker.take(0, 1.0)
    assert driver.take_back(1) == (2, 2)
    assert driver.post(1) is None
    assert worker.take(1, 2.0)
    assert not worker.take(2, 3.0)
    assert driver.post(2) == 4
    assert driver.last_claimed() == 1
    assert driver.begun() == (4, 6, 2.0)
    assert worker.take(4, 4.0)
    assert driver.last_claimed() == 4


def test_nothing_is_to_blame_before_the_first_claim():
    driver = ClaimWords(bytearray(ClaimWords.STRIDE), 0)
    driver.post(2)
    assert driver.last_claimed() is None
    assert driver.begun() == (0, 2, math.inf)
    assert driver.take_back(2) == (2, 0)


@pytest.mark.parametrize("clock", [0.0, 1e-3, 12345.678, 1.7e9])
def test_times_are_kept_for_any_clock(clock):
    driver = ClaimWords(bytearray(ClaimWords.STRIDE), 0)
    driver.post(1)
    driver.take(0, clock)
    assert driver.begun()[2] == pytest.approx(clock, rel=1e-12)


@pytest.mark.parametrize(
    ("buffer", "index", "error"),
    [
        (bytes(64), 0, BufferError),
        (memoryview(bytearray(128))[::2], 0, BufferError),
        (memoryview(bytearray(128))[1:65], 0, BufferError),
        (bytearray(64), 1, IndexError),
        (bytearray(0), 0, IndexError),
        (bytearray(64), 2**63, IndexError),
        ("text", 0, TypeError),
        (bytearray(64), -1, OverflowError),
    ],
)
def test_memory_that_cannot_hold_words_is_refused(buffer, index, error):
    with pytest.raises(error):
        ClaimWords(buffer, index)


def test_memory_in_use_cannot_be_resized():
    shared = bytearray(ClaimWords.STRIDE)
    claims = ClaimWords(shared, 0)
    with pytest.raises(BufferError):
        shared.clear()
    assert claims.post(1) == 0


@pytest.mark.parametrize("count", [-1, 2**32])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(OverflowError):
        ClaimWords(bytearray(ClaimWords.STRIDE), 0).post(count)


def test_more_than_fits_is_not_posted():
    driver = ClaimWords(bytearray(ClaimWords.STRIDE), 0)
    assert driver.post(2**31 - 1) == 0
    assert driver.post(1) is None


def test_a_stray_write_into_the_words_brings_nobody_down():
    shared = bytearray(b"\xff" * ClaimWords.STRIDE)
    claims = ClaimWords(shared, 0)
    claims.begun(), claims.last_claimed(), claims.post(1), claims.take_back(0), claims.take(0, 1.0)


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_not_finite_is_neither_written_nor_read(time):
    shared = bytearray(ClaimWords.STRIDE)
    driver = ClaimWords(shared, 0)
    driver.post(2)
    with pytest.raises(ValueError, match="finite"):
        driver.take(0, time)
    with pytest.raises(ValueError, match="finite"):
        driver.set_time(0, time)
    assert driver.begun() == (0, 2, math.inf)
    driver.take(0, 1.0)
    (bits,) = struct.unpack("Q", struct.pack("d", time))
    shared[8:16] = struct.pack("Q", bits & ~0xFF)  # marked as that of slot 0
    assert driver.begun() == (1, 2, math.inf)
