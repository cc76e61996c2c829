"""One worker as the dispatch loop sees it: what was posted to it, and what it has delivered.

Slots are numbered for the life of a worker and never used again. A *posting* is a batch under slot numbers; results
come in slot order, so the first posting is the one that is being worked on.

```
postings:  [ done | running | not begun ][ prefetched ]      recent: the last few that are done, for their output
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

_READ = 1 << 16
# More than the largest pipe that a user may ask for.
_MOST_READS = 32
_RECENT = 16


class PostedBatch:
    """A batch under slot numbers.

    Attributes:
        batch: What was claimed.
        first: Slot of the first item.
        length: How many items it had at first.
        count: How many items are still here; less than the batch after some were taken back.
        void: Items before this position that are not done were given back, since the one they are chained to has no
            value; their slots will be passed over.
        done: How many results are in.
        refused: Errors of arguments that did not pickle, by position.
        stored: Large arguments that lie in an arena for this posting alone.
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
        """Position of the first item that is neither done nor given back."""
        return max(self.done, self.void)


class KillDecision(NamedTuple):
    """Why a worker is killed.

    Attributes:
        slot: The slot of the step that is the reason; `None` if no step is.
        reason: What becomes of that step; where no step is the reason, what ends the run if it happens again and again.
    """

    slot: int | None
    reason: BaseException | None


class WorkerHandle:
    """A worker of the team.

    Args:
        worker: The process.
        number: Its number among the workers of a run, for the timeline.
        initialized: Whether nothing is to be called before its first step.

    Attributes:
        ready: It has said that it is up.
        initialized: It is past what is called before its first step; what comes until then is no step's.
        payload: Digest of the functions that it has.
        frame: Digest of the run frame that it has.
        shared: Numbers of the run's shared values that it has.
        further: How many payloads it has beside, of steps that came during the run.
        keeps: Blocks of arenas that it looks at beyond the step that was given them.
        failed: It has closed its socket.
        arrived: Results that came through the socket and are not taken over: others before them are in shared memory.
        talked: Whether there was text in the pipe that was read last.
        torn: The next of its results is invalid, or belongs to no posted step.
        verdict: Why it is being killed.
        assigned: How many steps it was given in its life, those taken back not counted.
        posted: When it was given the last of them.
        retired: When it was told to end, having done its share; `None` if it was not.
        full: It has more memory than it may.
        calm: The slot claimed last when its memory was last seen within the limit; see `memory.py`.
        devices: The devices that it has for its life, by name; none if it has none of its own.
        setting: The variable that shows it these alone, and its value.
        found: A step that may not be the one that took the memory, and how much there was when it was first seen.
    """

    def __init__(self, worker: WorkerProcess, number: int, *, initialized: bool = True) -> None:
        self.worker = worker
        self.number = number
        self.ready, self.initialized = False, initialized
        self.failed = False
        self.verdict: KillDecision | None = None
        self.assigned, self.posted = 0, 0.0
        self.retired: float | None = None
        self.full = False
        self.calm: int | None = None
        self.found: tuple[int, int] | None = None
        self.devices: tuple[str, ...] = ()
        self.setting: tuple[str, str] | None = None
        self.payload = self.frame = b""
        self.shared: set[int] = set()
        self.further = 0
        self.keeps: dict[tuple[int, int], ArenaValue] = {}
        self.postings: deque[PostedBatch] = deque()
        self._recent: deque[PostedBatch] = deque(maxlen=_RECENT)
        self.outbox = wire.SendBuffer(worker.socket)
        self.receiver = wire.FrameReader(worker.socket)
        self.results = worker.results
        self.arrived: deque[wire.ResultBody] = deque()
        self.torn = self.talked = False
        self._unread = 0
        token = worker.token.encode()
        self._pipes = {
            worker.stdout: OutputReader(token, "stdout"),
            worker.stderr: OutputReader(token, "stderr"),
        }

    @property
    def serves(self) -> bool:
        """Whether it can be given steps."""
        return not (self.failed or self.torn or self.full) and self.verdict is None and self.retired is None

    @property
    def is_new(self) -> bool:
        """Whether it was told nothing yet, so that whatever it will look for is as it will be told."""
        return not self.frame

    @property
    def begun(self) -> bool:
        """Whether it has begun a step of those that are not done."""
        slot = self.worker.claims.last_claimed()
        return bool(self.postings) and slot is not None and slot >= self.postings[0].first + self.postings[0].done

    @property
    def has_worked(self) -> bool:
        """Whether it has begun a step in its life."""
        return self.worker.claims.last_claimed() is not None

    @property
    def open(self) -> int:
        """How many posted steps have no result that was taken."""
        return sum(posting.count - posting.done for posting in self.postings)

    @property
    def posted_end(self) -> int:
        """The slot after the last step that is posted and not done; there must be one."""
        last = self.postings[-1]
        return last.first + last.length

    def is_posted(self, slot: int) -> bool:
        """Return True if a step that is posted and not done has this slot, or had it before it was taken back."""
        first = self.postings[0]
        return first.first + first.done <= slot < self.posted_end

    @property
    def waiting(self) -> int:
        """How many posted steps are not begun."""
        return self.worker.claims.waiting

    @property
    def stuck(self) -> bool:
        """Whether steps wait behind one that has begun."""
        return self.waiting > 0 and self.begun

    @property
    def began(self) -> float:
        """When it began the step that it is in, its loading included; `inf` if it is between two."""
        began = self.worker.claims.begun()[2]
        return began - wire.LOADING if clock() < began < math.inf else began

    def running(self) -> tuple[int, int, float] | None:
        """Return slot, item and beginning of the step that it is in; `None` if it is in none, or between two.

        The beginning lies in the future while arguments are being loaded; see `wire.LOADING`.
        """
        if not self.begun or self.verdict is not None:
            return None
        claims = self.worker.claims
        slot = claims.last_claimed()
        began = claims.begun()[2]
        item = None if slot is None or slot != claims.last_claimed() else self.item_at(slot)
        return None if slot is None or item is None or began == math.inf else (slot, item, began)

    def slot_before(self, slot: int) -> int:
        """Return the slot that was begun before this one; -1 if there was none in this run."""
        for posting in reversed((*self._recent, *self.postings)):
            if posting.count and posting.first < slot:
                return min(slot, posting.first + posting.count) - 1
        return -1

    def spare(self, *, even_next: bool) -> int:
        """Return how many of its steps another worker may have.

        All that wait behind one that has begun; of a worker that has not begun, all but one: its next step is about to
        start, and taking it would only send it around. What is chained to either is not among them: nobody else could
        begin it.

        Args:
            even_next: Whether it may have that one, too, as long as this worker is not past its initializer.
        """
        if not self.waiting:
            return 0
        last, keeps = self.postings[-1], not self.begun and (self.initialized or not even_next)
        return max(0, last.first + last.count - self._head(keeps))

    def _head(self, beyond: int) -> int:
        """Return the first slot that waits and is not chained, but for `beyond` others."""
        following, end, _ = self.worker.claims.begun()
        following += beyond
        for posting in self.postings:
            if posting.first <= following < posting.first + posting.count:
                return posting.first + posting.batch.next_head(following - posting.first)
        return end

    def cut(self, slot: int) -> int:
        """Return the last slot up to this one that is not chained: from there on steps can be taken back."""
        for posting in self.postings:
            if posting.first <= slot < posting.first + posting.count:
                return posting.first + posting.batch.head_at(slot - posting.first)
        return slot

    def finish(self, posting: PostedBatch) -> None:
        """Let go of a posting whose results are all in."""
        self.postings.remove(posting)
        posting.stored.clear()
        self._recent.append(posting)
        self._unread += 1
        if self._unread == _RECENT:  # what of it is in the pipes must be read before it is forgotten
            self.read_pipes()

    def item_at(self, slot: int) -> int | None:
        """Return the item in a slot, if it is known yet or still."""
        for posting in (*self.postings, *self._recent):
            if posting.first <= slot < posting.first + posting.length:
                return posting.batch.item(slot - posting.first)
        return None

    # -- what it prints

    def open_pipes(self, label: Callable[[int], str | None], keep: Callable[[int, str], None] | None = None) -> None:
        """Show its output from now on under these labels; slots of the last run mean nothing any more."""
        self._recent.clear()
        for reader in self._pipes.values():
            reader.attend(label, keep)

    def read_pipe(self, pipe: int) -> bool:
        """Show what one of its pipes holds; tell whether the pipe is still open.

        At most `_MOST_READS` portions: somebody may write without end.
        """
        reader = self._pipes[pipe]
        for _ in range(_MOST_READS):
            try:
                data = os.read(pipe, _READ)
            except BlockingIOError:
                return True
            if not data:
                return False
            reader.feed(data)
            self.talked = reader.talked
            if len(data) < _READ:  # it was empty then
                return True
        return True

    def read_pipes(self, *, last: bool = False) -> None:
        """Show what all of its pipes hold; with `last` also unfinished lines."""
        self._unread = 0
        for pipe, reader in self._pipes.items():
            self.read_pipe(pipe)
            if last:
                reader.flush()
