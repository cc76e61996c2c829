"""What steps hold that go on in their threads although their run has given them up, for this run and those after it.

```
a step is given up ──add──▶ LeftBehind of the executor ──▶ its own run keeps its tokens out
                               │                     └───▶ each run that begins: as much is withheld from it
its thread ends ──────end──────┘ all of it comes back
```

A thread cannot be stopped: whatever a step has taken is taken until it really ends, however many runs later that is.
Tokens and devices go by name from run to run, since each run numbers its own. Where nothing was left behind, and in
runs whose steps take nothing, all of this is one look at an empty set.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flowyml.messages.words import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowyml._core import Batch
    from flowyml.running.run import Run

# Steps that are named in a warning.
_MOST = 3


class Left:
    """One step that goes on.

    Args:
        home: Where it is noted.
        name: Its name.
        amounts: What it holds: tokens by name.
        devices: On which devices: tokens by name.

    Attributes:
        kept: The run that counts what it holds until it ends, and its batch; `None` if that run is over.
        withheld: Runs after that one, each with the number of what is withheld from it.
    """

    __slots__ = ("_home", "amounts", "devices", "kept", "name", "withheld")

    def __init__(self, home: LeftBehind, name: str, amounts: Mapping[str, int], devices: Mapping[str, int]) -> None:
        """Hold it."""
        self._home = home
        self.name = name
        self.amounts = amounts
        self.devices = devices
        self.kept: tuple[Run, Batch] | None = None
        self.withheld: list[tuple[Run, int]] = []

    def end(self) -> None:
        """It has ended: what it held comes back."""
        self._home.end(self)


class LeftBehind:
    """The steps of one executor that go on."""

    def __init__(self) -> None:
        """There are none."""
        self._lock = threading.Lock()
        self._all: dict[Left, None] = {}

    def add(self, run: Run, batch: Batch, item: int, *, is_over: bool = False) -> Left:
        """Note that a step goes on; whoever calls it has to tell when it ends.

        Args:
            run: Its run.
            batch: What it was claimed with; it has not been reported.
            item: The step.
            is_over: The run ends here: it counts nothing any more.
        """
        amounts, devices = run.sharing.held_by(batch, run.scheduler)
        left = Left(self, run.item_name(item), amounts, devices)
        with self._lock:
            if not is_over:
                run.scheduler.keep_tokens(batch)
                left.kept = run, batch
            self._all[left] = None
        return left

    def end(self, left: Left) -> None:
        """What a step held comes back, to whatever run lacks it."""
        with self._lock:
            del self._all[left]
            if left.kept is not None:
                run, batch = left.kept
                run.scheduler.return_tokens(batch)
            for run, number in left.withheld:
                run.scheduler.restore(number)
            runs = [run for run, _ in left.withheld]
        if left.kept is not None:
            runs.append(left.kept[0])
        for run in runs:
            tell = run.sharing.tokens_are_back  # none any more once the run has ended
            if tell is not None:
                tell()

    @contextmanager
    def withheld_from(self, run: Run) -> Iterator[None]:
        """Withhold from a run, while it runs, what others hold."""
        grows = run.layout.grows
        if not self._all or not (run.sharing.is_used or grows):
            yield
            return
        lacking = []
        with self._lock:
            for left in self._all:
                number = run.sharing.withhold(left.amounts, left.devices, run.scheduler, grows=grows)
                if number is not None:
                    left.withheld.append((run, number))
                    lacking.append(left)
        if lacking:
            _warn(run, lacking)
        try:
            yield
        finally:
            with self._lock:
                for left in lacking:
                    left.withheld = [each for each in left.withheld if each[0] is not run]


def _warn(run: Run, lacking: list[Left]) -> None:
    import logging  # it comes with the package, and logging takes milliseconds

    logging.getLogger("flowyml").warning(
        "pipeline %r: some of what its executor has is still taken, by steps of earlier runs that go on in their "
        "threads until they end: %s; what needs it waits (on another executor it does not)",
        run.plan.name,
        listed([left.name for left in lacking], _MOST),
    )
