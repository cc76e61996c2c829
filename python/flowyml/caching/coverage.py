"""The parts that the key of a cached step covers, and those that it does not, for `explain(step, cache=True)`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from flowyml.caching.keys import argument_names
from flowyml.diagnostics.text import join_names, pluralize
from flowyml.graph.explain import KeyPart
from flowyml.hashing.code_graph import CodeGraph
from flowyml.hashing.content import UnhashableError, content
from flowyml.hashing.file import File, collected
from flowyml.hashing.fingerprint import covered
from flowyml.planning.call_template import ITEM, PARAM, VALUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.graph.explain import ArgumentSource
    from flowyml.planning.plan import Plan
    from flowyml.steps.cache_policy import CachePolicy

_NEVER = (
    "versions of installed packages",
    "files that are named by a path, databases, URLs",
    "environment variables, the clock, random numbers",
)
_LONGEST_PATH = 4096


class Coverage:
    """The coverage of one step's key.

    Args:
        plan: The plan; it is valid.
        node: The id of the step.
        arguments: The sources of its arguments.

    Attributes:
        parts: The parts that the key covers.
        gaps: Descriptions of everything that may matter and is not covered.
        reason: Why the key cannot be made; `None` if it can.
    """

    def __init__(self, plan: Plan, node: int, arguments: tuple[ArgumentSource, ...]) -> None:
        self._plan, self._node = plan, node
        self._mode: CachePolicy | None = plan.specs[node].options.caching
        self._sources = {argument.parameter: argument.source for argument in arguments}
        self.gaps = list(_NEVER)
        self.reason: str | None = None
        self.parts = tuple(self._parts())

    def _parts(self) -> Iterator[KeyPart]:
        if self._mode is not None and self._mode.function is not None:
            yield KeyPart("function", str(self._mode), "the string that it returns")
            self.gaps = ["everything that this function does not read"]
            return
        yield from self._arguments()
        function = self._plan.specs[self._node].step.func
        if self._mode is not None and self._mode.name == "input_hash" and _name(function) != "<lambda>":
            yield KeyPart("function", str(self._plan.specs[self._node].step.name), "its name, not its code")
            self.gaps.insert(0, "code: that of the step, and what it uses")
            return
        try:
            yield from self._code()
        except UnhashableError as error:
            self.reason = str(error)

    # -- arguments

    def _arguments(self) -> Iterator[KeyPart]:
        template: Any = self._plan.templates[self._node]
        names = argument_names(template, self._plan.specs[self._node])
        for name, (kind, which) in zip(names, template.sources, strict=False):
            if kind == VALUE:
                counts = self._value(name, which)
            elif kind == PARAM:
                counts = self._value(name, self._plan.row(self._node)[which])
            elif kind == ITEM:
                counts = "content of each item"
            else:
                counts = f"content of its value: {self._sources.get(name, 'values of other steps')}"
            yield KeyPart("argument", name, counts)

    def _value(self, name: str, value: Any) -> str:
        """Describe which part of a known value counts."""
        if _is_path_of_a_file(value):
            self.gaps.insert(0, f"the file that argument {name!r} names: give it as flowyml.File({os.fspath(value)!r})")
            return "content: the path as a string"
        try:
            with collected() as files:
                content(value)
        except UnhashableError as error:
            self.reason = f"argument {name!r} cannot be hashed: {error}"
            return "cannot be hashed"
        if not files:
            return "content"
        bytes_of = f"the bytes of {pluralize(len(files), 'file')}: {join_names(sorted(files))}"
        return f"File: path and {bytes_of}" if isinstance(value, File) else f"content, and {bytes_of}"

    # -- code

    def _code(self) -> Iterator[KeyPart]:
        spec, graph = self._plan.specs[self._node], CodeGraph()
        functions = [spec.step.func, *(guard.predicate for guard in spec.options.guards)]
        seen: set[KeyPart] = set()
        for number, function in enumerate(functions):
            yield KeyPart("condition" if number else "function", _name(function), "its code")
            for code in covered(function, graph):
                part = KeyPart(code.kind, code.name, f"{_COUNTS.get(code.kind, 'its code')}; used by {code.owner}")
                if part not in seen:
                    seen.add(part)
                    yield part


_COUNTS = {"value": "content", "installed": "its name", "file": "its code", "files": "their code"}


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", None) or type(function).__qualname__)


def _is_path_of_a_file(value: Any) -> bool:
    """Return whether a value is a path, as a string or an object, of a file that exists now."""
    if isinstance(value, File) or not isinstance(value, (str, os.PathLike)):
        return False
    path = os.fspath(value)
    return len(path) < _LONGEST_PATH and "\0" not in str(path) and os.path.isfile(path)  # noqa: PTH113  no object
