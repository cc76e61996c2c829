"""The contents of a run's values, for the keys of what reads them.

A content comes with the value where that is possible: a process worker hashes what it returns, a cached value has it in
its entry. It does not if classes or functions of the user's are in the value: what these reach is known only here, and
may have changed since the value was stored. Then it is computed here, when the first key needs it. The content of a
list of values is computed from their contents, so that a list of a million is never built for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml.keys.code_graph import CodeGraph
from flowyml.keys.content import HOLDS_FILES, Unhashable, content, plain_content
from flowyml.reuse.call_keys import combined
from flowyml.store.arenas import ENCODED
from flowyml.store.encoding import decoded
from flowyml.store.values import MISSING, Gather, Items, Output, Outputs, bare, parts_of

if TYPE_CHECKING:
    from flowyml.running.run import Run
    from flowyml.store.values import Reference

Content: TypeAlias = "bytes | list[bytes]"
"""Of one value, or of each declared output of a step with several."""


class ValueContents:
    """The contents of the values of one run.

    Args:
        run: The run.

    Attributes:
        code_graph: The code that is known already: of steps, and of classes and functions in values.
        with_code: Items with such values, among those that were examined here.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[int, Content] = {}
        self.code_graph = CodeGraph()
        self.with_code: set[int] = set()

    def note(self, item: int, found: Content) -> None:
        """Take in the content of an item's value."""
        self._known[item] = found

    def of_item(self, item: int) -> Content:
        """Return the content of an item's value.

        Raises:
            Unhashable: If it has none.
        """
        found = self._known.get(item)
        if found is None:
            found = self._known[item] = self._found(item, self._run.values.raw[item])
        return found

    def forget_files(self) -> None:
        """Forget the contents of values with files in them, so that the files are read again."""
        raw = self._run.values.raw
        for item, found in list(self._known.items()):
            parts = found if isinstance(found, list) else [found]
            if raw[item] is not MISSING and any(part.startswith(HOLDS_FILES) for part in parts):
                del self._known[item]

    def _found(self, item: int, raw: Any) -> Content:
        if isinstance(raw, Outputs):
            return [self._of_part(item, part) for part in raw.parts]
        return self._of_part(item, raw)

    def _of_part(self, item: int, raw: Any) -> bytes:
        if type(raw) not in ENCODED or not self._run.encodes:
            return self._of_value(item, raw)
        try:
            value = decoded(raw)
        except (Exception, SystemExit, GeneratorExit) as error:
            raise Unhashable(f"it does not load: {type(error).__name__}: {error}") from error
        return self._of_value(item, value)

    def _of_value(self, item: int, value: Any) -> bytes:
        found = plain_content(value)
        if found is None:
            self.with_code.add(item)
            found = content(value, self.code_graph)
        return found

    def of(self, reference: Reference) -> bytes | None:
        """Return what stands in a key for what a reference points at; `None` where there is nothing.

        Raises:
            Unhashable: If a value has no content.
        """
        if isinstance(reference, int):
            found = self.of_item(reference)
            return combined(found) if isinstance(found, list) else found
        if isinstance(reference, Output):
            return self.of_item(reference.item)[reference.part]  # type: ignore[return-value]  # it has several
        if isinstance(reference, Items):
            return combined([self._present(item) or b"-" for item in self._run.layout.items_of(reference.node)])
        if isinstance(reference, Gather):
            return combined([self.of(each) or b"-" for each in reference.references])
        return self._present(bare(reference))

    def _present(self, reference: Any) -> bytes | None:
        """Return the content of `Present` references: `None` without a value, lists without missing values."""
        if isinstance(reference, Items):
            return self.of(reference) if self._run.values.is_whole(reference.node) else None
        parts = parts_of(reference, self._run.layout)
        if parts is None:
            return self.of(reference) if self._run.values.has(reference) else None
        return combined([part for part in map(self._present, parts) if part is not None])
