"""The journal of one run: records what has ended, and takes the results of an earlier attempt.

```
ResumableRun ──▶ RunJournal, a source of `lookup.py` ── lookup: a JournalReader finds results by key
                                                     └─ store: a record for each batch, before the run counts it
```

A run that succeeds leaves nothing. If the disk fails, that is one warning, and the run continues: what is in the
journal until then is valid and stays. The module does not know where steps run.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml.caching.journal_index import BEGUN, DONE, END, FORM, ITEMS, RETRY, JournalReader
from flowyml.caching.journal_keys import JournalKeys
from flowyml.caching.keys import files_of, holds_files
from flowyml.caching.lookup import ResultSource
from flowyml.caching.resume_summary import ResumeSummary
from flowyml.caching.write_buffer import BATCH_SIZE, HOLD_SECONDS, TINY_STEP_SECONDS, WriteBuffer
from flowyml.diagnostics.text import truncate
from flowyml.errors import SerializationError, StoreError
from flowyml.hashing.code_graph import UnhashableCodeError
from flowyml.hashing.content import UnhashableError
from flowyml.hashing.file import MARK, collected
from flowyml.state import CACHED, FAILED, SKIPPED, SUCCESS, TIMED_OUT
from flowyml.store.journal import LOST, is_atom
from flowyml.store.serialization import ATOMS, encoded, packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flowyml.caching.lookup import CacheHit
    from flowyml.caching.resumable_runs import ResumableRun, ResumableRuns
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.run import Run

_log = logging.getLogger("flowyml")
_TROUBLE = (OSError, StoreError)
_ROOT_BATCH_SIZE = 4096
_DEFERRED_BATCH_SIZE = 32  # more items than this that end together are a batch of their own
_LARGE_VALUE_BYTES = 1 << 14  # a value of this size is worth a write of its own

clock = time.monotonic


class RunJournal(ResultSource):
    """The journal of one run.

    Args:
        run: The run.
        attempt: Its directory and journal.
        runs: Opens another one if this one has nothing in common with the run.

    Attributes:
        keys: The keys of its items.
    """

    def __init__(self, run: Run, attempt: ResumableRun, runs: ResumableRuns) -> None:
        self._run = run
        self._runs = runs
        self.keys = JournalKeys(run, self._warn_unhashable)
        self._lock = threading.RLock()
        self._roots = RootStepTracker(run, self.keys)
        self._buffer = WriteBuffer(
            self._lock, self._write_all, columns=3, max_items=BATCH_SIZE, max_seconds=HOLD_SECONDS
        )
        self._is_off = False
        self._forms: dict[int, int] = {}
        self._counted: set[int] = set()
        self._warned: set[int] = set()
        self._written = 0
        self._last_end = 0.0
        self._use(attempt)

    def _use(self, attempt: ResumableRun) -> None:
        self._attempt = attempt
        self._run.run_id = attempt.run_id
        self._reader = JournalReader(self._run, self.keys, attempt.journal, attempt.finished)
        self._next_form = attempt.finished.next_form

    # -- reusing results

    @property
    def has_entries(self) -> bool:
        """Whether there are results to take."""
        return self._reader.has_entries

    def lookup(self, items: Sequence[int]) -> dict[int, CacheHit]:
        """Return the results of earlier attempts for items."""
        with self._lock:
            return self._reader.lookup(items)

    def on_start(self) -> None:
        """Continue a run that `resume` did not name only if it has something in common with this one."""
        self.keys.hash_code()
        self._roots.on_start()
        if self._attempt.tentative:
            keys = list(self._root_keys())

            def has_common(attempt: ResumableRun) -> bool:
                return any(map(attempt.finished.has_started, keys))

            if not has_common(self._attempt):
                self._attempt.leave()
                self._replace(self._runs.next(has_common))
        if not self._is_off:
            self._guarded(self._attempt.begin, self._run.seed)

    def _root_keys(self) -> Iterator[bytes]:
        """Yield the keys of the items that are ready first: nothing had ended before them."""
        scheduler = self._run.scheduler
        batches = []
        while (batch := scheduler.claim(0, _ROOT_BATCH_SIZE, time.monotonic())) is not None:
            batches.append(batch)
            for group in self.keys.groups(batch.items()):
                yield from self.keys.of(group)
        for batch in reversed(batches):
            scheduler.give_back(batch, 0, len(batch))

    def _replace(self, attempt: ResumableRun | None) -> None:
        """Use another attempt; warn if it is a new run."""
        before = self._attempt
        if attempt is None:
            self._is_off = True
            return
        self._use(attempt)
        if not attempt.finished.run:
            summary = ResumeSummary(self._run, before.finished, self.keys, (), {}).describe_nothing()
            self._run.resume_summary = f"nothing from run {before.run_id}, which is kept: {summary}"
            _log.warning(
                "pipeline %r starts a new run: nothing that run %s finished is part of it (%s); that is kept in %s",
                self._run.plan.name,
                before.run_id,
                summary,
                before.directory.path,
            )

    def on_preload_done(self) -> None:
        """Log what is reused."""
        if not self._attempt.finished.count:
            return
        run, count = self._run, len(self._reader.reused)
        before = self._summary()
        run.resume_summary, to_come = before.describe(), before.describe_later()
        level = max(logging.INFO, _log.getEffectiveLevel())  # it happens by default, so it must be visible
        name, run_id = run.plan.name, self._attempt.run_id
        _log.log(level, "pipeline %r continues run %s: %s%s", name, run_id, run.resume_summary, to_come)
        run.final_resume_summary = partial(self._final_summary, before, count, is_complete=not to_come)

    def _summary(self, before: ResumeSummary | None = None) -> ResumeSummary:
        reader = self._reader
        return ResumeSummary(self._run, self._attempt.finished, self.keys, reader.reused, reader.reasons, before=before)

    def _final_summary(self, before: ResumeSummary, count: int, *, is_complete: bool) -> str | None:
        """Return the summary at the end of the run: more may have been reused since, or known later."""
        with self._lock:
            if is_complete and len(self._reader.reused) == count:
                return self._run.resume_summary
            return self._summary(before).describe()

    # -- writing

    @property
    def can_defer(self) -> bool:
        """Whether items may be stored later: not if each end has to be on the disk, or hooks hear of ends."""
        extensions = self._run.extensions
        return not self._attempt.always and not any(extension.needs_durable_ends for extension in extensions)

    def store(self, items: Sequence[int], states: bytes | None, *, late: bool = False) -> None:
        """Write items that have ended, before the run counts them; tiny ones together, soon after."""
        with self._lock:
            if self._is_off:
                return
            if states is None:
                states = bytes([SUCCESS]) * len(items)
            else:
                self._note_failures(items, states)
                chosen = [k for k, item in enumerate(items) if self._is_finished(item, states[k])]
                items, states = [items[k] for k in chosen], bytes([states[k] for k in chosen])
            raw = self._run.values.raw
            values: list[Any] = [raw[item] for item in items]
            if not ATOMS.issuperset(map(type, values)):
                values = [self._encoded(item, values[k], states[k]) for k, item in enumerate(items)]
            before, self._last_end = self._last_end, clock()
            is_tiny = self._last_end - before < TINY_STEP_SECONDS and len(items) < _DEFERRED_BATCH_SIZE
            defer = is_tiny and not late and not any(map(_is_large, values)) and self._may_defer(items)
            self._buffer.add((items, values, states), self._last_end, defer=defer)
            if self._attempt.trouble is not None:
                self._give_up(self._attempt.trouble)

    def _may_defer(self, items: Sequence[int]) -> bool:
        """Return True unless the keys of items contain values that the run may release before."""
        run = self._run
        if not self.can_defer:
            return False
        return not run.releases or all(
            type(reference) is int for item in items for reference in run.plan.references.get(run.node_of[item], ())
        )

    def _encoded(self, item: int, value: Any, state: int) -> Any:
        """Return a value as it is now, encoded."""
        if state == SKIPPED:
            return None
        try:
            return value if self._run.keeps_serialized else encoded(value)
        except SerializationError as error:
            return self._lost(item, error)

    def _note_failures(self, items: Sequence[int], states: bytes) -> None:
        """Note failures after all attempts: such an item has all its attempts again when the run is resumed."""
        for item, state in zip(items, states, strict=True):
            if state in {FAILED, TIMED_OUT}:
                self._roots.on_failure(item)
                if self._run.attempt_of(item) > 1:
                    self._guarded(self._attempt.journal.write, [RETRY, self.keys.key(item), 0])

    def _is_finished(self, item: int, state: int) -> bool:
        return state in {SUCCESS, SKIPPED} or (state == CACHED and item not in self._reader.reused)

    def _write_all(self, items: list[int], values: list[Any], states: list[int]) -> None:
        """Write items, those of one template as one record."""
        start = 0
        for group in self.keys.groups(items):
            if not self._is_off:
                part = slice(start, start + len(group))
                self._guarded(self._write, group, values[part], bytes(states[part]))
            start += len(group)
        begun = self._roots.keys_to_write(items)
        if begun and not self._is_off:
            self._guarded(self._attempt.journal.write, [BEGUN, begun])

    def _write(self, items: Sequence[int], values: Sequence[Any], states: bytes) -> None:
        payload: list[bytes] = []
        run = self._run
        node = run.node_of[items[0]]
        keys, contents = self.keys.with_contents(items)
        if any(map(holds_files, contents)):
            starts = memoryview(run.scheduler.starts()).cast("d")  # a copy of all: once for all items
            values = [
                self._unless_files_changed(item, content, value, starts[item])
                for item, content, value in zip(items, contents, values, strict=True)
            ]
        if not ATOMS.issuperset(map(type, values)):
            values, payload = self._prepared(items, values)
        names: Any
        is_mapped = run.item_index.is_mapped(node)
        if is_mapped:
            names = run.plan.names[node]
            if node not in self._counted:
                self._counted.add(node)
                self._attempt.journal.write([ITEMS, names, len(run.item_index.items_of(node))])
        else:
            names = [run.plan.names[run.node_of[item]] for item in items]
        all_succeeded = states.count(SUCCESS) + states.count(CACHED) == len(states)
        spec, told, arguments = self._form(node), None if all_succeeded else states, None if is_mapped else contents
        self._attempt.journal.write([DONE, spec, names, b"".join(keys), values, told, arguments], payload)
        self._written += len(items)

    def _unless_files_changed(self, item: int, contents: bytes, value: Any, start: float) -> Any:
        """Return a value; `LOST` if a file among its step's arguments has changed since the step was claimed.

        The key is made when the step has ended, so it covers the bytes that the file has then.
        """
        if not holds_files(contents):
            return value
        claimed = self._run.started_at.timestamp() + start - self._run.started
        try:
            with collected() as files:
                is_same = contents.startswith(self.keys.read_again(item))
            statuses = [os.stat(path) for path in files]  # noqa: PTH116  of names, without objects
        except (UnhashableError, OSError):
            is_same, statuses = False, []
        if is_same and all(max(status.st_mtime, status.st_ctime) <= claimed for status in statuses):
            return value
        return self._lost(item, ValueError("a file among its arguments changed while it ran"))

    def _prepared(self, items: Sequence[int], values: Sequence[Any]) -> tuple[list[Any], list[bytes]]:
        """Return values as they are in the journal, and the payload."""
        stored: list[Any] = []
        payload: list[bytes] = []
        for item, raw in zip(items, values, strict=True):
            value = raw
            if not is_atom(raw) and raw is not LOST:
                try:
                    serialized = packed(raw)
                    value, data = self._attempt.journal.prepared(serialized)
                    payload.append(data)
                    if MARK in serialized.data:
                        value = (*value, files_of(raw))
                except (UnhashableError, ValueError) as error:
                    value = self._lost(item, error)
            stored.append(value)
        return stored, payload

    def _form(self, node: int) -> int:
        """Return the number of the `KeyParts` of a step; they are written once."""
        template = self.keys.template(node)
        number = self._forms.get(template)
        if number is None:
            number = self._forms[template] = self._next_form
            self._next_form += 1
            self._attempt.journal.write([FORM, number, self.keys.parts(node).packed()])
        return number

    def on_retry(self, item: int, attempts: int) -> None:
        """Write that an attempt has failed and another follows."""
        with self._lock:
            if attempts and not self._is_off:
                self._written += 1
                self._guarded(self._attempt.journal.write, [RETRY, self.keys.key(item), attempts])

    def close(self, result: PipelineResult | None) -> None:
        """Remove the journal of a run that succeeded or has nothing to continue; else bring it to the disk."""
        with self._lock:
            has_succeeded = result is not None and result.success
            if not (has_succeeded or self._is_off):
                self._buffer.flush()
            self._is_off = True
            if has_succeeded or not (self._written or self._attempt.finished.count):
                self._guarded(self._attempt.remove)
            else:
                if result is not None:
                    self._guarded(self._attempt.journal.write, [END, result.state])
                self._attempt.leave()
        self._buffer.end()

    # -- trouble

    def _warn_unhashable(self, node: int, error: UnhashableError) -> None:
        step = self._run.plan.names[node]
        what, reason = "the code" if isinstance(error, UnhashableCodeError) else "an argument", truncate(f"{error}")
        _log.warning("journal: %s of step %r cannot be hashed, it runs again on resume: %s", what, step, reason)

    def _lost(self, item: int, error: Exception) -> Any:
        """Warn once for each step that a value cannot be stored; return what is written in its place."""
        node = self._run.node_of[item]
        if node not in self._warned:
            self._warned.add(node)
            reason = error.reason if isinstance(error, SerializationError) else str(error)
            name, text = self._run.item_name(item), truncate(reason)
            _log.warning("journal: the value of step %r cannot be stored, it runs again on resume: %s", name, text)
        return LOST

    def _guarded(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except _TROUBLE as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if not self._is_off:
            self._is_off = True
            _log.warning(
                "journal: %s: %s; the run continues, but what it finishes from now on runs again when it is resumed",
                self._attempt.journal.path,
                error,
            )


class RootStepTracker:
    """The root steps of one run that have ended without being finished.

    ```
    a failed item         has no value that could be reused, but a join, or a reader of its map task, has
    a dynamic step        is called again with the values of its pipeline; the steps of that pipeline are finished
    ```

    The next run looks up its root steps in the journal to see whether it has anything in common with it. So the key of
    such a step is written once, as soon as something behind it has ended; alone it is nothing to continue from.

    Args:
        run: The run.
        keys: The keys of its items.
    """

    def __init__(self, run: Run, keys: JournalKeys) -> None:
        self._run = run
        self._keys = keys
        self._dynamic: dict[int, bytes] = {}  # keys of dynamic steps as they are before they return a pipeline
        self._open: dict[int, list[int]] = {}
        self._origins: dict[int, int] = {}
        self._has_finished_root: dict[int, bool] = {}
        self._visited: set[int] = set()

    def on_start(self) -> None:
        """Keep the keys of the dynamic root steps before anything runs."""
        plan = self._run.plan
        if plan.is_dynamic:
            firsts, roots = self._run.item_index.firsts, filter(self._is_root, plan.dynamic_steps())
            self._dynamic = {node: self._keys.key(firsts[node]) for node in roots}
            self._run.on_plan_change(self._on_steps_added)

    def on_failure(self, item: int) -> None:
        """Note that an item has failed after all attempts."""
        node = self._run.node_of[item]
        if node in self._open or self._is_root(node):
            self._open.setdefault(node, []).append(item)

    def keys_to_write(self, items: Iterable[int]) -> bytes:
        """Return the keys of the tracked steps in front of items that have ended, each once, end to end.

        An item that also depends on a finished root step is found by that one: if it has changed, so has the item.
        """
        if not self._open:
            return b""
        nodes = {self._run.node_of[item] for item in items}
        reached = self._open_steps_before([node for node in nodes if not self._depends_on_finished(node)])
        return b"".join(key for node in reached for key in self._keys_of(node, self._open.pop(node)))

    def _on_steps_added(self, nodes: Sequence[int]) -> None:
        *new, origin = nodes
        self._origins.update(dict.fromkeys(new, origin))
        if origin in self._dynamic:
            self._open.setdefault(origin, [])

    def _keys_of(self, node: int, items: Sequence[int]) -> Sequence[bytes]:
        return [self._dynamic[node]] if node in self._dynamic else [self._keys.key(item) for item in items]

    def _is_root(self, node: int) -> bool:
        """Return True if a step depends on nothing, as far as was known before the run."""
        plan, item_index = self._run.plan, self._run.plan.item_index
        return node < item_index.nodes and not any(
            dependency in item_index.waiting or item_index.items_of(dependency)
            for dependency in plan.graph.dependencies(node)
        )

    def _depends_on_finished(self, node: int) -> bool:
        """Return True if a step is a finished root step or depends on one."""
        known, todo = self._has_finished_root, [node]
        while todo:
            step = todo[-1]
            before = self._before(step)
            unknown = [other for other in before if other not in known]
            if unknown and step not in known:
                todo += unknown
                continue
            todo.pop()
            if step not in known:
                known[step] = any(map(known.__getitem__, before)) or self._is_finished_root(step)
        return known[node]

    def _is_finished_root(self, node: int) -> bool:
        if node in self._dynamic or not self._is_root(node):
            return False
        return len(self._open.get(node, ())) < len(self._run.item_index.items_of(node))

    def _before(self, node: int) -> list[int]:
        """Return the dependencies of a step, and the dynamic step that returned it."""
        origins = self._origins
        before = [step for step in self._run.plan.dependencies_of(node) if origins.get(step) != node]
        return [*before, origins[node]] if node in origins else before

    def _open_steps_before(self, todo: list[int]) -> Iterator[int]:
        while todo:
            node = todo.pop()
            if node in self._open:
                yield node
            elif node not in self._visited:
                self._visited.add(node)
                todo += self._before(node)


def _is_large(value: Any) -> bool:
    return type(value) is not int and hasattr(value, "__len__") and len(value) > _LARGE_VALUE_BYTES
