"""Step table: the columns of a pipeline's steps, in add order.

```
append, transaction ──▶ forms, rows, reads, then the name ──freeze()──▶ StepColumns: they do not change any more
```

A step exists once its name is in the table of names, which is written last and at once: `rollback` cuts off whatever an
interrupt (Ctrl-C) has left in the other columns. A plan reads the columns without a copy; the next step that is added
leaves them to the plan and continues with a copy (copy on write). The table does not know how a `StepSpec` is made
(`builder.py`) or bound (`planning/`).
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import did_you_mean
from flowyml.errors import PipelineValidationError
from flowyml.planning.step_spec import StepColumns
from flowyml.steps.declarations import NameHandle, checked_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.planning.namespaces import Namespace
    from flowyml.planning.step_spec import SourceLocation, StepSpec

NOTHING: tuple[Any, ...] = ()

# What IPython calls the file of a cell, alone and in a notebook.
_CELL = r"^<ipython|[/\\]ipykernel_\d+[/\\]"


class StepTable:
    """The steps of a pipeline.

    Args:
        pipeline: Name of the pipeline, for messages.

    Attributes:
        numbers: Step names with their ids.
        specs: How each step was added.
        rows: The values of each step's `params`; see `StepColumns`.
        reads: The declared inputs of each step, if they are plain names that differ from step to step.
        namespaces: The sub-pipelines, inner ones before those that contain them.
        parts: Where each sub-pipeline was added.
        is_shared: Whether a plan reads the columns, so that they must not change.
        lock: Held by the thread that changes the columns. Reentrant, since Ctrl-C may come between `acquire` and the
            block that releases it.
    """

    def __init__(self, pipeline: str) -> None:
        from flowyml._extension import NameIndex  # `import flowyml` does not need it

        self.pipeline = pipeline
        self.numbers = NameIndex()
        self.specs: list[StepSpec] = []
        self.rows: list[Any] = []
        self.reads: list[tuple[str, ...]] = []
        self.namespaces: list[Namespace] = []
        self.parts: dict[str, SourceLocation] = {}
        self.is_shared = False
        self.lock = threading.RLock()
        self._before: tuple[int, int, int] | None = None  # counts of steps, namespaces and parts before a transaction
        self._producers: dict[str, int] = {}
        self._indexed = 0

    @property
    def size(self) -> tuple[int, int]:
        """The number of steps and of sub-pipelines: changes with each addition."""
        return len(self.specs), len(self.namespaces)

    def freeze(self) -> StepColumns:
        """Return the columns as they are now; they are not changed any more."""
        with self.lock:
            self.rollback()
            columns = StepColumns(self.numbers, self.specs, self.rows, self.reads, self.namespaces)
            self.is_shared = True
        return columns

    def copy(self) -> StepTable:
        """Return a table with the same steps, to which others may be added."""
        other = StepTable(self.pipeline)
        with self.lock:
            self.freeze()
            other.numbers, other.specs, other.rows, other.reads = self.numbers, self.specs, self.rows, self.reads
            other.namespaces, other.parts, other.is_shared = self.namespaces, dict(self.parts), True
        return other

    def append(self, spec: StepSpec, name: Any = None, row: Any = NOTHING, reads: tuple[str, ...] = NOTHING) -> None:
        """Append a step.

        Args:
            spec: How it was added.
            name: Its name; that of the form's step if it is `None`.
            row: The values of its `params`, packed.
            reads: Its inputs, if they differ from step to step.

        Raises:
            PipelineValidationError: If the name is taken.
            TypeError: If it has no name.
        """
        if type(name) is not str or not name:
            name = name_of(spec) if name is None else checked_text("the name of a step", name)
        with self.lock:
            self.ensure_writable()
            self.insert(spec, name, row, reads)

    def insert(self, spec: StepSpec, name: str, row: Any = NOTHING, reads: tuple[str, ...] = NOTHING) -> None:
        """Append a step to columns that are writable, with `lock` held; see `append`."""
        try:
            self.specs.append(spec)
            self.rows.append(row)
            self.reads.append(reads)
            is_new = self.numbers.add(name)
        except BaseException:
            self._trim()
            raise
        if not is_new:
            self._trim()
            taken = _name_taken(name, self.specs[self.numbers[name]].place, spec.place)
            raise PipelineValidationError([taken], self.pipeline)

    def extend(self, name: str, columns: StepColumns, place: SourceLocation) -> None:
        """Append the steps of a sub-pipeline, within a transaction.

        Raises:
            PipelineValidationError: If another sub-pipeline has this name, or a step the name of one of the new steps.
        """
        taken = None
        if (other := self.parts.get(name)) is not None:
            taken = _name_taken(name, other, place, "sub-pipeline")
        elif (step := next((name for name in columns.names if name in self.numbers), None)) is not None:
            taken = _name_taken(step, self.specs[self.numbers[step]].place, place)
        if taken is not None:
            raise PipelineValidationError([taken], self.pipeline)
        self.parts[name] = place
        self.specs.extend(columns.specs)
        self.rows.extend(columns.rows)
        self.reads.extend(columns.reads)
        self.namespaces.extend(columns.namespaces)
        for step in columns.names:
            self.numbers.add(step)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Add several steps without steps of other threads between them; if the block raises, add none."""
        with self.lock:
            self.ensure_writable()
            try:
                self._before = len(self.numbers), len(self.namespaces), len(self.parts)
                yield
                self._before = None
            except BaseException:
                self.rollback()
                raise

    def ensure_writable(self) -> None:
        """Roll back, and copy columns that a plan reads; with `lock` held, outside of a transaction."""
        self.rollback()
        if self.is_shared:
            self.numbers, self.specs = self.numbers.copy(), list(self.specs)
            self.rows, self.reads = list(self.rows), list(self.reads)
            self.namespaces = list(self.namespaces)
            self.is_shared = False

    def rollback(self) -> None:
        """Remove steps that were added only in part, or by an unfinished transaction; with `lock` held."""
        if self._before is not None:
            steps, namespaces, parts = self._before
            if len(self.numbers) > steps:
                self.numbers = type(self.numbers)(self.numbers.listed[:steps])
            del self.namespaces[namespaces:]
            while len(self.parts) > parts:
                self.parts.popitem()
            self._before = None
        self._trim()

    def release(self) -> None:
        """Roll back and release `lock` if this thread holds it."""
        with self.lock:
            self.rollback()
        with suppress(RuntimeError):  # it does not
            self.lock.release()

    def _trim(self) -> None:
        count = len(self.numbers)
        for column in (self.specs, self.rows, self.reads):
            if len(column) > count:
                del column[count:]

    def handle(self, name: Any) -> NameHandle:
        """Return a name as a handle.

        Raises:
            KeyError: If no step or asset has it, with near matches.
        """
        handle = self.find(name) if isinstance(name, str) else None
        if handle is None:
            known = [*self.numbers, *self._producers, *self.parts]
            raise KeyError(f"no step or asset {name!r} in pipeline {self.pipeline!r}{did_you_mean(str(name), known)}")
        return handle

    def find(self, name: str) -> NameHandle | None:
        """Return a name as a handle; `None` if no step, asset or sub-pipeline has it."""
        node = self.numbers.get(name)
        if node is not None:
            return NameHandle(name, name, self.specs[node].outputs or (name,))
        with self.lock:
            self.rollback()
            while self._indexed < len(self.specs):
                for asset in self.specs[self._indexed].outputs:
                    self._producers.setdefault(asset, self._indexed)
                self._indexed += 1
        if name in self._producers:
            node = self._producers[name]
            return NameHandle(name, next(step for step, number in self.numbers.items() if number == node), (name,))
        if name in self.parts:
            return NameHandle(name, name, ())
        exporting = (part for part in self.namespaces if part.outer is None and name in part.exports.values())
        return next((NameHandle(name, part.name, (name,)) for part in exporting), None)


def name_of(spec: StepSpec) -> str:
    """Return the name of a step that is added without one.

    Raises:
        TypeError: If its function has no name either.
    """
    if spec.step.name:
        return spec.step.name
    raise TypeError(f"{spec.step.func!r:.100} has no name of its own; give it one: add_step(..., name=...)")


def _name_taken(name: str, first: SourceLocation, second: SourceLocation, what: str = "step") -> str:
    message = f"{what} {name!r} was added already at {first}, and again at {second}"
    in_notebook = "in a notebook re-create the Pipeline in the same cell"
    if first == second:
        way = f'name=f"{name}_{{i}}"{", or pipeline.map(step, items)" if what == "step" else ""}'
        return f"{message}, which is the same line; in a loop give each its own name, as in {way}; {in_notebook}"
    if re.search(_CELL, first.code.co_filename):
        return f"{message}; give each its own name=, or {in_notebook}"
    return f"{message}; give one of them another name="
