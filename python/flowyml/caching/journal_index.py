"""What a journal says that a run has finished: by key, ready to be taken over, each once.

A record is a batch of items that have ended: their keys, end to end, their values or where these are, their states. Of
what stands in payloads nothing is read before it is taken. The module knows records, neither runs nor executors.

First steps of a run that its journal would not tell of, although what came after them is finished.

```
a failed item         has no value that could be taken over, but a join, or a reader of its map task, has
a dynamic step        is called anew with what its pipeline gave; the steps of that pipeline are finished
```

The next run looks for its first steps in the journal, to see whether it has anything in common with it. So the key of
such a step is written down, once, as soon as something behind it has been; alone it is nothing to continue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.caching.keys import KeyParts, files_of
from flowyml.state import SKIPPED, SUCCESS
from flowyml.store.journal import LOST
from flowyml.store.serialization import SIZE, decoded
from flowyml.store.value_store import MultiOutput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flowyml.caching.journal_keys import JournalKeys
    from flowyml.runtime.run import Run
    from flowyml.store.journal import Journal


class RootStepTracker:
    """The first steps of one run that have ended without being finished.

    Args:
        run: The run.
        keys: The keys of its items.
    """

    def __init__(self, run: Run, keys: JournalKeys) -> None:
        self._run = run
        self._keys = keys
        self._dynamic: dict[int, bytes] = {}  # the keys of dynamic steps as they are before they return a pipeline
        self._open: dict[int, list[int]] = {}
        self._came_from: dict[int, int] = {}
        self._rests: dict[int, bool] = {}
        self._seen: set[int] = set()

    def prepare(self) -> None:
        """Take in the dynamic steps among the first ones, before anything runs."""
        plan = self._run.plan
        if plan.is_dynamic:
            firsts, first = self._run.layout.firsts, filter(self._is_first, plan.dynamic_steps())
            self._dynamic = {node: self._keys.key(firsts[node]) for node in first}
            self._run.on_plan_change(self._grow)

    def failed(self, item: int) -> None:
        """Take in that an item has failed for good."""
        node = self._run.node_of[item]
        if node in self._open or self._is_first(node):
            self._open.setdefault(node, []).append(item)

    def behind(self, items: Iterable[int]) -> bytes:
        """Return the keys of those behind which these items have ended, each once, end to end.

        An item that rests on a finished first step, too, is found by that one: if it has changed, so has the item.
        """
        if not self._open:
            return b""
        nodes = {self._run.node_of[item] for item in items}
        reached = self._reached([node for node in nodes if not self._rests_on_finished(node)])
        return b"".join(key for node in reached for key in self._keys_of(node, self._open.pop(node)))

    def _grow(self, nodes: Sequence[int]) -> None:
        """Take in steps that came during the run: the last of these is the one that they came from."""
        *new, node = nodes
        self._came_from.update(dict.fromkeys(new, node))
        if node in self._dynamic:
            self._open.setdefault(node, [])

    def _keys_of(self, node: int, items: Sequence[int]) -> Sequence[bytes]:
        return [self._dynamic[node]] if node in self._dynamic else [self._keys.key(item) for item in items]

    def _is_first(self, node: int) -> bool:
        """Tell whether a step waits for nothing, as far as was known before the run."""
        plan, layout = self._run.plan, self._run.plan.layout
        return node < layout.nodes and not any(
            each in layout.waiting or layout.items_of(each) for each in plan.graph.dependencies(node)
        )

    def _rests_on_finished(self, node: int) -> bool:
        """Tell whether a step that has ended well is a first one, or has a first one before it that is finished."""
        known, todo = self._rests, [node]
        while todo:
            each = todo[-1]
            before = self._before(each)
            left = [other for other in before if other not in known]
            if left and each not in known:
                todo += left
                continue
            todo.pop()
            if each not in known:
                known[each] = any(map(known.__getitem__, before)) or self._is_finished(each)
        return known[node]

    def _is_finished(self, node: int) -> bool:
        """Tell whether something of a first step has ended well, now that something behind it has."""
        if node in self._dynamic or not self._is_first(node):
            return False
        return len(self._open.get(node, ())) < len(self._run.layout.items_of(node))

    def _before(self, node: int) -> list[int]:
        """Return the steps that a step came after: what it waited for, and the dynamic step that it came from."""
        came_from = self._came_from
        before = [each for each in self._run.plan.waits_for(node) if came_from.get(each) != node]
        return [*before, came_from[node]] if node in came_from else before

    def _reached(self, todo: list[int]) -> Iterator[int]:
        """Go back from steps, along each once, to the open ones."""
        while todo:
            node = todo.pop()
            if node in self._open:
                yield node
            elif node not in self._seen:
                self._seen.add(node)
                todo += self._before(node)


RUN, FORM, DONE, RETRY, END, ITEMS, BEGUN = range(7)
"""The kinds of records: the run, what keys are made of, items that have ended, an attempt that failed, the end, how
many items a mapped step has, first steps that are not finished though something behind them is."""

_PLACE = 32  # a place is the number of a batch, shifted by so many bits, and the position in it


class JournalBatch(NamedTuple):
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


class StepKeyRecord(NamedTuple):
    """What a step's key was made of.

    Attributes:
        made: In words.
        contents: The contents of its arguments, joined; `None` for a mapped step.
        seed: The seed under which it ran, whose content stands behind those of the arguments; `None` without one.
    """

    made: KeyParts
    contents: bytes | None
    seed: int | None


class StepTally(NamedTuple):
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


class JournalIndex:
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
        self._batches: list[tuple[JournalBatch, int]] = []
        self._seeds: list[int | None] = []  # of each batch
        self._places: dict[bytes, int] = {}
        self._more: dict[bytes, list[int]] = {}
        for record in journal.records():
            kind, *rest = record.body
            if kind == DONE:
                self._add(JournalBatch(*rest), record.payload)
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

    def _add(self, batch: JournalBatch, payload: int) -> None:
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

    def tallies(self) -> dict[str, StepTally]:
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
            name: StepTally(bool(mapped), ended, skipped, lost, size, items.get(name), left.get(name, 0))
            for name, (mapped, ended, skipped, lost, size) in counts.items()
        }

    def __bool__(self) -> bool:
        """Tell whether there is something left to take."""
        return bool(self._places)

    def steps(self) -> dict[str, StepKeyRecord]:
        """Return for each step that had ended, or had items that had, what its key was made of."""
        made = {number: KeyParts.unpacked(packed) for number, packed in self._made.items()}
        found: dict[str, StepKeyRecord] = {}
        for (batch, _), seed in zip(self._batches, self._seeds, strict=True):
            if isinstance(batch.names, str):
                found[batch.names] = StepKeyRecord(made[batch.form], None, seed)
            else:
                contents: Sequence[bytes | None] = batch.contents or [None] * len(batch.names)
                found.update(
                    (name, StepKeyRecord(made[batch.form], each, seed))
                    for name, each in zip(batch.names, contents, strict=True)
                )
        return found


def _split(keys: bytes) -> Iterator[bytes]:
    return (keys[at : at + SIZE] for at in range(0, len(keys), SIZE))


def _object(raw: Any) -> Any:
    value = decoded(raw)
    return value.whole(lambda part: part) if isinstance(value, MultiOutput) else value


def _payload_of(value: Any) -> int:
    """Return how many bytes of the payload a value has."""
    return value[2] if type(value) is tuple and value[0] == 0 else 0
