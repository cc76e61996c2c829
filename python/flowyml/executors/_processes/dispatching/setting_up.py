"""What workers need before the calls of a run: the run frame and the functions, to each what is new to it.

It goes out with the first calls of a worker, in one send, and to nobody who gets none. The module knows neither when
the driver was looked at (`team.py`) nor what the functions are (`calls.py`).
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from flowyml.executors._processes.crossing import wire

if TYPE_CHECKING:
    from flowyml.executors._processes.crossing.frame import RunFrame
    from flowyml.executors._processes.dispatching.calls import CallWriter
    from flowyml.executors._processes.dispatching.lending import Lending
    from flowyml.executors._processes.dispatching.member import Member


class Setup:
    """What workers need before the calls of a run: the run frame and the functions, where they are new to them."""

    def __init__(
        self,
        frame: RunFrame,
        writer: CallWriter,
        run: tuple[str, str, int | None, float, str],
        lending: Lending,
        terms: tuple[int, int | None],
    ) -> None:
        """Keep all of it; `run` is as a worker keeps it, without its number.

        The terms of the initializer are the number of the run in its team, and how many bytes a worker may have.
        """
        self._lending = lending
        self._writer = writer
        self._bare: set[Member] = set()
        self._run = run
        self._frame = frame
        self._payload = writer.payload
        self._functions = writer.function_count
        self._initializer = None if writer.initializer is None else (*writer.initializer, *terms)
        self._hashed = writer.hashed

    def register(self, member: Member) -> None:
        """Note a worker that has nothing of this run."""
        self._bare.add(member)
        member.shared.clear()
        member.further = 0

    def is_new_to(self, member: Member) -> bool:
        """Tell whether a worker has nothing of this run yet."""
        return member in self._bare

    def frames_for(self, member: Member, shared: set[int]) -> list[bytes]:
        """Return what a worker must have before calls that read these shared values, and has not got yet.

        One send with the calls, and none to a worker that gets no step: a send wakes it, which costs more than it.
        """
        frames: list[bytes] = []
        if member in self._bare:
            self._bare.discard(member)
            frames += self._first(member)
        for payload, functions in self._writer.further[member.further :]:
            frames += wire.frame(wire.FUNCTIONS, [(0,), functions], [payload.data])
        member.further = len(self._writer.further)
        for number in shared - member.shared:
            frames += wire.frame(wire.SHARED, number, [self._writer.shared[number]])
        member.shared |= shared
        return frames

    def _first(self, member: Member) -> list[bytes]:
        """Return the frame that brings a worker up to date."""
        new_frame = member.frame != self._frame.digest
        new_payload = member.payload != self._payload.digest
        member.frame, member.payload = self._frame.digest, self._payload.digest
        segments: list[bytes] = []
        frame = wire.slim(pickle.dumps(self._frame), segments) if new_frame else None
        payload = wire.slim(self._payload.data, segments) if new_payload else None
        run = (*self._run, member.number)
        arenas = tuple(self._lending.terms(member.number))
        body = [frame, payload, self._functions, run, self._hashed, arenas, member.setting, self._initializer]
        return wire.frame(wire.SETUP, body, segments)
