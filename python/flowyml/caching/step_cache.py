"""The cache of one run: which items have their values in the store already, and which values go there.

```
item ──cache_keys.py──▶ key ──▶ CacheStore ──▶ found: its value, and that value's content for the keys of others
 └── has run ──▶ encoded, packed ──▶ waiting ──some hundred at once, or after half a second──▶ CacheStore
```

What cannot be hashed or stored is said once for each step. When the store itself fails (a full disk, somebody else's
folder), it is said once, and the run goes on without it.

The contents of a run's values, for the keys of what reads them.

A content comes with the value where that is possible: a process worker hashes what it returns, a cached value has it in
its entry. It does not if classes or functions of the user's are in the value: what these reach is known only here, and
may have changed since the value was stored. Then it is computed here, when the first key needs it. The content of a
list of values is computed from their contents, so that a list of a million is never built for it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from flowyml.caching.keys import FILES, CacheKeys, combined, files_of, joined, split
from flowyml.caching.lookup import CacheHit
from flowyml.diagnostics.text import truncate
from flowyml.errors import SerializationError, StoreError
from flowyml.hashing.code_graph import CodeGraph, UnhashableCodeError
from flowyml.hashing.content import HOLDS_FILES, SIZE, UnhashableError, content, plain_content
from flowyml.hashing.file import MARK
from flowyml.state import SUCCESS
from flowyml.steps.cache_policy import CODE
from flowyml.store.arenas import ENCODED
from flowyml.store.cache_index import DatabaseErrors, is_damage
from flowyml.store.cache_store import database_of
from flowyml.store.serialization import PARTS, decoded, encoded, packed
from flowyml.store.value_store import MISSING, ListRef, MappedRef, MultiOutput, OutputRef, bare, nodes_of, parts_of

if TYPE_CHECKING:
    from flowyml.runtime.run import Run
    from flowyml.store.value_store import Reference


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flowyml.caching.keys import CacheKey
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.run import Run
    from flowyml.steps.cache_policy import CachePolicy
    from flowyml.store.cache_index import CacheEntry
    from flowyml.store.cache_store import CacheStore

    R = TypeVar("R")

_log = logging.getLogger("flowyml")
_TROUBLE = (OSError, *DatabaseErrors, StoreError)
# What is to be stored is written when there is enough of it, or some time after it was written last.
_MOST_WAITING = 256
_MOST_BYTES = 4 << 20
_LONGEST = 0.5

clock = time.monotonic


class StepCache:
    """The cache of one run; a memory of `recall.py`.

    Args:
        run: The run.
        store: Where values are.
        context: The context of the run, for the user's key functions.
        only_look: Nothing is to run, so nothing counts as used.

    Attributes:
        contents: The contents of the run's values.
        reasons: Why steps are not cached though they were to be, by number.
        read: The steps whose values take part in keys: for them, process workers return the content beside the value.
    """

    def __init__(self, run: Run, store: CacheStore, context: Mapping[str, Any], *, only_look: bool = False) -> None:
        """Open the store."""
        self._run = run
        self._only_look = only_look
        self._store = store
        self._database = database_of(store)
        self._modes: list[CachePolicy | None] = [form.options.caching for form in run.plan.forms]
        self.contents = ValueHashes(run)
        self._made = CacheKeys(run, self.contents, context)
        self._keys: dict[int, CacheKey | None] = {}
        self.reasons: dict[int, str] = {}
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.RLock()
        self._waiting: list[CacheEntry] = []
        self._written = -_LONGEST
        self._timer: threading.Timer | None = None
        self._bytes = 0
        self._used: list[tuple[str, CacheEntry]] = []
        self._asked = 0
        self.read = self._read_nodes()
        run.on_plan_change(self._grow)
        self._is_open = False
        self._is_open = bool(self._guarded(self._open))

    def _open(self) -> bool:
        found = self._database.open(create=not self._only_look)
        if not found:
            self._database.close()
        return found

    def _read_nodes(self) -> frozenset[int]:
        plan = self._run.plan
        cached = (node for node, mode in enumerate(self._modes) if mode and mode.function is None)
        references = (plan.references.get(node, ()) for node in cached)
        return frozenset(node for some in references for node in nodes_of(some, plan.layout))

    def _grow(self, nodes: Sequence[int]) -> None:
        """Take in steps that came during the run; the last of these is the step that they came from.

        What that one gives on is made by the others, of things that its key knows nothing of.
        """
        *new, origin = nodes
        forms = self._run.plan.forms
        # In the place of those that were refused before: what comes after them has their numbers.
        self._modes[len(forms) - len(new) :] = [forms[node].options.caching for node in new]
        self._modes[origin] = None
        self._keys[self._run.layout.firsts[origin]] = None

    # -- keys

    def leave_out(self, nodes: Iterable[int]) -> None:
        """Treat steps as if they were not cached."""
        for node in nodes:
            self._modes[node] = None

    def mode(self, item: int) -> CachePolicy | None:
        """Return how an item is cached."""
        return self._modes[self._run.node_of[item]]

    def key(self, item: int) -> CacheKey | None:
        """Return the key of an item; `None` if it has none, which is told."""
        if item not in self._keys:
            mode = self.mode(item)
            self._keys[item] = None if mode is None else self._key(item, mode)
        return self._keys[item]

    def _key(self, item: int, mode: CachePolicy) -> CacheKey | None:
        try:
            return self._made.key(item, mode)
        except UnhashableError as error:
            what = "its code" if isinstance(error, UnhashableCodeError) else "an argument"
            self._cannot(item, f"{what} cannot be hashed", str(error))
        except Exception as error:  # noqa: BLE001  of the user's function, or of what it looks at
            self._cannot(item, f"its cache function {mode} failed", f"{type(error).__name__}: {error}")
        return None

    def _cannot(self, item: int, what: str, why: str) -> None:
        """Say once for each step why it is not cached."""
        node = self._run.node_of[item]
        self.reasons[node] = f"{what}: {why}"
        step = self._run.plan.forms[node].step.name or self._run.plan.names[node]
        if (step, what) not in self._warned and not self._only_look:
            self._warned.add((step, what))
            _log.warning("cache: step %r is not cached: %s", self._run.item_name(item), truncate(f"{what}: {why}"))

    def words(self, key: CacheKey) -> bytes | None:
        """Return what a key is made of, packed."""
        return self._made.words.get(key.recipe[:SIZE])

    def used(self, node: int) -> CacheEntry | None:
        """Return an entry that a step has used."""
        name = self._run.plan.names[node]
        return next((entry for step, entry in self._used if step == name), None)

    # -- as a memory

    @property
    def looks(self) -> bool:
        """Whether the store can be asked."""
        return self._is_open

    def prepare(self) -> None:
        """Hash the code of cached steps before anything runs."""
        if self._is_open:
            self._made.look_ahead(node for node, mode in enumerate(self._modes) if mode == CODE)

    def begun(self) -> None:
        """Nothing is said of what was taken over."""

    def find(self, items: Sequence[int]) -> dict[int, CacheHit]:
        """Return what the store has of these items."""
        with self._lock:
            if not self._is_open:
                return {}
            keys = {item: key.digest for item in items if (key := self.key(item)) is not None}
            entries = self._guarded(self._database.lookup, list(dict.fromkeys(keys.values()))) or {}
            there = {item: entries[key] for item, key in keys.items() if key in entries}
            self._asked += len(keys)
            fresh = {item: entry for item, entry in there.items() if self._is_fresh(item, entry)}
            return {item: self._found(item, entry) for item, entry in fresh.items() if self._has_its_files(entry)}

    def _has_its_files(self, entry: CacheEntry) -> bool:
        """Return True if the files that a value refers to are unchanged since it was stored."""
        files = [part for part in split(entry.content or b"") if part.startswith(FILES)]
        if not files:
            return True
        try:
            return [files_of(self._load(entry))] == files
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  it does not load, or a file is gone
            return False

    def _is_fresh(self, item: int, entry: CacheEntry) -> bool:
        ttl = self._run.plan.forms[self._run.node_of[item]].options.cache_ttl
        return ttl is None or time.time() - entry.created <= ttl

    def _found(self, item: int, entry: CacheEntry) -> CacheHit:
        parts = [part for part in split(entry.content or b"") if not part.startswith(FILES)]
        if parts:
            self.contents.note(item, parts if entry.kind == PARTS else parts[0])
        self._used.append((self._run.plan.names[self._run.node_of[item]], entry))
        is_read = not parts and self._run.node_of[item] in self.read
        return CacheHit(lambda: self._load(entry), is_read=is_read)

    def _load(self, entry: CacheEntry) -> Any:
        with self._lock:
            loaded = self._guarded(lambda: (self._database.load(entry),)) if self._is_open else None
        if loaded is None:
            raise LookupError(entry.key)
        return loaded[0]

    def keep(self, items: Sequence[int], states: bytes | None, *, late: bool = False) -> None:  # noqa: ARG002
        """Store the values of items that have run."""
        with self._lock:
            for k, item in enumerate(items):
                if self._is_open and (states is None or states[k] == SUCCESS):
                    key = self._keys.get(item)
                    if key is not None and item not in self._run.fallback_errors:
                        self._store_value(item, key)
            if self._waiting:
                much = len(self._waiting) >= _MOST_WAITING or self._bytes >= _MOST_BYTES
                if much or clock() - self._written > _LONGEST:
                    self._write()
                elif self._timer is None:
                    self._write_later()

    def _write_later(self) -> None:
        """Write what is waiting after a while, also if nothing else ends until then."""
        self._timer = threading.Timer(_LONGEST, self._write_now)
        self._timer.daemon = True
        self._timer.start()

    def _write_now(self) -> None:
        with self._lock:
            self._timer = None
            if self._waiting and self._is_open:
                self._write()

    def _store_value(self, item: int, key: CacheKey) -> None:
        raw = self._run.values.raw[item]
        if self._made.has_changed(item, key):
            self._cannot(item, "its value is not stored", "a file among its arguments changed while it ran")
            return
        try:
            value = packed(raw if self._run.keeps_serialized else encoded(raw))
            files = [files_of(raw if self._run.keeps_serialized else encoded(raw))] if MARK in value.data else []
        except (SerializationError, UnhashableError, ValueError) as error:
            reason = error.reason if isinstance(error, SerializationError) else str(error)
            self._cannot(item, "its value cannot be stored", reason)
            return
        step = self._run.plan.names[self._run.node_of[item]]
        entry = self._guarded(self._database.new_entry, key.digest, step, value, self._content(item, files), key.recipe)
        if entry is not None:
            self._bytes += len(value.data)
            self._waiting.append(entry)

    def _content(self, item: int, files: list[bytes]) -> bytes | None:
        """Return the content of a value that is part of keys, if it is valid for later runs: code may change.

        The hash of the files that the value refers to follows.
        """
        found: Any = []
        if self._run.node_of[item] in self.read:
            with contextlib.suppress(UnhashableError):
                found = self.contents.of_item(item)
            if item in self.contents.with_code:
                found = []
        parts = [*(found if isinstance(found, list) else [found]), *files]
        return joined(parts) if parts else None

    @property
    def may_wait(self) -> bool:
        """What is stored is encoded at once."""
        return False

    def retried(self, item: int, attempts: int) -> None:
        """Nothing is stored of what failed."""

    def close(self, result: PipelineResult | None) -> None:  # noqa: ARG002  a run that was cut off leaves as much
        """Write the rest, note what was used, and make room."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._is_open and not self._only_look:
                self._store.hits += len(self._used)
                self._store.misses += self._asked - len(self._used)
                self._guarded(self._finish)
            if self._is_open:
                self._is_open = False
                self._database.close()

    def _finish(self) -> None:
        if self._waiting:
            self._database.add(self._waiting, list(self._made.words.items()))
        if self._used:
            self._database.note_use(self._used)
        self._database.trim()

    def _write(self) -> None:
        self._guarded(self._database.add, self._waiting, list(self._made.words.items()))
        self._waiting, self._bytes, self._written = [], 0, clock()

    # -- when the store fails

    def _guarded(self, function: Callable[..., R], *arguments: Any) -> R | None:
        """Call the store; when it fails, say so and go on without it."""
        try:
            return function(*arguments)
        except _TROUBLE as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        if isinstance(error, DatabaseErrors) and is_damage(error):
            self._database.replace_damaged(error)
        else:
            where = "" if str(self._store.cache_dir) in str(error) else f"{self._store.cache_dir}: "
            _log.warning("cache: %s%s; the run continues without the cache", where, error)
            if self._is_open:
                with contextlib.suppress(*_TROUBLE):
                    self._database.discard_files(self._waiting)
        self._waiting.clear()
        if self._is_open:
            self._is_open = False
            self._database.close()


Content: TypeAlias = "bytes | list[bytes]"
"""Of one value, or of each declared output of a step with several."""


class ValueHashes:
    """The contents of the values of one run.

    Args:
        run: The run.

    Attributes:
        code_graph: The code that is known already: of steps, and of classes and functions in values.
        with_code: Items with such values, among those that were examined here.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[int, Content] = {}
        self.code_graph = CodeGraph()
        self.with_code: set[int] = set()

    def note(self, item: int, found: Content) -> None:
        """Take in the content of an item's value."""
        self._known[item] = found

    def of_item(self, item: int) -> Content:
        """Return the content of an item's value.

        Raises:
            Unhashable: If it has none.
        """
        found = self._known.get(item)
        if found is None:
            found = self._known[item] = self._found(item, self._run.values.raw[item])
        return found

    def forget_files(self) -> None:
        """Forget the contents of values with files in them, so that the files are read again."""
        raw = self._run.values.raw
        for item, found in list(self._known.items()):
            parts = found if isinstance(found, list) else [found]
            if raw[item] is not MISSING and any(part.startswith(HOLDS_FILES) for part in parts):
                del self._known[item]

    def _found(self, item: int, raw: Any) -> Content:
        if isinstance(raw, MultiOutput):
            return [self._of_part(item, part) for part in raw.parts]
        return self._of_part(item, raw)

    def _of_part(self, item: int, raw: Any) -> bytes:
        if type(raw) not in ENCODED or not self._run.keeps_serialized:
            return self._of_value(item, raw)
        try:
            value = decoded(raw)
        except (Exception, SystemExit, GeneratorExit) as error:
            raise UnhashableError(f"it does not load: {type(error).__name__}: {error}") from error
        return self._of_value(item, value)

    def _of_value(self, item: int, value: Any) -> bytes:
        found = plain_content(value)
        if found is None:
            self.with_code.add(item)
            found = content(value, self.code_graph)
        return found

    def of(self, reference: Reference) -> bytes | None:
        """Return what stands in a key for what a reference points at; `None` where there is nothing.

        Raises:
            Unhashable: If a value has no content.
        """
        if isinstance(reference, int):
            found = self.of_item(reference)
            return combined(found) if isinstance(found, list) else found
        if isinstance(reference, OutputRef):
            return self.of_item(reference.item)[reference.part]  # type: ignore[return-value]  # it has several
        if isinstance(reference, MappedRef):
            return combined([self._present(item) or b"-" for item in self._run.layout.items_of(reference.node)])
        if isinstance(reference, ListRef):
            return combined([self.of(each) or b"-" for each in reference.references])
        return self._present(bare(reference))

    def _present(self, reference: Any) -> bytes | None:
        """Return the content of `OptionalRef` references: `None` without a value, lists without missing values."""
        if isinstance(reference, MappedRef):
            return self.of(reference) if self._run.values.is_whole(reference.node) else None
        parts = parts_of(reference, self._run.layout)
        if parts is None:
            return self.of(reference) if self._run.values.has(reference) else None
        return combined([part for part in map(self._present, parts) if part is not None])
