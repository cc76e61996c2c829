"""What a journal says that a run has finished: by key, ready to be taken over, each once.

A record is a batch of items that have ended: their keys, end to end, their values or where these are, their states. Of
what stands in payloads nothing is read before it is taken. The module knows records, neither runs nor executors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.reuse.call_keys import Made, files_of
from flowyml.state import SKIPPED, SUCCESS
from flowyml.store.encoding import SIZE, decoded
from flowyml.store.journal import LOST
from flowyml.store.values import Outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml.store.journal import Journal

RUN, FORM, DONE, RETRY, END, ITEMS, BEGUN = range(7)
"""The kinds of records: the run, what keys are made of, items that have ended, an attempt that failed, the end, how
many items a mapped step has, first steps that are not finished though something behind them is."""

_PLACE = 32  # a place is the number of a batch, shifted by so many bits, and the position in it


class Batch(NamedTuple):
    """A record of items that have ended.

    Attributes:
        form: What their keys are made of.
        names: Names of their steps; one name for items of a mapped step.
        keys: Their keys, end to end.
        values: Their values, as they stand in the journal.
        states: Their states; `None` if all have succeeded.
        contents: The contents of their arguments, joined; `None` for items of a mapped step.
    """

    form: int
    names: list[str] | str
    keys: bytes
    values: list[Any]
    states: bytes | None
    contents: list[bytes] | None


class Before(NamedTuple):
    """What a step's key was made of.

    Attributes:
        made: In words.
        contents: The contents of its arguments, joined; `None` for a mapped step.
        seed: The seed under which it ran, whose content stands behind those of the arguments; `None` without one.
    """

    made: Made
    contents: bytes | None
    seed: int | None


class Tally(NamedTuple):
    """What has ended of one step.

    Attributes:
        mapped: Whether it is a mapped one.
        ended: How many calls have ended.
        skipped: How many of them were skipped.
        lost: How many have a value that could not be stored.
        size: How many bytes the values have that are stored with the journal's records.
        items: How many items a mapped step has; `None` for another step, or where the journal does not tell.
        left: How many of them have not ended, as far as the journal tells.
    """

    mapped: bool
    ended: int
    skipped: int
    lost: int
    size: int
    items: int | None
    left: int


class Finished:
    """What a run has finished.

    Args:
        journal: Its journal, which is read here.

    Attributes:
        run: `(run id, name of the pipeline, when it began)`; `None` if nothing is there.
        seed: The seed with which it went on last; `None` without one, or if an older version wrote the journal.
        ended: In which state the run ended; `None` if it was cut off.
        attempts: For each key how many attempts had failed.
        begun: The keys of first steps that had not ended well, although something behind them had.
        count: How many items had ended.
        forms: How many different things keys are made of.
    """

    def __init__(self, journal: Journal) -> None:
        """Read all records."""
        self._journal = journal
        self.run: tuple[str, str, float] | None = None
        self.seed: int | None = None
        self.ended: str | None = None
        self.attempts: dict[bytes, int] = {}
        self.begun: set[bytes] = set()
        self.count = 0
        self._items: dict[str, int] = {}
        self._made: dict[int, bytes] = {}
        self._batches: list[tuple[Batch, int]] = []
        self._seeds: list[int | None] = []  # of each batch
        self._places: dict[bytes, int] = {}
        self._more: dict[bytes, list[int]] = {}
        for record in journal.records():
            kind, *rest = record.body
            if kind == DONE:
                self._add(Batch(*rest), record.payload)
            elif kind == FORM:
                self._made[rest[0]] = rest[1]
            elif kind == RETRY:
                self.attempts[rest[0]] = rest[1]
            elif kind == ITEMS:
                self._items[rest[0]] = rest[1]
            elif kind == BEGUN:
                self.begun.update(_split(rest[0]))
            elif kind == RUN:
                self.run = rest[0], rest[1], rest[2]
                self.seed = rest[3] if len(rest) > 3 else None  # noqa: PLR2004  older versions did not write it
            self.ended = rest[0] if kind == END else None

    @property
    def forms(self) -> int:
        """How many numbers of forms are taken."""
        return max(self._made, default=-1) + 1

    def _add(self, batch: Batch, payload: int) -> None:
        places, keys, first = self._places, batch.keys, len(self._batches) << _PLACE
        for k in range(len(batch.values)):
            key = keys[SIZE * k : SIZE * (k + 1)]
            if key in places:
                self._more.setdefault(key, []).append(places[key])
            places[key] = first + k
        self.count += len(batch.values)
        self._batches.append((batch, payload))
        self._seeds.append(self.seed)

    def take(self, key: bytes) -> tuple[int, Any, int] | None:
        """Return state, value and place of the payload of an item that had ended, the newest of this key, once.

        The value is what `Journal.load` takes.
        """
        place = self._places.pop(key, None)
        if place is None:
            return None
        more = self._more.get(key)
        if more:
            self._places[key] = more.pop()
        batch, payload = self._batches[place >> _PLACE]
        at = place & ((1 << _PLACE) - 1)
        value = batch.values[at]
        if type(value) is tuple:
            payload += sum(_payload_of(each) for each in batch.values[:at])
        return SUCCESS if batch.states is None else batch.states[at], value, payload

    def has_its_files(self, value: Any, at: int) -> bool:
        """Return True if the files that a value refers to are unchanged since it was written.

        Their hash is stored with the value, after the part that `Journal.load` reads.
        """
        if type(value) is not tuple or len(value) <= len(LOST):
            return True
        try:
            found: bytes = value[len(LOST)]
            return files_of(self._journal.load(value, at)) == found
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  it does not load, or a file is gone
            return False

    def knows(self, key: bytes) -> bool:
        """Tell whether an item of this key had ended, or failed and was to be tried again."""
        return key in self._places or key in self.attempts

    def tells_of(self, key: bytes) -> bool:
        """Tell the same, also of a first step that has not ended well, behind which something has."""
        return self.knows(key) or key in self.begun

    @property
    def is_blank(self) -> bool:
        """Whether there never was anything to take, or to know of: what runs next begins as if there was no journal."""
        return not (self.count or self.attempts)

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something to continue."""
        return self.ended != "success" and not self.is_blank

    def names(self) -> list[str]:
        """Return the steps that had ended with a value, or had items that had, in the order in which they did."""
        return list(dict.fromkeys(name for name, *_ in self._values()))

    def value_of(self, name: str) -> Any:
        """Return the newest value of a step; of a mapped one, the list of those of its items that had ended.

        Raises:
            LookupError: If it is damaged.
        """
        mapped, values = False, []
        for each, is_mapped, value, at in self._values():
            if each == name:
                mapped = is_mapped
                values.append((value, at))
        loaded = [_object(self._journal.load(*each)) for each in (values if mapped else values[-1:])]
        return loaded if mapped else loaded[0]

    def _values(self) -> Iterator[tuple[str, bool, Any, int]]:
        """Go through what had ended with a value: step, whether it is a mapped one, value, place of its payload."""
        for batch, payload in self._batches:
            at, mapped = payload, isinstance(batch.names, str)
            names = [batch.names] * len(batch.values) if isinstance(batch.names, str) else batch.names
            for k, value in enumerate(batch.values):
                if batch.states is None or batch.states[k] != SKIPPED:
                    yield names[k], mapped, value, at
                at += _payload_of(value)

    def tallies(self) -> dict[str, Tally]:
        """Return what has ended of each step, in the order in which the first of it did."""
        counts: dict[str, list[int]] = {}
        made: dict[str, bytes | None] = {}
        now: dict[str, int] = {}
        for batch, _ in self._batches:
            mapped = isinstance(batch.names, str)
            names = [batch.names] * len(batch.values) if isinstance(batch.names, str) else batch.names
            if isinstance(batch.names, str):
                if made.get(batch.names) != self._made.get(batch.form):
                    now[batch.names], made[batch.names] = 0, self._made.get(batch.form)
                now[batch.names] += len(batch.values)
            for k, value in enumerate(batch.values):
                tally = counts.setdefault(names[k], [mapped, 0, 0, 0, 0])
                tally[1] += 1
                tally[2] += batch.states is not None and batch.states[k] == SKIPPED
                tally[3] += value == LOST
                tally[4] += value[2] if type(value) is tuple else 0
        items = self._items
        left = {name: max(0, items.get(name, 0) - count) for name, count in now.items()}
        return {
            name: Tally(bool(mapped), ended, skipped, lost, size, items.get(name), left.get(name, 0))
            for name, (mapped, ended, skipped, lost, size) in counts.items()
        }

    def __bool__(self) -> bool:
        """Tell whether there is something left to take."""
        return bool(self._places)

    def steps(self) -> dict[str, Before]:
        """Return for each step that had ended, or had items that had, what its key was made of."""
        made = {number: Made.unpacked(packed) for number, packed in self._made.items()}
        found: dict[str, Before] = {}
        for (batch, _), seed in zip(self._batches, self._seeds, strict=True):
            if isinstance(batch.names, str):
                found[batch.names] = Before(made[batch.form], None, seed)
            else:
                contents: Sequence[bytes | None] = batch.contents or [None] * len(batch.names)
                found.update(
                    (name, Before(made[batch.form], each, seed))
                    for name, each in zip(batch.names, contents, strict=True)
                )
        return found


def _split(keys: bytes) -> Iterator[bytes]:
    return (keys[at : at + SIZE] for at in range(0, len(keys), SIZE))


def _object(raw: Any) -> Any:
    value = decoded(raw)
    return value.whole(lambda part: part) if isinstance(value, Outputs) else value


def _payload_of(value: Any) -> int:
    """Return how many bytes of the payload a value has."""
    return value[2] if type(value) is tuple and value[0] == 0 else 0
