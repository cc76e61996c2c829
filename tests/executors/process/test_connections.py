"""What the dispatch loop hears at once, and what may wait a moment."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from flowyml.executors.process.driver import connections
from flowyml.executors.process.driver.connections import OutputSelector

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ends:
    """A socket and a pipe that somebody listens to."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.pipe, self.writer = os.pipe()
        self.ears = OutputSelector()
        self.ears.add(self.near.fileno())
        self.ears.add_pipe(self.pipe)

    def close(self) -> None:
        self.ears.close()
        self.near.close()
        self.far.close()
        os.close(self.pipe)
        os.close(self.writer)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with closing(Ends()) as ends:
        yield ends


def test_a_mark_in_a_pipe_wakes_nobody_and_a_socket_does(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step writes into a pipe before it begins is not worth a look of its own."""
    monkeypatch.setattr(connections, "PIPE_DELAY_SECONDS", 1000.0)
    os.write(ends.writer, b"mark")

    assert ends.ears.poll(0) == []
    ends.far.send(b"result")
    assert ends.ears.poll(10) == [ends.near.fileno()]


def test_a_pipe_is_heard_when_nothing_else_has_been_for_a_moment(ends: Ends) -> None:
    """Output is shown while steps run, some milliseconds later than it was written."""
    os.write(ends.writer, b"line")

    assert ends.ears.poll(10) == [ends.pipe]


def test_a_pipe_is_heard_also_where_every_wait_is_short(ends: Ends) -> None:
    """A loop that looks again each millisecond, for other reasons, shows output as well."""
    os.write(ends.writer, b"line")

    assert any(ends.ears.poll(0.001) == [ends.pipe] for _ in range(1000))


def test_sockets_and_pipes_are_heard_together(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once pipes are listened to, neither hides the other."""
    monkeypatch.setattr(connections, "PIPE_DELAY_SECONDS", 0.0)
    os.write(ends.writer, b"line")
    ends.far.send(b"result")

    assert set(ends.ears.poll(10)) == {ends.near.fileno(), ends.pipe}


def test_while_text_comes_pipes_are_heard_at_once(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that writes much does not wait for the driver with a full pipe."""
    monkeypatch.setattr(connections, "PIPE_DELAY_SECONDS", 1000.0)
    os.write(ends.writer, b"text")
    ends.ears.had_output = True

    assert ends.ears.poll(10) == [ends.pipe]
    assert not ends.ears.had_output  # until somebody finds text again


@pytest.mark.parametrize("listened", [False, True])
def test_a_pipe_and_a_socket_can_be_forgotten(ends: Ends, monkeypatch: pytest.MonkeyPatch, *, listened: bool) -> None:
    """Those of a dead worker are closed, whether or not somebody has listened to its pipes yet."""
    monkeypatch.setattr(connections, "PIPE_DELAY_SECONDS", 0.0)
    if listened:
        ends.ears.poll(0)
    os.write(ends.writer, b"line")
    ends.far.send(b"result")
    ends.ears.remove_pipe(ends.pipe)
    ends.ears.remove(ends.near.fileno())

    assert ends.ears.poll(0) == []


def test_room_to_write_is_heard_when_it_is_asked_for(ends: Ends) -> None:
    """A message that did not go out whole goes on when there is room."""
    assert ends.ears.poll(0) == []
    ends.ears.change(ends.near.fileno(), writable=True)

    assert ends.ears.poll(10) == [ends.near.fileno()]
