"""The fingerprint of a function that is a step: one hash, and the hashes of its parts, so that a change can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml._digests import blake2b
from flowyml._tuples import NamedTuple
from flowyml.keys.code import labelled
from flowyml.keys.content import SIZE, code_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowyml.keys.content import Known

_SHORT = 8


class Fingerprint(NamedTuple):
    """What a function comes down to.

    Attributes:
        digest: Equal for functions that do alike.
        parts: A short hash of each part, by its label in words.
    """

    digest: bytes
    parts: dict[str, bytes]


def fingerprint(function: Any, known: Known) -> Fingerprint:
    """Return the fingerprint of anything that can be a step.

    Args:
        function: A function, method, partial, class, callable object.
        known: As for `content.content`.

    >>> fingerprint(lambda x: x + 1, {}).digest == fingerprint(lambda x: x + 1, {}).digest
    True
    """
    state, parts = blake2b(digest_size=SIZE), {}
    for label, part in labelled(function):
        digest = code_digest(part, known)
        state.update(label.encode())
        state.update(digest)
        parts[label] = digest[:_SHORT]
    return Fingerprint(state.digest(), parts)


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
