"""The functions of a run in a worker: each is loaded when the first step that calls it has begun.

```
payload ──set_up──▶ not loaded (`None`) ──load, in a step that is claimed──▶ callable
   │                    ▲            └──▶ failure, which its steps raise       ▲
   │                    └─ next attempt, run ┘                                 │
   └── of modules that are imported already ───────────────────────────────────┘
```

To load one is to run what the user wrote: a module may take long to import, crash, or never end. So the step that
needs it has begun by then: that is the one to blame for a crash, and the one whose time is over. What came by value
comes together, since it shares globals and the values of steps may be made of it.

One that did not load fails its steps, and is tried again where one of them is, and in the next run: whatever was
missing may be there by then; yet a million steps do not import a broken module a million times.
"""

from __future__ import annotations

import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any

from flowyml.executors._processes.crossing.frame import settle
from flowyml.executors._processes.working.functions import LoadFailure, Opened, callable_of, raising

if TYPE_CHECKING:
    from collections.abc import Callable

Function = Any
"""A callable."""


class Functions:
    """The functions of the run that a worker is at.

    Attributes:
        called: What is called for each; `None` for one that is not loaded yet.
        failed: Those that did not load, and are not tried again before `forget_failures`.
    """

    def __init__(self) -> None:
        self.called: list[Function | None] = []
        self.failed: list[int] = []
        self._wrap: Callable[[Function], Function] | None = None
        self._loaded: list[Function | LoadFailure | None] = []
        self._opened: list[tuple[int, Opened]] = []

    def set_up(self, data: bytes) -> None:
        """Take those of another payload in the place of all."""
        self._opened, self._loaded, self.called, self.failed = [], [], [], []
        self._add(Opened(data))

    def begin(self, count: int, wrap: Callable[[Function], Function] | None, error: BaseException | None) -> None:
        """Begin a run with the first of them: others came during the run before.

        Args:
            count: How many they are.
            wrap: Makes what is called of a function, if it is not the function itself.
            error: Why no step can run here.
        """
        self._wrap = wrap
        self.forget_failures()
        del self._loaded[count:], self._opened[1:]
        self.called = [self._wrapped(each) for each in self._loaded] if error is None else [raising(error)] * count

    def add(self, data: bytes, count: int) -> None:
        """Take over those of steps that came during the run."""
        try:
            self._add(Opened(data, further=True))
        except Exception as error:  # noqa: BLE001  the steps fail with it
            self._loaded += [LoadFailure(error)] * count
            self.called += [raising(error)] * count

    def forget_failures(self) -> None:
        """Let what did not load be tried again."""
        if not self.failed:
            return
        for index in self.failed:
            self._loaded[index] = self.called[index] = None
        for _, opened in self._opened:
            opened.forget_failure()
        self.failed.clear()
        importlib.invalidate_caches()  # else a file is not seen that came within the same tick of the clock

    def original(self, index: int) -> Function:
        """Return a function as it was loaded."""
        return self._loaded[index]

    def load(self, index: int) -> Function:
        """Load a function, and return what is called for it."""
        modules = len(sys.modules)
        before = [(first, opened) for first, opened in self._opened if first <= index]
        for first, opened in before:
            if not opened.is_complete:
                opened.load_carried()
                self._fill(first, opened)
        if self.called[index] is None:
            self._take(index, *before[-1])
        if len(sys.modules) != modules:
            settle()
            gc.freeze()  # what was imported until now stays: the collector need not look at it again
        return self.called[index]

    def _add(self, opened: Opened) -> None:
        first = len(self._loaded)
        self._opened.append((first, opened))
        self._loaded += [None] * len(opened)
        self.called += [None] * len(opened)
        if opened.is_complete:
            self._fill(first, opened)

    def _fill(self, first: int, opened: Opened) -> None:
        """Take all that can be had without running anything."""
        for position in range(len(opened)):
            if opened.is_near(position):
                self._take(first + position, first, opened)

    def _take(self, index: int, first: int, opened: Opened) -> None:
        self._loaded[index] = loaded = opened.load(index - first)
        self.called[index] = self._wrapped(loaded)
        if isinstance(loaded, LoadFailure):
            self.failed.append(index)

    def _wrapped(self, loaded: Function | LoadFailure | None) -> Function | None:
        """Return what is called for a function."""
        if loaded is None:
            return None
        called = callable_of(loaded)
        return called if self._wrap is None else self._wrap(called)
