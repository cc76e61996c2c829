"""The fingerprint of a step's function: one hash, and a hash of each part, so that changes can be described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.hashing import blake2b
from flowyml.hashing.code import full_name, innermost, labelled
from flowyml.hashing.code_graph import CodeGraph, kind_of
from flowyml.hashing.content import SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowyml.hashing.code_graph import HashedPart

_SHORT_BYTES = 8


class FunctionFingerprint(NamedTuple):
    """The hash of a function, equal for functions that do the same.

    Attributes:
        parts: A short hash of each part, by its label.
        asks: True if it may call `get_context()`.
    """

    digest: bytes
    parts: dict[str, bytes]
    asks: bool = False


def fingerprint(function: Any, code_graph: CodeGraph | None = None) -> FunctionFingerprint:
    """Return the fingerprint of anything that can be a step.

    Args:
        function: A function, method, partial, class or callable object.
        code_graph: The functions and classes hashed so far.

    Raises:
        UnhashableCodeError: If it cannot be followed, or uses something that cannot be hashed.

    >>> fingerprint(lambda x: x + 1).digest == fingerprint(lambda x: x + 1).digest
    True
    """
    graph, owner = code_graph or CodeGraph(), innermost(function)
    state, parts, asks = blake2b(digest_size=SIZE), {}, False
    for label, part in labelled(function):
        part_hash = graph.part(label, part, owner)
        state.update(label.encode("utf-8", "surrogatepass"))
        state.update(part_hash.digest)
        parts[label] = part_hash.digest[:_SHORT_BYTES]
        asks = asks or part_hash.asks
    return FunctionFingerprint(state.digest(), parts, asks)


class CoveredPart(NamedTuple):
    """A part that the key of a function covers.

    Attributes:
        kind: "function", "class", "module", "file", "files", "value" or "installed"; the last counts by its name.
        name: Its full name; of a value, its label: "global 'RATE'", "default of 'n'".
        owner: Full name of the object that uses it.
    """

    kind: str
    name: str
    owner: str


def covered(function: Any, code_graph: CodeGraph | None = None) -> list[CoveredPart]:
    """Return the parts that the fingerprint of a function covers in addition to the function itself, each once.

    Args:
        function: Anything that can be a step.
        code_graph: The functions and classes hashed so far.

    Raises:
        UnhashableCodeError: If it cannot be followed, or uses something that cannot be hashed.

    >>> [(part.kind, part.name) for part in covered(lambda x, indent=2: x * indent)]
    [('value', "default of 'indent'")]
    """
    graph, owner = code_graph or CodeGraph(), innermost(function)
    parts: dict[CoveredPart, None] = {}
    roots: list[Any] = []
    for label, part in labelled(function):
        graph.part(label, part, owner)
        for hashed in graph.hashed_parts(label, part, owner):
            parts.update(dict.fromkeys(_covered(hashed, full_name(owner))))
            roots += hashed.edges
    for entry in graph.walk(roots):
        for hashed in entry.parts:
            parts.update(dict.fromkeys(_covered(hashed, full_name(entry.obj))))
    return list(parts)


def _covered(part: HashedPart, owner: str) -> Iterator[CoveredPart]:
    yield from (CoveredPart(kind_of(edge), full_name(edge), owner) for edge in part.edges)
    yield from (CoveredPart("installed", name, owner) for name in part.names)
    if not part.edges and not part.names and part.label not in _OWN:
        yield CoveredPart("value", part.label, owner)


_OWN = frozenset(["its code", "its name", "bases"])


def differences(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> Iterator[str]:
    """Yield a description of each part of a function that has changed.

    >>> before, now = {"its code": b"1", "clean()": b"2"}, {"its code": b"1", "clean()": b"3", "half()": b"4"}
    >>> list(differences(before, now))
    ['clean() has changed', 'half() is new']
    """
    for label, digest in now.items():
        if label not in before:
            yield f"{label} is new"
        elif before[label] != digest:
            yield f"{label} has changed"
    yield from (f"{label} is gone" for label in before if label not in now)
