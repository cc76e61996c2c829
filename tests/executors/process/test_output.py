"""Live output of steps, the driver's side: marks, whole lines, where they go, what is kept."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections import defaultdict
from itertools import groupby, pairwise
from operator import itemgetter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from output_reading import TOKEN, Reading, mark, read

from flowyml.executors.process.driver.output import MAX_LINE_BYTES, OutputReader
from flowyml.results.resource_usage import KEPT, StepLog

# ---- the driver: marks and lines ---------------------------------------------------------------------------------

EXAMPLE = mark(1) + "grün\n".encode() + b"two" + mark(None) + b"nobody\n" + mark(42) + b"\0c0ffe\xff\n" + mark(1) + b"x"


@pytest.mark.parametrize("cut", range(len(EXAMPLE) + 1))
def test_a_stream_cut_anywhere_reads_the_same(cut: int) -> None:
    reading = read(EXAMPLE[:cut], EXAMPLE[cut:])

    assert reading.kept == {1: "grün\ntwox", 42: "\0c0ffe\\xff\n"}
    assert reading.shown == "grün\ntwonobody\n\0c0ffe\\xff\nx"


def test_a_stream_fed_byte_by_byte_reads_the_same() -> None:
    reading = read(*(EXAMPLE[n : n + 1] for n in range(len(EXAMPLE))), labels=True)

    assert reading.shown == "[s1] grün\n[s1] two\nnobody\n[s42] \0c0ffe\\xff\n[s1] x\n"


@pytest.mark.parametrize(
    ("data", "talked"),
    [(mark(1), False), (mark(1) + mark(None) + mark(2), False), (mark(1) + b"a", True), (b"a", True), (b"", False)],
)
def test_a_reader_tells_text_from_marks(data: bytes, *, talked: bool) -> None:
    """Steps that write nothing leave marks; the driver need not listen closely to them."""
    reader = OutputReader(TOKEN, "stdout")
    with contextlib.redirect_stdout(io.StringIO()):
        reader.feed(data)

    assert reader.had_output is talked


def test_after_marks_alone_the_last_one_counts() -> None:
    """What follows belongs to the step that was named last."""
    assert read(mark(1) + mark(2), b"of two").kept == {2: "of two"}


def test_an_unfinished_line_ends_where_only_marks_follow() -> None:
    """The line of one step does not go on with that of the next."""
    assert read(mark(1) + b"one", mark(2) + mark(3), b"three", labels=True).shown == "[s1] one\n[s3] three\n"


pieces = st.binary(max_size=12) | st.sampled_from(
    [b"\0", b"\0c0ffee", b"c0ffee:12", b":", b"\r", b"\n", b"\r\n", b"\xe2"]
)
texts = st.lists(pieces).map(b"".join)


@given(
    written=st.lists(st.tuples(st.none() | st.integers(0, 2**32 - 1), texts), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_what_each_step_wrote_arrives_exactly_however_it_is_cut(
    written: list[tuple[int | None, bytes]], cuts: list[int]
) -> None:
    turns = [(slot, b"".join(text for _, text in turn)) for slot, turn in groupby(written, key=itemgetter(0))]
    # Nobody but the worker knows the token, so what a step writes does not begin a mark.
    assume(all(b"\0c0ffee:" not in text for _, text in turns))
    expected: dict[int, str] = defaultdict(str)
    for slot, text in turns:
        if slot is not None and text:
            expected[slot] += text.decode("utf-8", "backslashreplace")
    stream = b"".join(mark(slot) + text for slot, text in turns)
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})

    reading = read(*(stream[start:end] for start, end in pairwise(at)))

    assert reading.kept == expected
    assert reading.shown == "".join(text.decode("utf-8", "backslashreplace") for _, text in turns)


def test_without_labels_the_driver_shows_the_very_bytes() -> None:
    assert read(mark(1) + b"..", mark(2) + b".\n", b"100%\r").shown == "...\n100%\r"


def test_an_unfinished_line_waits_for_its_end() -> None:
    reading = Reading(labels=True).feed(mark(1) + b"one\ntw")
    assert reading.shown == "[s1] one\n"

    assert reading.feed(b"o\n").shown == "[s1] one\n[s1] two\n"


def test_an_unfinished_line_is_shown_when_its_step_ends() -> None:
    assert Reading(labels=True).feed(mark(1) + b"tw", mark(None)).shown == "[s1] tw\n"


def test_the_same_mark_twice_ends_no_line() -> None:
    assert read(mark(1) + b"tw", mark(1) + b"o\n", labels=True).shown == "[s1] two\n"


def test_a_progress_bar_moves() -> None:
    reading = Reading(labels=True).feed(mark(1) + b"\r10%", b"\r20%")

    assert reading.shown == "[s1] \r[s1] 10%\r"


def test_a_line_end_cut_in_two_is_one() -> None:
    assert read(mark(1) + b"a\r", b"\nb\r\n", labels=True).shown == "[s1] a\r\n[s1] b\r\n"


def test_a_character_cut_in_two_is_one() -> None:
    whole = "€".encode()

    assert read(mark(1) + whole[:1], whole[1:2], whole[2:] + b"\n").shown == "€\n"


def test_half_a_character_at_the_end_of_a_step_is_shown_escaped() -> None:
    assert read(mark(1) + "€".encode()[:2], mark(2) + b"\xac\n", labels=True).shown == "[s1] \\xe2\\x82\n[s2] \\xac\n"


def test_an_endless_line_is_shown_in_pieces_with_one_label() -> None:
    reading = Reading(labels=True).feed(mark(1), *["ä".encode() * 999 + b"x"] * 100)
    assert len(reading.shown) > MAX_LINE_BYTES / 2

    assert reading.flush().shown == "[s1] " + ("ä" * 999 + "x") * 100 + "\n"


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\r", b"\n", b"x"])
def test_megabytes_cost_linear_time(byte: bytes) -> None:
    """In pieces of 1 KiB; for eight times as many a quadratic reader takes 64 times as long."""

    def cost(pieces: int) -> float:
        start = time.process_time()
        reading = read(mark(1), *[byte * 1024] * pieces)
        seconds = time.process_time() - start
        assert len(reading.kept[1]) == 1024 * pieces * (4 if byte == b"\xff" else 1)
        return seconds

    assert cost(1024) < 24 * min(cost(128) for _ in range(3))


# ---- the driver: where it goes -----------------------------------------------------------------------------------


def test_the_stream_is_looked_up_at_each_write(capsys: pytest.CaptureFixture[str]) -> None:
    reader = OutputReader(TOKEN, "stderr")
    with contextlib.redirect_stderr(io.StringIO()) as first:
        reader.feed(b"first\n")
    reader.feed(b"second\n")

    assert first.getvalue() == "first\n"
    assert capsys.readouterr().err == "second\n"


def test_output_reaches_the_descriptor_of_the_driver(capfd: pytest.CaptureFixture[str]) -> None:
    OutputReader(TOKEN, "stdout").feed(b"live\n")

    assert capfd.readouterr().out == "live\n"


class Angry(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, object(), Angry(), closed()], ids=["none", "no stream", "broken", "closed"])
def test_a_broken_stream_loses_the_text_and_nothing_else(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[int, str]] = []
    reader = OutputReader(TOKEN, "stdout", keep=lambda slot, text: kept.append((slot, text)))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        reader.feed(mark(3) + b"lost\n")

    assert kept == [(3, "lost\n")]


def test_a_stream_that_knows_fewer_characters_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        OutputReader(TOKEN, "stdout").feed("5 €\n".encode())

    assert stream.buffer.getvalue() == b"5 \\u20ac\n"  # type: ignore[attr-defined]


# ---- what is kept ------------------------------------------------------------------------------------------------


def test_a_short_log_is_whole() -> None:
    log = StepLog()
    for text in ("a\n", "ä\n", ""):
        log.add(text)

    assert (log.text(), log.size) == ("a\nä\n", 5)


@pytest.mark.parametrize("piece", [1, 7, 1000, KEPT, 3 * KEPT, 1 << 20])
def test_a_long_log_keeps_its_beginning_and_its_end(piece: int) -> None:
    written = "".join(f"{n:09}\n" for n in range(20_000))
    log = StepLog()
    for start in range(0, len(written), piece):
        log.add(written[start : start + piece])

    head, gap, tail = log.text().partition(f"\n... {len(written) - 2 * KEPT} bytes left out ...\n")
    assert (head, bool(gap), tail) == (written[:KEPT], True, written[-KEPT:])
    assert len(log._head) + len(log._tail) <= 3 * KEPT


def test_a_log_of_twice_the_limit_has_no_gap() -> None:
    log = StepLog()
    log.add("x" * 2 * KEPT)

    assert log.text() == "x" * 2 * KEPT
