"""The Rust core of flowyml, as Python sees it: the reference of the boundary, checked against the binary by stubtest."""

from typing import final

from typing_extensions import Buffer

@final
class ClaimWords:
    """The claim words of worker `index` in a shared, writable buffer: which slots are posted, which begun, since when.

    The driver and the worker each have their own object over the same memory. `take` is the worker's method, all
    others are the driver's; the driver's object remembers what it posted, so there must be one for a worker's life.
    Slots are numbered from 0 and never reused. Post first, then send the frame.

    Args:
        buffer: Writable, contiguous, aligned to 8 bytes (an `mmap`, a `bytearray`), zeroed before the first use; held
            as long as this object lives.
        index: Which `STRIDE` bytes of it.

    Raises:
        BufferError: The buffer is read-only, not contiguous or not aligned.
        IndexError: The buffer is too short.

    >>> memory = bytearray(ClaimWords.STRIDE)
    >>> driver, worker = ClaimWords(memory, 0), ClaimWords(memory, 0)
    >>> driver.post(3)
    0
    >>> worker.take(0, 12.5)
    True
    >>> driver.take_back(1)
    (2, 1)
    >>> worker.take(1, 13.0), worker.take(2, 13.5)
    (True, False)
    >>> driver.begun(), driver.last_claimed()
    ((2, 2, 13.0), 1)
    """

    STRIDE: int
    """Bytes for each worker."""

    def __new__(cls, buffer: Buffer, index: int) -> ClaimWords: ...
    def post(self, count: int) -> int | None:
        """Post `count` slots and return the first; `None` while slots left from before a take-back are not begun."""

    def take(self, slot: int, now: float) -> bool:
        """Begin `slot` at time `now` (seconds of a clock the driver shares); false if it was taken back: skip it."""

    def take_back(self, keep: int) -> tuple[int, int]:
        """Take back all slots not begun but the next `keep`; return the first slot taken and how many (perhaps 0)."""

    def begun(self) -> tuple[int, int, float]:
        """Return (next, end, time): slots below next are begun, those from next to end are posted and not begun.

        The time is that of the claim of `last_claimed()`, to a fraction of a microsecond. It is `inf` while nothing was
        claimed, or where that claim is over and the next one is about to happen.
        """

    def last_claimed(self) -> int | None:
        """Return the greatest slot that was claimed: the one to blame for a death, unless its result is in."""
