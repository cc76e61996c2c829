"""Results in shared memory, and the loop that calls steps: what is written arrives, and what is not is said."""

from __future__ import annotations

import collections
import marshal
import math
import os
import pickle
import struct
import sys
from array import array
from typing import Any

import pytest
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml._extension import ClaimWords, DescriptorCheck, Graph, ResultReader, Scheduler, WorkerCallLoop
from flowyml.executors.process.protocol import wire

FILES = DescriptorCheck([0, 1, 2])
LINE = os.pipe()


class Pair:
    """A driver's and a worker's view of the same memory, and a batch that the worker is at."""

    def __init__(self, steps: int, words: int = 1 << 12, line: tuple[int, int] = LINE) -> None:
        claims = bytearray(ClaimWords.STRIDE)
        self.memory = bytearray(ResultReader.HEADER + 8 * words)
        self.claims = ClaimWords(claims, 0)
        self.results = ResultReader(self.memory)
        self.caller = WorkerCallLoop(ClaimWords(claims, 0), self.memory, os.getpgid, line[1])
        self.values: list[Any] = ["nothing"] * steps
        self.batch = Scheduler(Graph([""] * steps, None, array("I"), array("I"))).claim(0, steps, 0.0)
        self.wakes: list[None] = []
        assert self.claims.post(steps) == 0

    def run(
        self,
        function: Any,
        arguments: Any,
        position: int = 0,
        previous: Any = ...,
        *,
        directory: int | None = None,
        encode: Any = None,
    ) -> tuple[int, int, Any, float]:
        """Call the steps from a position on."""
        wake = lambda: self.wakes.append(None)  # noqa: E731
        streams = FILES, directory, sys.stdout, sys.stderr
        return self.caller.run(function, arguments, position, position, *streams, wake, encode, previous)

    def drain(self, position: int = 0, count: int = 1 << 20) -> int:
        """Take what there is; return how many."""
        batch, committed = self.batch, self.results.committed()
        assert batch is not None
        found = self.results.drain(self.values, batch, position, count, position, len(batch), committed, marshal.loads)
        return 0 if found is None else len(found[1]) // 8


VALUES = [None, True, False, 0, -1, 2**63 - 1, -(2**63), 0.5, float("inf"), "", "grün", "x" * 500, b"a pickle", b""]


def test_small_values_arrive_as_they_are() -> None:
    pair = Pair(len(VALUES))
    for slot, value in enumerate(VALUES):
        assert pair.caller.put(slot, 1.0, 2.0, value)
    assert pair.drain() == len(VALUES)
    assert pair.values == VALUES
    assert list(map(type, pair.values)) == list(map(type, VALUES))


@pytest.mark.parametrize("value", [2**63, "x" * 600, "\ud800", b"x" * 10_000, (), [], object(), bytearray(b"x")])
def test_what_is_not_small_goes_another_way(value: Any) -> None:
    pair = Pair(1)
    assert not pair.caller.put(0, 1.0, 2.0, value)
    assert pair.drain() == 0


def test_results_are_taken_up_to_the_first_that_is_not_there() -> None:
    """One that went another way leaves a gap; what is behind it waits."""
    pair = Pair(4)
    for slot in (0, 1, 3):
        pair.caller.put(slot, float(slot), slot + 0.5, slot)
    assert pair.drain(count=1) == 1
    assert pair.drain(1) == 1
    assert pair.values == [0, 1, "nothing", "nothing"]
    assert pair.results.waiting
    assert pair.drain(3) == 1
    assert not pair.results.waiting


def test_times_arrive_with_the_values() -> None:
    pair = Pair(2)
    pair.caller.put(0, 1.0, 1.5, None)
    pair.caller.put(1, 1.5, 2.25, None)
    assert pair.batch is not None
    found = pair.results.drain(pair.values, pair.batch, 0, 9, 0, 9, pair.results.committed(), pytest.fail)
    assert found == (1.0, array("d", [1.5, 2.25]).tobytes(), [], [])


def test_outputs_of_a_step_arrive_next_to_the_values_of_others() -> None:
    pair = Pair(3)
    assert pair.caller.put(0, 1.0, 1.5, 7)
    assert pair.caller.put_parts(1, 1.5, 2.0, wire.pack_outputs(["b", "a"], [b"1", 2]))
    assert pair.caller.put(2, 2.0, 2.5, b"a pickle")
    assert not pair.caller.put_parts(3, 2.5, 3.0, b"x" * 10_000)
    assert pair.batch is not None
    found = pair.results.drain(pair.values, pair.batch, 0, 3, 0, 3, pair.results.committed(), wire.unpack_outputs)
    assert found is not None
    assert found[3] == [(1, (["b", "a"], (b"1", 2)))]
    assert pair.values == [7, "nothing", b"a pickle"]


def test_outputs_that_cannot_be_unpacked_are_an_error_behind_those_before_them() -> None:
    pair = Pair(2)
    assert pair.caller.put(0, 1.0, 1.5, 7)
    assert pair.caller.put_parts(1, 1.5, 2.0, b"\xff")
    assert pair.drain() == 1
    with pytest.raises(ValueError, match="no result"):
        pair.drain(1)


WRONG_OUTPUTS = [1, (), ("tuple",), ("set", (1,)), (1, ()), ("tuple", [1]), ["tuple", (1,)], ("tuple", (1,), 2), None]


@settings(max_examples=examples(100, 5_000))
@given(st.one_of(st.binary(max_size=40), st.sampled_from(WRONG_OUTPUTS).map(marshal.dumps)))
def test_outputs_of_another_form_are_an_error(data: bytes) -> None:
    pair = Pair(1)
    assert pair.caller.put_parts(0, 1.0, 1.5, data)
    with pytest.raises(ValueError, match="no result"):
        pair.drain()


@pytest.mark.parametrize("value", [7, "a text", None, b"a pickle", "x" * 500])
def test_what_a_step_has_used_arrives_with_its_value(value: Any) -> None:
    """Only that of steps that were measured; memory that is not known is `None`."""
    pair = Pair(3)
    assert pair.caller.put(0, 1.0, 1.5, value, (0.25, 1 << 40))
    assert pair.caller.put(1, 1.5, 2.0, 8)
    assert pair.caller.put(2, 2.0, 2.5, 9, (0.5, None))
    assert pair.batch is not None
    found = pair.results.drain(pair.values, pair.batch, 0, 3, 0, 3, pair.results.committed(), pytest.fail)
    assert found is not None
    assert found[2] == [(0, 0.25, 1 << 40), (2, 0.5, None)]
    assert pair.values == [value, 8, 9]


def test_what_is_too_long_with_what_it_has_used_is_not_written() -> None:
    pair = Pair(1)
    assert not pair.caller.put(0, 1.0, 1.5, bytes(8180), (0.25, 1))
    assert not pair.results.waiting


def test_a_full_ring_says_so_and_goes_on_when_it_was_emptied() -> None:
    pair = Pair(100, words=16)
    done, what, value, _ = pair.run(abs, range(100))
    assert (done, what, value) == (4, 0, 4)
    assert pair.drain() == 4
    assert pair.run(abs, range(100), 5)[:3] == (9, 0, 9)


def test_the_loop_calls_steps_in_order_and_says_when_it_is_through() -> None:
    pair = Pair(10)
    assert pair.run(lambda i: i * i, range(10))[:3] == (10, 3, 81)
    assert pair.drain() == 10
    assert pair.values == [i * i for i in range(10)]
    assert pair.caller.slot == 9


def test_the_loop_leaves_what_was_taken_back() -> None:
    pair = Pair(10)
    pair.claims.take_back(4)
    called: list[int] = []
    assert pair.run(called.append, range(10))[:3] == (10, 3, ...)
    assert called == [0, 1, 2, 3]


def test_the_loop_stops_at_what_a_step_raises() -> None:
    pair = Pair(3)
    position, what, error, _ = pair.run(lambda i: 1 // (1 - i), range(3))
    assert (position, what) == (1, 1)
    assert isinstance(error, ZeroDivisionError)
    assert pair.drain() == 1


def test_the_value_of_the_step_before_is_handed_on() -> None:
    pair = Pair(4)
    assert pair.run(lambda i: i + 1, [5, ..., ..., ...])[:3] == (4, 3, 9)
    assert Pair(2).run(abs, [..., ...], previous=-3)[:3] == (2, 3, 3)
    assert Pair(2).run(abs, [..., ...])[:3] == (0, 2, ...)


CONTAINERS = [(), [], {}, (1, "abc", None), [0.5, (True, [b"x"])], {"a": [1, {2: (3,)}]}, b"bytes"]
MEANT_FOR_OTHERS = [
    {1, 2},
    1j,
    [object],
    (2**70,),
    ["x" * 600],
    [0] * 1000,
    b"x" * 5000,
    bytearray(b"x"),
    collections.Counter(),
]


def _holds_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def test_small_containers_arrive_as_pickles() -> None:
    pair = Pair(len(CONTAINERS))
    assert pair.run(lambda i: CONTAINERS[i], range(len(CONTAINERS)), encode=pytest.fail)[:2] == (len(CONTAINERS), 3)
    assert pair.drain() == len(CONTAINERS)
    assert [pickle.loads(value) for value in pair.values] == CONTAINERS
    assert pair.values == [pickle.dumps(value, 5) for value in CONTAINERS]


NUMBERS = [0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**63 - 1, -1, -(2**31), -(2**63), 0.1, -0.0, 1e300]
TEXTS = ["", "a", "grün", "x" * 255, "x" * 256]
TWICE = "twice"


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize(
    "items",
    [
        *([value] for value in (*NUMBERS, *TEXTS)),
        NUMBERS,
        TEXTS,
        [TWICE, TWICE],
        [True, False, None],
        list("abcdefghij"),
    ]
    + [[k] * k for k in range(6)],
)
def test_a_small_container_is_pickled_as_pickle_does_it(kind: type, items: list[Any]) -> None:
    """Byte by byte: what is known by its bytes is known whoever wrote it."""
    pair = Pair(1)
    assert pair.run(lambda _: kind(items), [None], encode=pytest.fail)[:2] == (1, 3)
    assert pair.drain() == 1
    assert pair.values == [pickle.dumps(kind(items), 5)]


@pytest.mark.parametrize("value", [*MEANT_FOR_OTHERS, _holds_itself()])
def test_other_values_are_encoded_by_who_knows_more(value: Any) -> None:
    """What it makes a pickle of goes into the ring, what it makes something else of goes back."""
    pair, seen = Pair(2), []
    assert pair.run(lambda _: value, range(2), encode=lambda it: seen.append(it) or b"of it")[:2] == (2, 3)
    assert pair.drain() == 2
    assert pair.values == [b"of it"] * 2
    assert seen[0] is seen[1] is value
    assert Pair(2).run(lambda _: value, range(2), encode=lambda _: (3, "no"))[:3] == (0, 4, (3, "no"))
    assert Pair(2).run(lambda _: value, range(2), encode=lambda _: b"x" * 9000)[:3] == (0, 4, b"x" * 9000)


def test_a_container_that_pickle_does_not_bear_is_left_to_who_knows_more(monkeypatch: Any) -> None:
    """Without a global lock a thread of the step may change it while it is pickled, which is no error of the loop."""

    def dumps(*_: object) -> bytes:
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(pickle, "dumps", dumps)
    pair = Pair(1)
    assert pair.run(lambda _: {"a": 1}, range(1), encode=lambda it: repr(it).encode())[:2] == (1, 3)
    assert pair.drain() == 1
    assert pair.values == [b"{'a': 1}"]


def test_without_an_encoder_nothing_is_encoded() -> None:
    assert Pair(2).run(lambda i: i or (i,), range(2))[:3] == (0, 0, (0,))


def test_a_container_is_handed_on_as_a_new_object() -> None:
    pair, made = Pair(3), [[1]]

    def step(before: Any) -> Any:
        made.append(before)
        return made[0]

    assert pair.run(step, [None, ..., ...], encode=pytest.fail)[:3] == (3, 3, pickle.dumps([1], 5))
    assert made == [[1], None, [1], [1]]
    assert made[0] is not made[2] is not made[3]


def test_a_value_that_is_not_loaded_here_ends_the_loop_before_the_step_that_needs_it() -> None:
    pair = Pair(3)
    assert pair.run(lambda _: {1}, [None, ..., ...], encode=lambda _: b"a set")[:3] == (1, 3, b"a set")
    assert pair.caller.slot == 0
    assert Pair(2).run(abs, [..., ...], previous=b"a set")[:3] == (0, 3, b"a set")
    assert Pair(2).run(abs, [-1, ...], previous=b"a set")[:3] == (2, 3, 1)


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize("what", ["write", "replace", "close"])
def test_the_loop_stops_where_something_is_to_be_mended(what: str, container: bool, monkeypatch: Any) -> None:
    """A step that touched the streams or the standard descriptors."""
    pair = Pair(3)
    zero = os.dup(0)

    def step(i: int) -> Any:
        if i == 1:
            if what == "write":
                pair.caller.written = True
            elif what == "replace":
                monkeypatch.setattr(sys, "stdout", None)
            else:
                os.close(0)
        return [i] if container else i

    try:
        expected = (1, 4, pickle.dumps([1], 5)) if container else (1, 0, 1)
        assert pair.run(step, range(3), encode=pytest.fail)[:3] == expected
    finally:
        os.dup2(zero, 0)
        os.close(zero)
    assert pair.drain() == 1


def test_the_loop_goes_back_to_the_directory_of_the_run(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inside").mkdir()
    here = os.open(tmp_path, os.O_RDONLY)

    def step(_: int) -> str:
        where = os.getcwd()  # noqa: PTH109
        os.chdir("inside")
        return where

    pair = Pair(3)
    try:
        assert pair.run(step, range(3), directory=here)[:2] == (3, 3)
        assert pair.drain() == 3
        assert pair.values == [str(tmp_path)] * 3
        assert Pair(2).run(os.close, [here, 0], directory=here)[:3] == (0, 0, None)
    finally:
        os.chdir(tmp_path)


def test_nothing_is_written_once_the_line_is_closed() -> None:
    line = os.pipe()
    pair = Pair(2, line=line)
    os.close(line[1])
    assert not pair.caller.put(0, 1.0, 2.0, None)
    os.close(line[0])


@pytest.mark.parametrize("each", [True, False])
def test_the_driver_is_woken_if_it_sleeps(each: bool) -> None:
    """By each result, or by the end; once."""
    pair = Pair(10)
    pair.run(abs, range(3))
    assert not pair.wakes
    pair.results.want(each)
    pair.run(abs, range(6), 3)
    assert len(pair.wakes) == int(each)
    assert pair.caller.must_wake(True) != each
    pair.results.want(each)
    pair.results.awake()
    assert not pair.caller.must_wake(True)


@pytest.mark.parametrize("written", [1, 10**6, 2**64 - 1])
def test_a_stray_write_is_an_error_and_no_more(written: int) -> None:
    pair = Pair(10, words=16)
    pair.memory[:8] = written.to_bytes(8, "little")
    pair.memory[ResultReader.HEADER :] = b"\xff" * 128
    with pytest.raises(ValueError, match="no result"):
        pair.drain()


@pytest.mark.parametrize("stray", [4, 1_000_000, 2**32 - 1, 0, 1])
def test_a_result_of_a_slot_that_is_not_awaited_is_an_error_behind_those_before_it(stray: int) -> None:
    """It was never posted, or was taken already: neither it nor any result after it would ever be taken."""
    pair = Pair(4)
    for slot in (0, 1, stray, 2, 3):
        assert pair.caller.put(slot, 1.0, 2.0, slot)
    assert pair.drain() == 2
    assert pair.values[:2] == [0, 1]
    with pytest.raises(ValueError, match="no result"):
        pair.drain(2)


@pytest.mark.parametrize("times", [(math.nan, 2.0), (1.0, math.nan), (math.inf, 2.0), (1.0, -math.inf)])
@pytest.mark.parametrize("usage", [None, (0.5, None)])
def test_a_result_without_finite_times_is_an_error(times: tuple[float, float], usage: Any) -> None:
    pair = Pair(1)
    start = struct.pack("dd", 1.0, 2.0)
    assert pair.caller.put(0, 1.0, 2.0, 1, usage)
    at = pair.memory.index(start)
    pair.memory[at : at + 16] = struct.pack("dd", *times)
    with pytest.raises(ValueError, match="no result"):
        pair.drain()


def test_a_number_of_another_length_is_an_error() -> None:
    pair = Pair(1)
    assert pair.caller.put(0, 1.0, 2.0, "12345")
    pair.memory[ResultReader.HEADER + 7] = 3  # an int
    with pytest.raises(ValueError, match="no result"):
        pair.drain()


_WORDS = st.one_of(
    st.integers(0, 40),
    st.builds(
        lambda slot, kind, size: kind << 56 | size << 32 | slot,
        st.integers(0, 5),
        st.integers(0, 9),
        st.integers(0, 80),
    ),
    st.floats(width=64).map(lambda number: struct.unpack("Q", struct.pack("d", number))[0]),
    st.integers(0, 2**64 - 1),
)


@settings(max_examples=examples(300, 20_000))
@given(st.integers(0, 40), st.lists(_WORDS, min_size=32, max_size=32))
def test_any_memory_is_results_or_an_error(written: int, words: list[int]) -> None:
    """Values of the types that there are, at finite times; nothing crashes, and what follows an error stays one."""
    pair = Pair(4, words=32)
    pair.memory[:8] = struct.pack("Q", written)
    pair.memory[ResultReader.HEADER :] = struct.pack("32Q", *words)
    done = 0
    try:
        while done < 4 and (count := pair.drain(done)):
            done += count
    except ValueError:
        with pytest.raises(ValueError, match="no result"):
            pair.drain(done)
    assert all(type(value) in {int, float, str, bytes, bool, type(None)} for value in pair.values[:done])


@settings(max_examples=examples(300, 20_000))
@given(st.integers(0, 99), st.binary(min_size=1, max_size=8))
def test_what_is_before_a_stray_write_arrives(place: int, stray: bytes) -> None:
    pair = Pair(6, words=16)
    ends = []
    for slot in range(4):
        assert pair.caller.put(slot, 1.0, 2.0, slot)
        ends.append((slot + 1) * 32)
    at = ResultReader.HEADER + place
    pair.memory[at : at + len(stray)] = stray
    whole = sum(end <= place for end in ends)
    try:
        done = pair.drain()
    except ValueError:
        done = 0
    assert done >= whole
    assert pair.values[:whole] == list(range(whole))


def test_memory_that_is_no_ring_is_refused() -> None:
    for size in (0, 8, ResultReader.HEADER, ResultReader.HEADER + 24):
        with pytest.raises(BufferError):
            ResultReader(bytearray(size))
