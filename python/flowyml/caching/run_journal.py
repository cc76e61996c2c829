"""The journal of one run: what has ended is written down, and what an earlier attempt has finished is taken over.

```
Attempt ──▶ Resuming, a memory of `recall.py` ── find: by key, among what is finished
                                              └─ keep: a record for each batch, before the run counts it as done
```

A run that ends well leaves nothing. When the disk fails, that is said once, and the run goes on: what is in the journal
until then is true and stays. The module does not know where steps run.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml.caching.journal_index import BEGUN, DONE, END, FORM, ITEMS, RETRY, RootStepTracker
from flowyml.caching.journal_keys import JournalKeys
from flowyml.caching.keys import files_of, holds_files
from flowyml.caching.lookup import CacheHit
from flowyml.caching.resume_summary import ResumeSummary
from flowyml.caching.write_buffer import WriteBuffer
from flowyml.diagnostics.text import truncate
from flowyml.errors import SerializationError, StoreError
from flowyml.hashing.code_graph import UnhashableCodeError
from flowyml.hashing.content import UnhashableError
from flowyml.hashing.file import MARK, collected
from flowyml.state import CACHED, FAILED, SKIPPED, SUCCESS, TIMED_OUT
from flowyml.store.journal import LOST, is_atom
from flowyml.store.serialization import ATOMS, encoded, packed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml.caching.journal_index import JournalIndex
    from flowyml.caching.resumable_runs import ResumableRun, ResumableRuns
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.run import Run

_log = logging.getLogger("flowyml")
_TROUBLE = (OSError, StoreError)
_AT_ONCE = 4096
_WELL = bytes([SUCCESS])
ANEW = "it was to run again"
CHANGED = "a file that it returned has changed"


def is_anew(run: Run, item: int) -> bool:
    """Tell whether an item is to run again: its step was named, or the dynamic step that it came from."""
    if not run.forced_steps:
        return False
    node, names = run.node_of[item], run.plan.names
    return node in run.forced_steps or any(names[node].startswith(f"{names[each]}.") for each in run.forced_steps)


class RunJournal:
    """The journal of one run; a memory of `recall.py`.

    Args:
        run: The run.
        attempt: Its folder and journal.
        attempts: Where a new one comes from, if this one has nothing in common with the run.

    Attributes:
        keys: The keys of its items.
    """

    def __init__(self, run: Run, attempt: ResumableRun, attempts: ResumableRuns) -> None:
        self._run = run
        self._attempt = attempt
        self._attempts = attempts
        self.keys = JournalKeys(run, self._cannot_hash)
        self._lock = threading.RLock()
        self._begun = RootStepTracker(run, self.keys)
        self._held = WriteBuffer(self._lock, self._write_all)
        self._off = False
        self._taken: set[int] = set()
        self._again: dict[int, str] = {}
        self._forms: dict[int, int] = {}
        self._counted: set[int] = set()
        self._next_form = attempt.finished.forms
        self._warned: set[int] = set()
        self._written = 0
        run.run_id = attempt.run_id

    @property
    def looks(self) -> bool:
        """Whether there is something to take over."""
        return bool(self._finished or self._finished.attempts)

    @property
    def _finished(self) -> JournalIndex:
        return self._attempt.finished

    # -- taking over

    def find(self, items: Sequence[int]) -> dict[int, CacheHit]:
        """Return what earlier attempts have finished of these items."""
        with self._lock:
            found: dict[int, CacheHit] = {}
            if self._finished or self._finished.attempts:
                for stretch in self.keys.stretches(items):
                    for item, key in zip(stretch, self.keys.of(stretch), strict=True):
                        self._find(item, key, found)
            return found

    def _find(self, item: int, key: bytes, found: dict[int, CacheHit]) -> None:
        if is_anew(self._run, item):
            if self._finished.knows(key):
                self._again[item] = ANEW
            return
        taken = self._finished.take(key)
        if taken is not None:
            state, value, at = taken
            if not self._finished.has_its_files(value, at):
                self._again[item] = CHANGED
                return
            self._taken.add(item)
            found[item] = CacheHit(partial(self._load, item, value, at), SKIPPED if state == SKIPPED else CACHED)
            return
        spent = self._finished.attempts.pop(key, 0)
        if spent and self._run.retries is not None:
            self._run.retries.spend(item, spent)

    def _load(self, item: int, value: Any, at: int) -> Any:
        try:
            return self._attempt.journal.load(value, at)
        except LookupError as error:
            self._taken.discard(item)
            self._again[item] = "its value could not be stored" if value == LOST else "its value is damaged"
            if value != LOST:
                _log.warning("journal: %s; step %r runs again", error, self._run.item_name(item))
            raise

    def prepare(self) -> None:
        """A run that nobody asked for is continued only if it has something in common with this one."""
        self.keys.look_ahead()
        self._begun.prepare()
        if self._attempt.tentative:
            asked, roots = self._attempt, list(self._roots())
            if not self._has(self._attempt, roots):
                asked.leave()
                self._change_to(self._attempts.next(lambda each: self._has(each, roots)), asked)
        if not self._off:
            self._guarded(self._attempt.begin, self._run.seed)

    def _roots(self) -> Iterator[bytes]:
        """Go through the keys of the items that are ready first: before them nothing had ended, well or not."""
        scheduler = self._run.scheduler
        held = []
        while (batch := scheduler.claim(0, _AT_ONCE, time.monotonic())) is not None:
            held.append(batch)
            for stretch in self.keys.stretches(batch.items()):
                yield from self.keys.of(stretch)
        for batch in reversed(held):
            scheduler.give_back(batch, 0, len(batch))

    @staticmethod
    def _has(attempt: ResumableRun, roots: list[bytes]) -> bool:
        return any(map(attempt.finished.tells_of, roots))

    def _change_to(self, attempt: ResumableRun | None, before: ResumableRun) -> None:
        if attempt is None:
            self._off = True
            return
        self._attempt, self._run.run_id, self._next_form = attempt, attempt.run_id, attempt.finished.forms
        if not attempt.finished.run:
            told = ResumeSummary(self._run, before.finished, self.keys, (), {}).none_of()
            self._run.resume_summary = f"nothing from run {before.run_id}, which is kept: {told}"
            _log.warning(
                "pipeline %r starts a new run: nothing that run %s finished is part of it (%s); that is kept in %s",
                self._run.plan.name,
                before.run_id,
                told,
                before.folder.path,
            )

    def begun(self) -> None:
        """Say what was taken over."""
        attempt = self._attempt
        if not self._finished.count:
            return
        run, count = self._run, len(self._taken)
        story = ResumeSummary(run, self._finished, self.keys, self._taken, self._again)
        run.resume_summary, to_come = story.told(), story.to_come()
        level = max(logging.INFO, _log.getEffectiveLevel())  # it happens unasked, so it must be seen
        _log.log(
            level, "pipeline %r continues run %s: %s%s", run.plan.name, attempt.run_id, run.resume_summary, to_come
        )
        run.final_resume_summary = partial(self._retold, story, count, wholly=not to_come)

    def _retold(self, before: ResumeSummary, count: int, *, wholly: bool) -> str | None:
        """Say it once more at the end, if more was taken over meanwhile, or could not be told yet."""
        with self._lock:
            if wholly and len(self._taken) == count:
                return self._run.resume_summary
            return ResumeSummary(self._run, self._finished, self.keys, self._taken, self._again, before=before).told()

    # -- writing down

    @property
    def may_wait(self) -> bool:
        """Whether what has ended may be told later: not where each end is to be on the disk, or somebody is told."""
        return not self._attempt.always and not any(each.needs_durable_ends for each in self._run.extensions)

    def keep(self, items: Sequence[int], states: bytes | None, *, late: bool = False) -> None:
        """Write down items that have ended, before the run counts them as done; tiny ones together, soon after."""
        with self._lock:
            if self._off:
                return
            if states is None:
                states = _WELL * len(items)
            else:
                self._forgive(items, states)
                chosen = [k for k, item in enumerate(items) if self._counts(item, states[k])]
                items, states = [items[k] for k in chosen], bytes([states[k] for k in chosen])
            raw = self._run.values.raw
            values: list[Any] = [raw[item] for item in items]
            if not ATOMS.issuperset(map(type, values)):
                values = [self._encoded(item, values[k], states[k]) for k, item in enumerate(items)]
            self._held.add(items, values, states)
            if late or not self._may_hold(items):
                self._held.flush()
            if self._attempt.trouble is not None:
                self._give_up(self._attempt.trouble)

    def _may_hold(self, items: Sequence[int]) -> bool:
        """Tell whether items may be written later: not where values take part in their keys that the run may let go."""
        run = self._run
        if not self.may_wait:
            return False
        return not run.releases or all(
            type(each) is int for item in items for each in run.plan.references.get(run.node_of[item], ())
        )

    def _encoded(self, item: int, value: Any, state: int) -> Any:
        """Return a value as it is now, in the form in which it is stored."""
        if state == SKIPPED:
            return None
        try:
            return value if self._run.keeps_serialized else encoded(value)
        except SerializationError as error:
            self._cannot_store(item, error)
            return LOST

    def _forgive(self, items: Sequence[int], states: bytes) -> None:
        """An item that has failed for good has all its attempts again when the run is resumed."""
        for item, state in zip(items, states, strict=True):
            if state in {FAILED, TIMED_OUT}:
                self._begun.failed(item)
                if self._run.attempt_of(item) > 1:
                    self._guarded(self._attempt.journal.write, [RETRY, self.keys.key(item), 0])

    def _counts(self, item: int, state: int) -> bool:
        return state in {SUCCESS, SKIPPED} or (state == CACHED and item not in self._taken)

    def _write_all(self, items: Sequence[int], values: Sequence[Any], states: bytes) -> None:
        """Write items, those that have one template as one record."""
        start = 0
        for stretch in self.keys.stretches(items):
            if not self._off:
                part = slice(start, start + len(stretch))
                self._guarded(self._write, stretch, values[part], states[part])
            start += len(stretch)
        begun = self._begun.behind(items)
        if begun and not self._off:
            self._guarded(self._attempt.journal.write, [BEGUN, begun])

    def _write(self, items: Sequence[int], values: Sequence[Any], states: bytes) -> None:
        payload: list[bytes] = []
        run = self._run
        node = run.node_of[items[0]]
        keys, contents = self.keys.with_contents(items)
        if any(map(holds_files, contents)):
            starts = memoryview(run.scheduler.starts()).cast("d")  # a copy of all: once for all items
            begun = [starts[item] for item in items]
            values = [*map(self._unless_its_files_changed, items, contents, values, begun)]
        if not ATOMS.issuperset(map(type, values)):
            values, payload = self._prepared(items, values)
        mapped = run.layout.is_mapped(node)
        if mapped and node not in self._counted:
            self._counted.add(node)
            self._attempt.journal.write([ITEMS, run.plan.names[node], len(run.layout.items_of(node))])
        names: Any = run.plan.names[node] if mapped else [run.plan.names[run.node_of[item]] for item in items]
        well = states.count(SUCCESS) + states.count(CACHED) == len(states)
        told = None if well else states
        body = [DONE, self._form(node), names, b"".join(keys), values, told, None if mapped else contents]
        self._attempt.journal.write(body, payload)
        self._written += len(items)

    def _unless_its_files_changed(self, item: int, contents: bytes, value: Any, start: float) -> Any:
        """Return a value; `LOST` if a file among its step's arguments has changed since the step was claimed.

        The key is made when the step has ended, so it counts the bytes that the file has then.
        """
        if not holds_files(contents):
            return value
        begun = self._run.started_at.timestamp() + start - self._run.started
        try:
            with collected() as files:
                is_same = contents.startswith(self.keys.read_again(item))
            found = [os.stat(path) for path in files]  # noqa: PTH116  of names, without objects
        except (UnhashableError, OSError):
            is_same, found = False, []
        if is_same and all(max(status.st_mtime, status.st_ctime) <= begun for status in found):
            return value
        self._cannot_store(item, ValueError("a file among its arguments changed while it ran"))
        return LOST

    def _prepared(self, items: Sequence[int], values: Sequence[Any]) -> tuple[list[Any], list[bytes]]:
        """Return how values stand in the journal, and the payload."""
        stand: list[Any] = []
        payload: list[bytes] = []
        for item, each in zip(items, values, strict=True):
            value = each
            try:
                if not is_atom(each) and each is not LOST:
                    whole = packed(each)
                    value, data = self._attempt.journal.prepared(whole)
                    payload.append(data)
                    if MARK in whole.data:
                        value = (*value, files_of(each))
            except UnhashableError as error:
                self._cannot_store(item, error)
                value = LOST
            except ValueError as error:
                self._cannot_store(item, error)
                value = LOST
            stand.append(value)
        return stand, payload

    def _form(self, node: int) -> int:
        """Return the number of what a step's key is made of; the words for it are written once."""
        template = self.keys.template(node)
        number = self._forms.get(template)
        if number is None:
            number = self._forms[template] = self._next_form
            self._next_form += 1
            self._attempt.journal.write([FORM, number, self.keys.made(node).packed()])
        return number

    def retried(self, item: int, attempts: int) -> None:
        """Write down that an attempt has failed and another is to follow."""
        with self._lock:
            if attempts and not self._off:
                self._written += 1
                self._guarded(self._attempt.journal.write, [RETRY, self.keys.key(item), attempts])

    def close(self, result: PipelineResult | None) -> None:
        """Leave nothing of a run that ended well, or that has nothing to continue; else bring it to the disk."""
        with self._lock:
            done = result is not None and result.success
            if not (done or self._off):
                self._held.flush()
            self._off = True
            if done or not (self._written or self._finished.count):
                self._guarded(self._attempt.remove)
            else:
                if result is not None:
                    self._guarded(self._attempt.journal.write, [END, result.state])
                self._attempt.leave()
        self._held.end()

    # -- what goes wrong

    def _cannot_hash(self, node: int, error: UnhashableError) -> None:
        step = self._run.plan.names[node]
        what, reason = "the code" if isinstance(error, UnhashableCodeError) else "an argument", truncate(f"{error}")
        _log.warning("journal: %s of step %r cannot be hashed, it runs again on resume: %s", what, step, reason)

    def _cannot_store(self, item: int, error: Exception) -> None:
        node = self._run.node_of[item]
        if node not in self._warned:
            self._warned.add(node)
            reason = error.reason if isinstance(error, SerializationError) else str(error)
            name = self._run.item_name(item)
            _log.warning(
                "journal: the value of step %r cannot be stored, it runs again on resume: %s", name, truncate(reason)
            )

    def _guarded(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except _TROUBLE as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if not self._off:
            self._off = True
            _log.warning(
                "journal: %s: %s; the run goes on, but what it finishes from now on runs again when it is resumed",
                self._attempt.journal.path,
                error,
            )
