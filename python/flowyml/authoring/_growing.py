"""Columns that grow: what is true of a pipeline's steps whoever adds them, and whenever that is interrupted.

```
put, all_or_none ──▶ forms, rows, reads, then the name ──lend()──▶ Columns: they do not change any more
```

Threads add one after the other: columns change with `changing` held alone. A step is added when its name has its
number, which comes last and at once: what Ctrl-C has left in the other columns beyond that is cut off. It knows nothing
of what is in a form.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from flowyml.planning.forms import Columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.planning.forms import Form, Place
    from flowyml.planning.namespaces import Namespace


class Growing:
    """The columns of a pipeline, in add order.

    Attributes:
        numbers: Step names with their numbers.
        forms: How each step was added.
        rows: The values of each step's `params`, as in `Columns`.
        reads: The declared inputs of each step, where they are plain names that differ from step to step.
        namespaces: The sub-pipelines, inner ones before those that they are in.
        parts: Where each sub-pipeline was added.
        lent: Whether a plan reads the columns, so that they must not change.
        changing: Who changes the columns holds it. Its holder may take it again: Ctrl-C may come between taking it and
            the block that gives it back.
    """

    def __init__(self) -> None:
        from flowyml._extension import Names  # `import flowyml` does not come there

        self.numbers = Names()
        self.forms: list[Form] = []
        self.rows: list[Any] = []
        self.reads: list[tuple[str, ...]] = []
        self.namespaces: list[Namespace] = []
        self.parts: dict[str, Place] = {}
        self.lent = False
        self.changing = threading.RLock()
        # While several are added: how many steps, namespaces and parts there were.
        self._before: tuple[int, int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """How many steps and sub-pipelines there are: what changes when something is added."""
        return len(self.forms), len(self.namespaces)

    def lend(self) -> Columns:
        """Return the columns as they are now; they do not change any more."""
        with self.changing:
            self.mend()
            columns = Columns(self.numbers, self.forms, self.rows, self.reads, self.namespaces)
            self.lent = True
        return columns

    def borrow(self, other: Growing) -> None:
        """Begin with the columns of another pipeline as they are now."""
        with other.changing:
            other.lend()
            self.numbers, self.forms, self.rows, self.reads = other.numbers, other.forms, other.rows, other.reads
            self.namespaces, self.parts, self.lent = other.namespaces, dict(other.parts), True

    def put(self, form: Form, name: str, row: Any, reads: tuple[str, ...]) -> bool:
        """Append a step, with `changing` held and the columns `ready`; return `False` if its name is taken."""
        try:
            self.forms.append(form)
            self.rows.append(row)
            self.reads.append(reads)
            if self.numbers.add(name):
                return True
        except BaseException:
            self._cut()
            raise
        self._cut()
        return False

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Let several steps be added: alone, and if that raises, none of them."""
        with self.changing:
            self.ready()
            try:
                self._before = len(self.numbers), len(self.namespaces), len(self.parts)
                yield
                self._before = None
            except BaseException:
                self.mend()
                raise

    def ready(self) -> None:
        """Make the columns ready for another step, with `changing` held: whole, and nobody else's."""
        self.mend()
        if self.lent:
            self.numbers, self.forms = self.numbers.copy(), list(self.forms)
            self.rows, self.reads = list(self.rows), list(self.reads)
            self.namespaces = list(self.namespaces)
            self.lent = False

    def let_go(self) -> None:
        """Mend the columns and give `changing` back, where it is not known whether it is held."""
        with self.changing:
            self.mend()
        with suppress(RuntimeError):  # it is not
            self.changing.release()

    def mend(self) -> None:
        """Take back what was added only in part, where that was interrupted; with `changing` held."""
        if self._before is not None:
            steps, namespaces, parts = self._before
            if len(self.numbers) > steps:
                self.numbers = type(self.numbers)(self.numbers.listed[:steps])
            del self.namespaces[namespaces:]
            while len(self.parts) > parts:
                self.parts.popitem()
            self._before = None
        self._cut()

    def _cut(self) -> None:
        """Cut the other columns where the names end."""
        count = len(self.numbers)
        for column in (self.forms, self.rows, self.reads):
            if len(column) > count:
                del column[count:]
