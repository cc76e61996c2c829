"""What a journal says that a run has finished, by key: each result can be taken once.

A record is a batch of items that have ended: their keys end to end, their values or where these are, and their states.
Payloads are read when a value is taken. The module reads records; `run_journal.py` writes them.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.caching.keys import KeyParts, files_of
from flowyml.caching.lookup import CacheHit, ResultSource
from flowyml.state import CACHED, SKIPPED, SUCCESS
from flowyml.store.journal import LOST, files_hash, payload_size, stored_size
from flowyml.store.serialization import SIZE, decoded
from flowyml.store.value_store import MultiOutput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml.caching.journal_keys import JournalKeys
    from flowyml.runtime.run import Run
    from flowyml.store.journal import Journal

_log = logging.getLogger("flowyml")
RUN, FORM, DONE, RETRY, END, ITEMS, BEGUN = range(7)
"""The kinds of records: the run, the parts of keys, items that have ended, a failed attempt, the end of the run, the
number of items of a mapped step, keys of root steps that are not finished although a step behind them is."""

_PLACE_BITS = 32  # a place is the index of a batch, shifted by so many bits, and the position in it


class JournalBatch(NamedTuple):
    """A record of items that have ended.

    Attributes:
        spec: Number of the `KeyParts` of their keys.
        names: Names of their steps; one name for items of a mapped step.
        keys: Their keys, end to end.
        values: Their values, as they are in the journal.
        states: Their states; `None` if all have succeeded.
        contents: The contents of their arguments, joined; `None` for items of a mapped step.
    """

    spec: int
    names: list[str] | str
    keys: bytes
    values: list[Any]
    states: bytes | None
    contents: list[bytes] | None

    @property
    def is_mapped(self) -> bool:
        """Whether they are items of a mapped step."""
        return isinstance(self.names, str)

    def step_names(self) -> list[str]:
        """Return the name of the step of each item."""
        return [self.names] * len(self.values) if isinstance(self.names, str) else self.names

    def is_skipped(self, position: int) -> bool:
        """Return True if an item was skipped, and has no value."""
        return self.states is not None and self.states[position] == SKIPPED


class StepKeyRecord(NamedTuple):
    """What a step's key was made of.

    Attributes:
        parts: Its parts.
        contents: The contents of its arguments, joined; `None` for a mapped step.
        seed: The seed of its run, whose content follows those of the arguments; `None` without one.
    """

    parts: KeyParts
    contents: bytes | None
    seed: int | None


class StepTally(NamedTuple):
    """How much of a step has ended.

    Attributes:
        mapped: Whether it is a mapped step.
        ended: How many calls have ended.
        skipped: How many of them were skipped.
        lost: How many have a value that could not be stored.
        size: How many bytes the stored values have.
        items: How many items a mapped step has; `None` for another step, or if the journal does not contain it.
        left: How many of them have not ended, as far as the journal says.
    """

    mapped: bool
    ended: int
    skipped: int
    lost: int
    size: int
    items: int | None
    left: int


class JournalIndex:
    """What a run has finished.

    Args:
        journal: Its journal, which is read here.

    Attributes:
        run: `(run id, name of the pipeline, when it began)`; `None` if the journal is empty.
        seed: The seed of its last attempt; `None` without one.
        ended: The state in which the run ended; `None` if it was cut off.
        attempts: For each key how many attempts had failed.
        begun: The keys of root steps that are not finished although a step behind them is.
        count: How many items had ended.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.run: tuple[str, str, float] | None = None
        self.seed: int | None = None
        self.ended: str | None = None
        self.attempts: dict[bytes, int] = {}
        self.begun: set[bytes] = set()
        self.count = 0
        self._items: dict[str, int] = {}
        self._forms: dict[int, bytes] = {}
        self._batches: list[tuple[JournalBatch, int]] = []
        self._seeds: list[int | None] = []  # of each batch
        self._places: dict[bytes, int] = {}
        self._older_places: dict[bytes, list[int]] = {}
        for record in journal.records():
            kind, *rest = record.body
            if kind == DONE:
                self._add(JournalBatch(*rest), record.payload)
            elif kind == FORM:
                self._forms[rest[0]] = rest[1]
            elif kind == RETRY:
                self.attempts[rest[0]] = rest[1]
            elif kind == ITEMS:
                self._items[rest[0]] = rest[1]
            elif kind == BEGUN:
                keys = rest[0]
                self.begun.update(keys[start : start + SIZE] for start in range(0, len(keys), SIZE))
            elif kind == RUN:
                self.run = rest[0], rest[1], rest[2]
                self.seed = rest[3] if len(rest) > 3 else None  # noqa: PLR2004  it is optional
            self.ended = rest[0] if kind == END else None

    def _add(self, batch: JournalBatch, payload: int) -> None:
        places, keys, first = self._places, batch.keys, len(self._batches) << _PLACE_BITS
        for position in range(len(batch.values)):
            key = keys[SIZE * position : SIZE * (position + 1)]
            if key in places:
                self._older_places.setdefault(key, []).append(places[key])
            places[key] = first + position
        self.count += len(batch.values)
        self._batches.append((batch, payload))
        self._seeds.append(self.seed)

    @property
    def next_form(self) -> int:
        """The first number of `KeyParts` that is not used."""
        return max(self._forms, default=-1) + 1

    # -- taking results

    def __bool__(self) -> bool:
        """Return True if there is a result left to take."""
        return bool(self._places)

    def take(self, key: bytes) -> tuple[int, Any, int] | None:
        """Remove the newest result of a key; return its state, its value for `Journal.load`, and its payload offset."""
        place = self._places.pop(key, None)
        if place is None:
            return None
        older = self._older_places.get(key)
        if older:
            self._places[key] = older.pop()
        batch, offset = self._batches[place >> _PLACE_BITS]
        position = place & ((1 << _PLACE_BITS) - 1)
        value = batch.values[position]
        if type(value) is tuple:
            offset += sum(map(payload_size, batch.values[:position]))
        return SUCCESS if batch.states is None else batch.states[position], value, offset

    def has_unchanged_files(self, value: Any, offset: int) -> bool:
        """Return True if the files that a value refers to are unchanged since it was written."""
        expected = files_hash(value)
        try:
            return expected is None or files_of(self._journal.load(value, offset)) == expected
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  it cannot be loaded, or a file is gone
            return False

    def has_ended(self, key: bytes) -> bool:
        """Return True if an item of this key had ended, or had failed and was to be tried again."""
        return key in self._places or key in self.attempts

    def has_started(self, key: bytes) -> bool:
        """Return True in the same cases, and for an unfinished root step if a step behind it had ended."""
        return self.has_ended(key) or key in self.begun

    @property
    def is_unfinished(self) -> bool:
        """Whether there is a result or a failed attempt to continue from."""
        return self.ended != "success" and bool(self.count or self.attempts)

    # -- what there is

    def names(self) -> list[str]:
        """Return the steps with a value, in the order in which they ended."""
        return list(dict.fromkeys(name for name, *_ in self._values()))

    def value_of(self, name: str) -> Any:
        """Return the newest value of a step; for a mapped step, the list of the values of its items that had ended.

        Raises:
            LookupError: If it is damaged.
        """
        is_mapped, values = False, []
        for step, mapped, value, offset in self._values():
            if step == name:
                is_mapped = mapped
                values.append((value, offset))
        loaded = [decoded(self._journal.load(*stored)) for stored in (values if is_mapped else values[-1:])]
        loaded = [each.whole(lambda part: part) if isinstance(each, MultiOutput) else each for each in loaded]
        return loaded if is_mapped else loaded[0]

    def _values(self) -> Iterator[tuple[str, bool, Any, int]]:
        """Yield all values: step, whether it is mapped, value, offset of its payload."""
        for batch, payload in self._batches:
            offset = payload
            for position, (name, value) in enumerate(zip(batch.step_names(), batch.values, strict=True)):
                if not batch.is_skipped(position):
                    yield name, batch.is_mapped, value, offset
                offset += payload_size(value)

    def tallies(self) -> dict[str, StepTally]:
        """Return how much of each step has ended, in the order in which the steps began to end."""
        counts: dict[str, list[int]] = {}  # ended, skipped, lost, size
        current: dict[str, tuple[bytes | None, int]] = {}  # of mapped steps: key parts, items that ended with them
        for batch, _ in self._batches:
            if isinstance(batch.names, str):
                parts, count = self._forms.get(batch.spec), len(batch.values)
                known = current.get(batch.names)
                current[batch.names] = parts, count + (known[1] if known is not None and known[0] == parts else 0)
            for position, (name, value) in enumerate(zip(batch.step_names(), batch.values, strict=True)):
                tally = counts.setdefault(name, [0, 0, 0, 0])
                tally[0] += 1
                tally[1] += batch.is_skipped(position)
                tally[2] += value == LOST
                tally[3] += stored_size(value)
        items = self._items
        left = {name: max(0, items.get(name, 0) - count) for name, (_, count) in current.items()}
        return {
            name: StepTally(name in current, ended, skipped, lost, size, items.get(name), left.get(name, 0))
            for name, (ended, skipped, lost, size) in counts.items()
        }

    def steps(self) -> dict[str, StepKeyRecord]:
        """Return for each step with an item that had ended what its key was made of."""
        specs = {number: KeyParts.unpacked(packed) for number, packed in self._forms.items()}
        steps: dict[str, StepKeyRecord] = {}
        for (batch, _), seed in zip(self._batches, self._seeds, strict=True):
            parts = specs[batch.spec]
            if isinstance(batch.names, str):
                steps[batch.names] = StepKeyRecord(parts, None, seed)
            else:
                contents: Sequence[bytes | None] = batch.contents or [None] * len(batch.names)
                for name, each in zip(batch.names, contents, strict=True):
                    steps[name] = StepKeyRecord(parts, each, seed)
        return steps


class JournalReader(ResultSource):
    """The results of an earlier attempt for the items of a run.

    Args:
        run: The run.
        keys: The keys of its items.
        journal: The journal of the attempt.
        index: What is in the journal.
        only_look: Nothing is to run, so damaged values are not warned of.

    Attributes:
        reused: The items whose results were taken.
        reasons: Items that had ended and run again, with the reason.
        has_common: Whether any item that was looked up is in the journal.
    """

    def __init__(
        self, run: Run, keys: JournalKeys, journal: Journal, index: JournalIndex, *, only_look: bool = False
    ) -> None:
        self._run, self._keys, self._journal, self._index = run, keys, journal, index
        self._only_look = only_look
        self.reused: set[int] = set()
        self.reasons: dict[int, str] = {}
        self.has_common = False

    @property
    def has_entries(self) -> bool:
        """Whether there are results or failed attempts left to take."""
        return bool(self._index or self._index.attempts)

    def lookup(self, items: Sequence[int]) -> dict[int, CacheHit]:
        """Take the results of items; of the others, take over how many attempts had failed."""
        hits: dict[int, CacheHit] = {}
        if self.has_entries:
            for group in self._keys.groups(items):
                for item, key in zip(group, self._keys.of(group), strict=True):
                    self.has_common = self.has_common or self._index.has_started(key)
                    hit = self._take(item, key)
                    if hit is not None:
                        hits[item] = hit
        return hits

    def _take(self, item: int, key: bytes) -> CacheHit | None:
        index = self._index
        if self._is_forced(item):
            if index.has_ended(key):
                self.reasons[item] = "it was to run again"
            return None
        found = index.take(key)
        if found is None:
            failed_attempts = index.attempts.pop(key, 0)
            if failed_attempts and self._run.retries is not None:
                self._run.retries.spend(item, failed_attempts)
            return None
        state, value, offset = found
        if not index.has_unchanged_files(value, offset):
            self.reasons[item] = "a file that it returned has changed"
            return None
        self.reused.add(item)
        return CacheHit(partial(self._load, item, value, offset), SKIPPED if state == SKIPPED else CACHED)

    def _is_forced(self, item: int) -> bool:
        """Return True if an item is to run again: its step was named, or the dynamic step that returned its step."""
        forced = self._run.forced_steps
        if not forced:
            return False
        node, names = self._run.node_of[item], self._run.plan.names
        return node in forced or any(names[node].startswith(f"{names[step]}.") for step in forced)

    def _load(self, item: int, value: Any, offset: int) -> Any:
        try:
            return self._journal.load(value, offset)
        except LookupError as error:
            self.reused.discard(item)
            self.reasons[item] = "its value could not be stored" if value == LOST else "its value is damaged"
            if value != LOST and not self._only_look:
                _log.warning("journal: %s; step %r runs again", error, self._run.item_name(item))
            raise
