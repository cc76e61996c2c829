"""Reads what a worker wrote, as the driver does, and tells what came of it."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict

from flowyml.executors.process.driver.output import OutputReader

TOKEN = b"c0ffee"


def mark(slot: int | None) -> bytes:
    return b"\0%b:%b\0" % (TOKEN, b"" if slot is None else b"%d" % slot)


class Reading:
    """An `OutputReader` and what came of it: `shown` by the driver, `kept` for each slot."""

    def __init__(self, *, labels: bool = False) -> None:
        self._parts: dict[int, list[str]] = defaultdict(list)
        self.shown = ""
        label = (lambda slot: f"s{slot}") if labels else None
        self.reader = OutputReader(TOKEN, "stdout", label=label, keep=self.keep)

    def keep(self, slot: int, text: str) -> None:
        self._parts[slot].append(text)

    @property
    def kept(self) -> dict[int, str]:
        """What was kept, joined when it is asked for: a text that grew by pieces would cost quadratic time."""
        return defaultdict(str, {slot: "".join(parts) for slot, parts in self._parts.items()})

    def feed(self, *chunks: bytes) -> Reading:
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            for chunk in chunks:
                self.reader.feed(chunk)
        self.shown += stream.getvalue()
        return self

    def flush(self) -> Reading:
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            self.reader.flush()
        self.shown += stream.getvalue()
        return self


def read(*chunks: bytes, labels: bool = False) -> Reading:
    return Reading(labels=labels).feed(*chunks).flush()
