"""The arguments of a step, as they come over the wire, made into objects: each call gets its own."""

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
    """The arguments of a call cannot be had.

    Attributes:
        outcome: What comes of the call.
    """

    def __init__(self, outcome: int, value: Any) -> None:
        super().__init__(outcome, value)
        self.outcome = outcome, value


class ArgumentDecoder:
    """Loads arguments.

    Args:
        shelf: Maps large values.

    Attributes:
        shared: Values that many calls read, by number.
        previous: The value of the last step as it was sent, for a step that is chained to it; `...` if it has none.
    """

    def __init__(self, shelf: ArenaClient) -> None:
        self._shelf = shelf
        self.shared: dict[int, bytes] = {}
        self.previous: Any = ...

    @property
    def must_load(self) -> bool:
        """Whether the value of the last step is there and has to be loaded."""
        return self.previous is not ... and type(self.previous) not in wire.ATOMS

    def load(self, arguments: list[Any], segments: list[bytes]) -> list[Any]:
        """Return the objects of the arguments of one call.

        Raises:
            NotLoadedError: If one does not load, or is the value of the step before, which has none.
        """
        plain = all(type(each) in wire.ATOMS for each in arguments)
        return arguments if plain else self._objects(arguments, segments)

    def _stream(self, values: list[Any], segments: list[bytes]) -> Iterator[Any]:
        """Load values one by one, each when it is asked for, and let go of what it was loaded from.

        Raises:
            ValueLoadError: If one does not load.
        """
        values.reverse()
        for position in range(len(values)):
            each = values.pop()
            encoded = wire.restore(each, segments)
            if wire.is_segment(each):
                segments[each[0]] = b""
            try:
                with loading():
                    value = wire.decode(encoded, load_value, self.shared, self._shelf.load)
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
                        raise ArgumentLoadError(wire.UNCHAINED, None)
                try:
                    encoded = wire.restore(each, segments)
                    objects.append(wire.decode(encoded, load_value, self.shared, self._shelf.load))
                except BaseException as error:
                    reason = f"{type(error).__name__}: {error}"
                    raise ArgumentLoadError(wire.UNLOADABLE, [position, reason]) from error
        return objects
