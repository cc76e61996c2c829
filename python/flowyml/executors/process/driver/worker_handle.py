"""The driver's handle of one worker: the batches posted to it, and the results that it has delivered.

Slots are numbered for the life of a worker and never reused. Results arrive in slot order, so the first posted batch is
the one in progress.

```
batches:  [ done | running | not begun ][ prefetched ]      recent: the last completed ones, to attribute output
```
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.executors.process.driver.output import OutputReader
from flowyml.executors.process.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml._core import Batch
    from flowyml.errors import FlowymlError
    from flowyml.executors.process.pool.worker_process import WorkerProcess
    from flowyml.store.arenas import ArenaValue

clock = time.monotonic

READ_BYTES = 1 << 16
# More than the largest pipe that a user may create.
MAX_READS = 32
REMEMBERED_BATCHES = 16


class PostedBatch:
    """A batch with the slots under which it was posted.

    Attributes:
        batch: The claimed batch.
        first: The slot of the first item.
        length: The number of items that were posted.
        count: The number of items that are left; some may have been taken back.
        void: Items before this position that are not done were given back, since the step before them has no value;
            their slots are skipped.
        done: The number of results that were taken.
        refused: Errors of arguments that cannot be pickled, by position.
        stored: Large arguments that an arena holds for this batch.
    """

    __slots__ = ("batch", "count", "done", "first", "length", "refused", "stored", "void")

    def __init__(
        self, batch: Batch, count: int, first: int, refused: dict[int, FlowymlError], stored: list[ArenaValue]
    ) -> None:
        self.batch = batch
        self.first = first
        self.count = self.length = count
        self.done = self.void = 0
        self.refused = refused
        self.stored = stored

    @property
    def left(self) -> int:
        """The position of the first item that is neither done nor given back."""
        return max(self.done, self.void)


class KillDecision(NamedTuple):
    """Why a worker is killed.

    Attributes:
        slot: The slot of the step to blame; `None` if no step is.
        reason: The error of that step. Without a step, the error of the run if it happens again and again.
    """

    slot: int | None
    reason: BaseException | None


class WorkerHandle:
    """A worker of a backend.

    Args:
        process: The process.
        number: Its number within the run, for the timeline.
        initialized: Whether there is no initializer to call before its first step.
    """

    def __init__(self, process: WorkerProcess, number: int, *, initialized: bool = True) -> None:
        self.process = process
        self.number = number
        self.ready, self.initialized = False, initialized  # until it is initialized no step is to blame for its death
        self.failed = False  # it has closed its socket
        self.verdict: KillDecision | None = None  # why it is being killed
        self.steps_assigned, self.last_posted = 0, 0.0  # in its life, without those taken back; when the last batch was
        self.retired: float | None = None  # since when it is to exit
        self.over_memory_limit = False
        self.last_slot_within_limit: int | None = None  # claimed last when its memory was last within the limit
        self.first_over_limit: tuple[int, int] | None = None  # a slot that began over the limit, and the memory then
        self.devices: tuple[str, ...] = ()  # for life, by name
        self.device_variable: tuple[str, str] | None = None  # restricts it to its devices
        # What it has received: digests of functions and environment, ids of shared values, number of extra payloads.
        self.payload = self.frame = b""
        self.shared: set[int] = set()
        self.extra_payload_count = 0
        self.retained_blocks: dict[tuple[int, int], ArenaValue] = {}  # in use beyond the step that read them
        self.batches: deque[PostedBatch] = deque()
        self._recent: deque[PostedBatch] = deque(maxlen=REMEMBERED_BATCHES)
        self.outbox = wire.SendBuffer(process.socket)
        self.receiver = wire.FrameReader(process.socket)
        self.results = process.results
        self.arrived: deque[wire.ResultBody] = deque()  # from the socket; earlier ones are in shared memory
        self.corrupt = False  # its next result is invalid, or belongs to no posted step
        self.had_output = False  # in the pipe that was read last
        self._unread = 0
        token = process.token.encode()
        self._pipes = {process.stdout: OutputReader(token, "stdout"), process.stderr: OutputReader(token, "stderr")}

    @property
    def accepts_work(self) -> bool:
        """True if steps may be assigned to it."""
        is_unfit = self.failed or self.corrupt or self.over_memory_limit
        return not is_unfit and self.verdict is None and self.retired is None

    @property
    def is_new(self) -> bool:
        """True if it has received nothing yet, so that it can still get devices."""
        return not self.frame

    @property
    def has_started(self) -> bool:
        """True if it has begun a step that is not done."""
        slot = self.process.claims.last_claimed()
        return bool(self.batches) and slot is not None and slot >= self.batches[0].first + self.batches[0].done

    @property
    def has_worked(self) -> bool:
        """True if it has begun a step in its life."""
        return self.process.claims.last_claimed() is not None

    @property
    def open(self) -> int:
        """The number of posted steps whose results were not taken."""
        return sum(posted.count - posted.done for posted in self.batches)

    @property
    def posted_end(self) -> int:
        """The slot after the last posted step; there must be one."""
        last = self.batches[-1]
        return last.first + last.length

    def is_posted(self, slot: int) -> bool:
        """Return True if a step with this slot is posted, or was taken back, and is not done."""
        first = self.batches[0]
        return first.first + first.done <= slot < self.posted_end

    @property
    def waiting(self) -> int:
        """The number of posted steps that have not begun."""
        return self.process.claims.waiting

    @property
    def has_blocked_work(self) -> bool:
        """True if steps wait behind one that has begun."""
        return self.waiting > 0 and self.has_started

    @property
    def began(self) -> float:
        """When it began its current step, including loading; `inf` between two steps."""
        began = self.process.claims.begun()[2]
        return began - wire.MAX_LOADING_SECONDS if clock() < began < math.inf else began

    def running(self) -> tuple[int, int, float] | None:
        """Return slot, item and start of its current step; `None` between two steps.

        The start is in the future while arguments are being loaded; see `wire.MAX_LOADING_SECONDS`.
        """
        if not self.has_started or self.verdict is not None:
            return None
        claims = self.process.claims
        slot = claims.last_claimed()
        began = claims.begun()[2]
        item = None if slot is None or slot != claims.last_claimed() else self.item_at(slot)
        return None if slot is None or item is None or began == math.inf else (slot, item, began)

    def slot_before(self, slot: int) -> int:
        """Return the slot that was begun before this one; -1 if there was none in this run."""
        for posted in reversed((*self._recent, *self.batches)):
            if posted.count and posted.first < slot:
                return min(slot, posted.first + posted.count) - 1
        return -1

    def stealable(self, *, even_next: bool) -> int:
        """Return how many of its steps another worker may take.

        Those that wait behind one that has begun. If none has, all but one: its next step is about to start. Steps that
        are chained to either are not counted, since no other worker could begin them.

        Args:
            even_next: Whether the next step may be taken, too, while the worker is in its initializer.
        """
        if not self.waiting:
            return 0
        last, keeps = self.batches[-1], not self.has_started and (self.initialized or not even_next)
        return max(0, last.first + last.count - self._head(keeps))

    def _head(self, beyond: int) -> int:
        """Return the first waiting slot, after `beyond` others, that is not chained to the one before it."""
        following, end, _ = self.process.claims.begun()
        following += beyond
        for posted in self.batches:
            if posted.first <= following < posted.first + posted.count:
                return posted.first + posted.batch.next_head(following - posted.first)
        return end

    def chain_start(self, slot: int) -> int:
        """Return the last slot up to this one that is not chained: steps can be taken back from there on."""
        for posted in self.batches:
            if posted.first <= slot < posted.first + posted.count:
                return posted.first + posted.batch.head_at(slot - posted.first)
        return slot

    def finish(self, posted: PostedBatch) -> None:
        """Remove a batch whose results were all taken."""
        self.batches.remove(posted)
        posted.stored.clear()
        self._recent.append(posted)
        self._unread += 1
        if self._unread == REMEMBERED_BATCHES:  # read its remaining output before dropping the batch
            self.read_pipes()

    def item_at(self, slot: int) -> int | None:
        """Return the item in a slot, if the slot is or was recently posted."""
        for posted in (*self.batches, *self._recent):
            if posted.first <= slot < posted.first + posted.length:
                return posted.batch.item(slot - posted.first)
        return None

    # -- output

    def open_pipes(self, label: Callable[[int], str | None], keep: Callable[[int, str], None] | None = None) -> None:
        """Show its output with these callbacks from now on; slots of the last run are no longer valid."""
        self._recent.clear()
        for reader in self._pipes.values():
            reader.attend(label, keep)

    def read_pipe(self, pipe: int) -> bool:
        """Show the output in one of its pipes; return False at the end of the pipe.

        Reads at most `MAX_READS` portions, since a process may write without end.
        """
        reader = self._pipes[pipe]
        for _ in range(MAX_READS):
            try:
                data = os.read(pipe, READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            reader.feed(data)
            self.had_output = reader.had_output
            if len(data) < READ_BYTES:  # it was empty then
                return True
        return True

    def read_pipes(self, *, last: bool = False) -> None:
        """Show the output in all of its pipes; if `last`, unfinished lines, too."""
        self._unread = 0
        for pipe, reader in self._pipes.items():
            self.read_pipe(pipe)
            if last:
                reader.flush()
