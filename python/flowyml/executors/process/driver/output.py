r"""The output of workers, shown live by the driver.

```
worker: print, C code, subprocesses ─▶ fd 1, fd 2 = pipes ─▶ OutputReader ─▶ the driver's current sys.stdout, sys.stderr
                                                                  └─▶ keep(slot, text) ─▶ StepLog of the step
```
A pipe carries the bytes as they were written and, between them, marks: `\0token:SLOT\0` precedes the output of the step
in SLOT, `\0token:\0` output of no step (`worker/output_capture.py` writes them). So attribution is exact and the order
within a step is kept; the order between two streams or workers is undefined.

Whole lines are shown; `\r` ends a line too, so that progress bars move. An unfinished line is shown when its step or
the pipe ends, or when it exceeds `MAX_LINE_BYTES`. The stream is looked up at each write, so that capsys,
`redirect_stdout` and notebooks receive it; a closed or broken stream loses the text, and the run continues.
"""

from __future__ import annotations

import codecs
import functools
import re
import sys
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors.process.driver.backend import ProcessBackend
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run


MAX_LINE_BYTES: Final = 64 * 1024  # bytes of an unfinished line that are held back

SLOT_DIGITS: Final = 10  # a slot is a u32
_LINES: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


@functools.lru_cache(maxsize=1024)
def _marks(opening: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    mark = re.escape(opening) + rb"([0-9]{0,%d})\0" % SLOT_DIGITS
    return re.compile(mark), re.compile(rb"(?:%b)+" % mark)


class OutputReader:
    r"""Reads one pipe of one worker: parses the marks, shows whole lines, keeps the output of each step.

    Args:
        token: The hex digits that open a mark, as the worker knows them.
        stream_name: The attribute of `sys` to write to.
        label: Returns the name of the step in a slot, which is shown before each line; `None` for no label.
        keep: Called with the slot and the output of a step, without labels.

    Attributes:
        had_output: Whether the data that was fed last had output, not only marks.

    >>> reader = OutputReader(b"f00d", "stdout", label=lambda slot: f"step {slot}")
    >>> reader.feed(b"\0f00d:7\0one\ntw")
    [step 7] one
    >>> reader.flush()
    [step 7] tw
    """

    def __init__(
        self,
        token: bytes,
        stream_name: Literal["stdout", "stderr"],
        *,
        label: Callable[[int], str | None] | None = None,
        keep: Callable[[int, str], None] | None = None,
    ) -> None:
        self._stream_name = stream_name
        self._label = label
        self._keep = keep
        self.had_output = False
        self._opening = b"\0" + token + b":"
        self._marks, self._only_marks = _marks(self._opening)
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = b""  # may be the beginning of a mark
        self._pending: list[bytes] = []  # the unfinished line
        self._pending_size = 0
        self._slot: int | None = None
        self._shown: list[str] = []  # goes to the stream at the end of `feed`
        self._last = "\n"  # last character shown: are we at the beginning of a line?

    def attend(self, label: Callable[[int], str | None] | None, keep: Callable[[int, str], None] | None = None) -> None:
        """Begin a run with other callbacks; slots of the last run are no longer valid."""
        self._label, self._keep, self._slot = label, keep, None

    def feed(self, data: bytes) -> None:
        """Process data from the pipe, cut anywhere, in linear time."""
        if not self._held and (only := self._only_marks.fullmatch(data)) is not None:  # steps that write nothing
            self._change_owner(int(only[1]) if only[1] else None)
            self.had_output = False
            self._write()
            return
        parts = self._marks.split(self._held + data)
        cut = self._mark_begins(parts[-1])
        parts[-1], self._held = parts[-1][:cut], parts[-1][cut:]
        self._take(parts[0])
        for slot, text in zip(parts[1::2], parts[2::2], strict=True):
            self._change_owner(int(slot) if slot else None)
            self._take(text)
        self.had_output = any(parts[::2])
        self._write()

    def flush(self) -> None:
        """Show what is held back, at the end of the pipe or of the run."""
        self._take(self._held)
        self._held = b""
        self._finish_line()
        self._write()

    def _mark_begins(self, data: bytes) -> int:
        """Return the start of an incomplete mark at the end of the data, or the length of the data."""
        start = data.rfind(b"\0", -len(self._opening) - SLOT_DIGITS)
        if start < 0:
            return len(data)
        tail = data[start:]
        digits = tail.removeprefix(self._opening)
        unfinished = self._opening.startswith(tail) or (digits != tail and digits.isdigit())
        return start if unfinished else len(data)

    def _change_owner(self, slot: int | None) -> None:
        if slot != self._slot:
            self._finish_line()
            self._slot = slot

    def _take(self, data: bytes) -> None:
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if end:
            self._show(self._take_pending() + data[:end])
        if end < len(data):
            self._pending.append(data[end:])
            self._pending_size += len(data) - end
            if self._pending_size > MAX_LINE_BYTES:
                self._show(self._take_pending())

    def _take_pending(self) -> bytes:
        pending = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        return pending

    def _finish_line(self) -> None:
        """Show the unfinished line; a labelled one is ended, so that the next label begins a line."""
        if not self._pending and self._last == "\n":
            return
        self._show(self._take_pending(), final=True)
        if self._last not in "\r\n" and self._label_text():
            self._shown.append("\n")
        self._last = "\n"

    def _show(self, data: bytes, *, final: bool = False) -> None:
        text = self._decoder.decode(data, final)
        if not text:
            return
        self._shown.append(self._labelled(text))
        self._last = text[-1]
        if self._keep is not None and self._slot is not None:
            self._keep(self._slot, text)

    def _write(self) -> None:
        if self._shown:
            show(self._stream_name, "".join(self._shown))
            self._shown.clear()

    def _labelled(self, text: str) -> str:
        label = self._label_text()
        if not label:
            return text
        goes_on = self._last not in "\r\n" or (self._last == "\r" and text[0] == "\n")
        labelled = "".join(label + line for line in _LINES.findall(text))
        return labelled.removeprefix(label) if goes_on else labelled

    def _label_text(self) -> str:
        name = self._label(self._slot) if self._label is not None and self._slot is not None else None
        return "" if name is None else f"[{name}] "


def show(stream_name: str, text: str) -> None:
    """Write to the current `sys.stdout` or `sys.stderr`; an error of the stream loses the text, never the run."""
    stream = getattr(sys, stream_name)
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError as error:
            stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        stream.flush()
    except Exception:  # noqa: BLE001, S110  closed, broken or a user's class: there is nowhere to report it
        pass


def show_worker_output(run: Run, backend: ProcessBackend, worker: WorkerHandle) -> None:
    """Show and keep the output of a worker from now on; with step names if there are several workers."""

    def label(slot: int) -> str | None:
        item = worker.item_at(slot) if backend.several else None
        return None if item is None else run.item_name(item)

    worker.open_pipes(label, lambda slot, text: keep(run, worker, slot, text))


def keep(run: Run, worker: WorkerHandle, slot: int, text: str) -> None:
    """Keep the output of the step in a slot."""
    item = worker.item_at(slot)
    if item is not None:
        run.usage.keep(item, text)
