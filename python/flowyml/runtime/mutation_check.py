"""Which steps change their arguments, for `run(debug=True)`.

```
content of each argument ──▶ the step ──▶ content again: differences are logged, once for each argument of a step
```

If steps share their arguments (in this process), other steps see such a change; on worker processes each has its own
copy. Arguments that do not pickle have no content and are not compared. The module knows neither the run nor who calls
the step.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import join_names
from flowyml.hashing.code_graph import CodeGraph
from flowyml.hashing.content import ATOMS, UnhashableError, content

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log = logging.getLogger("flowyml")


class MutationCheck:
    """The changed arguments that were logged in one run."""

    def __init__(self) -> None:
        self._told: set[tuple[int, str]] = set()
        self._code = CodeGraph()

    @contextlib.contextmanager
    def compare_arguments(self, step: str, node: int, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Log which of a step's arguments change in this block."""
        before = {name: self._content(value) for name, value in arguments.items() if type(value) not in ATOMS}
        try:
            yield
        finally:
            found = [name for name, was in before.items() if was is not None and self._content(arguments[name]) != was]
            new = [name for name in found if (node, name) not in self._told]
            if new:
                self._told.update((node, name) for name in new)
                _log.warning(
                    "step %r has changed what it was given as %s: in this process others that read it see the change, "
                    "on worker processes they do not; let it change a copy",
                    step,
                    join_names(new),
                )

    def _content(self, value: Any) -> bytes | None:
        try:
            return content(value, self._code)
        except UnhashableError:
            return None
