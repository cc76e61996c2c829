"""The fingerprint of a function that is a step: one hash, and the hashes of its parts, so that a change can be told."""

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

_SHORT = 8


class FunctionFingerprint(NamedTuple):
    """What a function comes down to.

    Attributes:
        digest: Equal for functions that do alike.
        parts: A short hash of each part, by its label in words.
        asks: Whether it may call `get_context()`.
    """

    digest: bytes
    parts: dict[str, bytes]
    asks: bool = False


def fingerprint(function: Any, code_graph: CodeGraph | None = None) -> FunctionFingerprint:
    """Return the fingerprint of anything that can be a step.

    Args:
        function: A function, method, partial, class, callable object.
        code_graph: The functions and classes that are known already.

    Raises:
        UnhashableCode: If it cannot be followed, or uses something that cannot be hashed.

    >>> fingerprint(lambda x: x + 1).digest == fingerprint(lambda x: x + 1).digest
    True
    """
    graph, owner = code_graph or CodeGraph(), innermost(function)
    state, parts, asks = blake2b(digest_size=SIZE), {}, False
    for label, part in labelled(function):
        found = graph.part(label, part, owner)
        state.update(label.encode("utf-8", "surrogatepass"))
        state.update(found.digest)
        parts[label] = found.digest[:_SHORT]
        asks = asks or found.asks
    return FunctionFingerprint(state.digest(), parts, asks)


class CoveredPart(NamedTuple):
    """A part that the key of a function covers.

    Attributes:
        kind: "function", "class", "module", "file", "files", "value" or "installed"; the last counts by its name.
        name: Its full name; of a value, what it is in words: "global 'RATE'", "default of 'n'".
        owner: Full name of what uses it.
    """

    kind: str
    name: str
    owner: str


def covered(function: Any, code_graph: CodeGraph | None = None) -> list[CoveredPart]:
    """List what the fingerprint of a function covers in addition to the function itself, each part once.

    Args:
        function: Anything that can be a step.
        code_graph: The functions and classes that are known already.

    Raises:
        UnhashableCode: If it cannot be followed, or uses something that cannot be hashed.

    >>> [(each.kind, each.name) for each in covered(lambda x, indent=2: x * indent)]
    [('value', "default of 'indent'")]
    """
    graph, owner = code_graph or CodeGraph(), innermost(function)
    found: dict[CoveredPart, None] = {}
    roots: list[Any] = []
    for label, part in labelled(function):
        graph.part(label, part, owner)
        for hashed in graph.looked(label, part, owner):
            found.update(dict.fromkeys(_covered(hashed, full_name(owner))))
            roots += hashed.edges
    for entry in graph.walk(roots):
        for hashed in entry.parts:
            found.update(dict.fromkeys(_covered(hashed, full_name(entry.obj))))
    return list(found)


def _covered(part: HashedPart, owner: str) -> Iterator[CoveredPart]:
    yield from (CoveredPart(kind_of(edge), full_name(edge), owner) for edge in part.edges)
    yield from (CoveredPart("installed", name, owner) for name in part.names)
    if not part.edges and not part.names and part.label not in _OWN:
        yield CoveredPart("value", part.label, owner)


_OWN = frozenset(["its code", "its name", "bases"])


def differences(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> Iterator[str]:
    """Say which parts of a function are others now.

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
