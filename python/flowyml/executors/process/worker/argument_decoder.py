"""Loads the arguments of steps from messages; each call gets its own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.errors import ValueLoadError
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.value_pickle import load_value
from flowyml.import_guard import loading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.executors.process.worker.arena_client import ArenaClient


class ArgumentLoadError(Exception):
    """The arguments of a call cannot be loaded.

    Attributes:
        outcome: The outcome of the call.
    """

    def __init__(self, outcome: int, value: Any) -> None:
        super().__init__(outcome, value)
        self.outcome = outcome, value


class ArgumentDecoder:
    """Loads arguments.

    Attributes:
        shared: Values that many calls read, by id.
        previous: The encoded value of the last step, for a step that is chained to it; `...` if it has none.
    """

    def __init__(self, arenas: ArenaClient) -> None:
        self._arenas = arenas
        self.shared: dict[int, bytes] = {}
        self.previous: Any = ...

    @property
    def must_load(self) -> bool:
        """True if the value of the last step has to be loaded."""
        return self.previous is not ... and type(self.previous) not in wire.ATOMS

    def load(self, arguments: list[Any], segments: list[bytes]) -> list[Any]:
        """Return the arguments of one call. Raises ArgumentLoadError."""
        plain = all(type(each) in wire.ATOMS for each in arguments)
        return arguments if plain else self._objects(arguments, segments)

    def _stream(self, values: list[Any], segments: list[bytes]) -> Iterator[Any]:
        """Load values when they are requested, and release their pickles. Raises ValueLoadError."""
        values.reverse()
        for position in range(len(values)):
            each = values.pop()
            encoded = wire.insert_segments(each, segments)
            if wire.is_segment(each):
                segments[each[0]] = b""
            try:
                with loading():
                    value = wire.decode(encoded, load_value, self.shared, self._arenas.load)
            except (Exception, SystemExit, GeneratorExit) as error:
                reason = f"{type(error).__name__}: {error}"
                raise ValueLoadError(f"item {position} of a list", reason) from error
            del each, encoded
            yield value
            del value

    def _objects(self, arguments: list[Any], segments: list[bytes]) -> list[Any]:
        objects = []
        with loading():
            for position, each in enumerate(arguments):
                if wire.is_stream(each):
                    objects.append(self._stream(each[0], segments))
                    continue
                if each is ...:
                    each = self.previous  # noqa: PLW2901  the value of the step before
                    if each is ...:
                        raise ArgumentLoadError(wire.CHAIN_BROKEN, None)
                try:
                    encoded = wire.insert_segments(each, segments)
                    objects.append(wire.decode(encoded, load_value, self.shared, self._arenas.load))
                except BaseException as error:
                    reason = f"{type(error).__name__}: {error}"
                    raise ArgumentLoadError(wire.UNLOADABLE, [position, reason]) from error
        return objects
