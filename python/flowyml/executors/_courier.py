"""A thread that reports for one that is in a step: what has ended before counts, however long the step takes.

Only for runs that write down what has ended. Else a report may wait for the end of its batch. It also has that written
which the loop has reported by itself and noted.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from flowyml.executors._claimed import Claimed
    from flowyml.running.run import Run

EVERY = 0.02
"""How many seconds pass before it looks again."""

PATIENCE = 0.005
"""Who has ended a step more recently than this will report by itself."""


class Courier:
    """Reports, now and then, what a thread has done of a batch.

    Args:
        run: The run.
        claimed: What the thread has claimed.
    """

    def __init__(self, run: Run, claimed: Claimed) -> None:
        self._run = run
        self._claimed = claimed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, name="flowyml-courier", daemon=True)

    def _go(self) -> None:
        while not self._over.wait(EVERY):
            _, failed = self._claimed.deliver(self._run, patience=PATIENCE)
            if failed and self._run.fail_fast:
                self._claimed.take_back(self._run, everything=True)
            self._run.write()

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; what is left the thread itself reports."""
        self._over.set()
        self._thread.join()
