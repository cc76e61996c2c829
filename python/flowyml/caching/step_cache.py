"""The cache of one run: which items have stored values, and which values are stored.

```
item ──CacheKeys──▶ key ──▶ CacheDatabase ──▶ found: its value, and the value's content for the keys of its readers
 └── has run ──▶ encoded, packed ──▶ WriteBuffer ──some hundred at once, or after half a second──▶ CacheDatabase
```

A value that cannot be hashed or stored is one warning for its step. When the store itself fails (a full disk, a
directory of another user), that is one warning, and the run continues without the cache.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from flowyml.caching.keys import FILES, CacheKeys, combined, files_of, joined, split
from flowyml.caching.lookup import CacheHit, ResultSource
from flowyml.caching.write_buffer import WriteBuffer
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
from flowyml.store.value_store import MISSING, MultiOutput, nodes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flowyml.caching.keys import CacheKey
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.run import Run
    from flowyml.steps.cache_policy import CachePolicy
    from flowyml.store.cache_index import CacheEntry
    from flowyml.store.cache_store import CacheStore

    R = TypeVar("R")

Content: TypeAlias = "bytes | list[bytes]"
"""The content of a value, or of each declared output of a step with several."""

_log = logging.getLogger("flowyml")
_TROUBLE = (OSError, *DatabaseErrors, StoreError)
# Entries are written when there are this many, or this many bytes, or this long after the last write.
_BATCH_SIZE = 256
_BATCH_BYTES = 4 << 20
_HOLD_SECONDS = 0.5

clock = time.monotonic


class StepCache(ResultSource):
    """The cache of one run.

    Args:
        run: The run.
        store: The cache directory.
        context: The context of the run, for the user's key functions.
        only_look: Nothing is to run, so nothing counts as used.

    Attributes:
        contents: The contents of the run's values.
        reasons: Why steps are not cached although they have `cache=`, by node.
        read: The steps whose values are part of keys: process workers return their contents with them.
    """

    def __init__(self, run: Run, store: CacheStore, context: Mapping[str, Any], *, only_look: bool = False) -> None:
        self._run = run
        self._only_look = only_look
        self._store = store
        self._database = database_of(store)
        self._modes: list[CachePolicy | None] = [spec.options.caching for spec in run.plan.specs]
        self.contents = ValueHashes(run)
        self._cache_keys = CacheKeys(run, self.contents, context)
        self._keys: dict[int, CacheKey | None] = {}
        self.reasons: dict[int, str] = {}
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.RLock()
        self._buffer = WriteBuffer(self._lock, self._write, columns=1, max_items=_BATCH_SIZE, max_seconds=_HOLD_SECONDS)
        self._written = -_HOLD_SECONDS
        self._bytes = 0
        self._used: list[tuple[str, CacheEntry]] = []
        self._lookups = 0
        self.read = self._read_nodes()
        run.on_plan_change(self._on_steps_added)
        self._is_open = False
        self._is_open = bool(self._guarded(self._open))

    def _open(self) -> bool:
        is_open = self._database.open(create=not self._only_look)
        if not is_open:
            self._database.close()
        return is_open

    def _read_nodes(self) -> frozenset[int]:
        plan = self._run.plan
        cached = (node for node, mode in enumerate(self._modes) if mode and mode.function is None)
        references = (plan.references.get(node, ()) for node in cached)
        return frozenset(node for some in references for node in nodes_of(some, plan.item_index))

    def _on_steps_added(self, nodes: Sequence[int]) -> None:
        """Add steps; the last of the nodes is the dynamic step that returned them.

        The dynamic step is not cached: its value is made by the new steps, which are not part of its key.
        """
        *new, origin = nodes
        specs = self._run.plan.specs
        # Steps that were refused before had the same nodes as the new ones, whose modes replace theirs.
        self._modes[len(specs) - len(new) :] = [specs[node].options.caching for node in new]
        self._modes[origin] = None
        self._keys[self._run.item_index.firsts[origin]] = None

    # -- keys

    def leave_out(self, nodes: Iterable[int]) -> None:
        """Treat steps as if they had no `cache=`."""
        for node in nodes:
            self._modes[node] = None

    def key(self, item: int) -> CacheKey | None:
        """Return the key of an item; `None` if it has none: a warning says why."""
        if item not in self._keys:
            mode = self._modes[self._run.node_of[item]]
            self._keys[item] = None if mode is None else self._new_key(item, mode)
        return self._keys[item]

    def _new_key(self, item: int, mode: CachePolicy) -> CacheKey | None:
        try:
            return self._cache_keys.key(item, mode)
        except UnhashableError as error:
            what = "its code" if isinstance(error, UnhashableCodeError) else "an argument"
            self._warn(item, f"{what} cannot be hashed", str(error))
        except Exception as error:  # noqa: BLE001  of the user's function, or of an argument that it reads
            self._warn(item, f"its cache function {mode} failed", f"{type(error).__name__}: {error}")
        return None

    def _warn(self, item: int, what: str, why: str) -> None:
        """Warn once for each step that it is not cached."""
        node = self._run.node_of[item]
        self.reasons[node] = f"{what}: {why}"
        step = self._run.plan.specs[node].step.name or self._run.plan.names[node]
        if (step, what) not in self._warned and not self._only_look:
            self._warned.add((step, what))
            _log.warning("cache: step %r is not cached: %s", self._run.item_name(item), truncate(f"{what}: {why}"))

    def words(self, key: CacheKey) -> bytes | None:
        """Return the packed `KeyParts` of a key."""
        return self._cache_keys.words.get(key.recipe[:SIZE])

    def used(self, node: int) -> CacheEntry | None:
        """Return an entry that a step has used."""
        name = self._run.plan.names[node]
        return next((entry for step, entry in self._used if step == name), None)

    # -- as a source

    @property
    def has_entries(self) -> bool:
        """Whether the store can be read."""
        return self._is_open

    @property
    def can_defer(self) -> bool:
        """False: values are encoded at once."""
        return False

    def on_start(self) -> None:
        """Hash the code of cached steps before anything runs."""
        if self._is_open:
            self._cache_keys.hash_code(node for node, mode in enumerate(self._modes) if mode == CODE)

    def lookup(self, items: Sequence[int]) -> dict[int, CacheHit]:
        """Return the stored values of items."""
        with self._lock:
            if not self._is_open:
                return {}
            keys = {item: key.digest for item in items if (key := self.key(item)) is not None}
            self._lookups += len(keys)
            entries = self._guarded(self._database.lookup, list(dict.fromkeys(keys.values()))) or {}
            hits = ((item, entries[key]) for item, key in keys.items() if key in entries)
            return {item: self._hit(item, entry) for item, entry in hits if self._is_valid(item, entry)}

    def _is_valid(self, item: int, entry: CacheEntry) -> bool:
        """Return True if an entry has not expired, and the files that its value refers to are unchanged."""
        ttl = self._run.plan.specs[self._run.node_of[item]].options.cache_ttl
        if ttl is not None and time.time() - entry.created > ttl:
            return False
        files = [part for part in split(entry.content or b"") if part.startswith(FILES)]
        try:
            return not files or [files_of(self._load(entry))] == files
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  it cannot be loaded, or a file is gone
            return False

    def _hit(self, item: int, entry: CacheEntry) -> CacheHit:
        node = self._run.node_of[item]
        parts = [part for part in split(entry.content or b"") if not part.startswith(FILES)]
        if parts:
            self.contents.note(item, parts if entry.kind == PARTS else parts[0])
        self._used.append((self._run.plan.names[node], entry))
        return CacheHit(lambda: self._load(entry), is_read=not parts and node in self.read)

    def _load(self, entry: CacheEntry) -> Any:
        with self._lock:
            loaded = self._guarded(lambda: (self._database.load(entry),)) if self._is_open else None
        if loaded is None:
            raise LookupError(entry.key)
        return loaded[0]

    def store(self, items: Sequence[int], states: bytes | None, *, late: bool = False) -> None:  # noqa: ARG002
        """Store the values of items that have succeeded."""
        with self._lock:
            entries: list[CacheEntry] = []
            try:
                for k, item in enumerate(items):
                    if (states is None or states[k] == SUCCESS) and (entry := self._entry(item)) is not None:
                        entries.append(entry)
            except _TROUBLE as error:
                self._give_up(error, entries)
            if entries and self._is_open:
                now = clock()
                defer = self._bytes < _BATCH_BYTES and now - self._written <= _HOLD_SECONDS
                self._buffer.add([entries], now, defer=defer)

    def _entry(self, item: int) -> CacheEntry | None:
        """Return the entry of an item's value, whose file is written; `None` if the value is not to be stored."""
        run = self._run
        key = self._keys.get(item)
        if key is None or not self._is_open or item in run.fallback_errors:
            return None
        if self._cache_keys.has_changed(item, key):
            self._warn(item, "its value is not stored", "a file among its arguments changed while it ran")
            return None
        raw = run.values.raw[item]
        try:
            raw = raw if run.keeps_serialized else encoded(raw)
            value = packed(raw)
            files = [files_of(raw)] if MARK in value.data else []
        except (SerializationError, UnhashableError, ValueError) as error:
            reason = error.reason if isinstance(error, SerializationError) else str(error)
            self._warn(item, "its value cannot be stored", reason)
            return None
        self._bytes += len(value.data)
        step, parts = run.plan.names[run.node_of[item]], [*self._reusable_content(item), *files]
        contents = joined(parts) if parts else None
        return self._database.new_entry(key.digest, step, value, contents, key.recipe)

    def _reusable_content(self, item: int) -> list[bytes]:
        """Return the content of a value that is part of keys, if later runs can use it: code in values may change."""
        if self._run.node_of[item] in self.read:
            with contextlib.suppress(UnhashableError):
                found = self.contents.parts_of(item)
                if item not in self.contents.with_code:
                    return found
        return []

    def close(self, result: PipelineResult | None) -> None:  # noqa: ARG002  a run that was cut off stores as much
        """Write the rest, record what was used, and make room."""
        with self._lock:
            if self._is_open and not self._only_look:
                self._store.hits += len(self._used)
                self._store.misses += self._lookups - len(self._used)
                self._guarded(self._finish)
            if self._is_open:
                self._is_open = False
                self._database.close()
        self._buffer.end()

    def _finish(self) -> None:
        self._buffer.flush()
        if self._is_open:
            if self._used:
                self._database.note_use(self._used)
            self._database.trim()

    def _write(self, entries: list[CacheEntry]) -> None:
        if self._is_open:
            self._bytes, self._written = 0, clock()
            try:
                self._database.add(entries, list(self._cache_keys.words.items()))
            except _TROUBLE as error:
                self._give_up(error, entries)

    # -- when the store fails

    def _guarded(self, function: Callable[..., R], *arguments: Any) -> R | None:
        """Call the store; if it fails, warn and continue without it."""
        try:
            return function(*arguments)
        except _TROUBLE as error:
            self._give_up(error, [])
            return None

    def _give_up(self, error: Exception, entries: list[CacheEntry]) -> None:
        """Warn and close the store, without the entries that could not be written."""
        unwritten = [*entries, *self._buffer.drop()[0]]
        if isinstance(error, DatabaseErrors) and is_damage(error):
            self._database.replace_damaged(error)
        else:
            where = "" if str(self._store.cache_dir) in str(error) else f"{self._store.cache_dir}: "
            _log.warning("cache: %s%s; the run continues without the cache", where, error)
            if self._is_open:
                with contextlib.suppress(*_TROUBLE):
                    self._database.discard_files(unwritten)
        if self._is_open:
            self._is_open = False
            self._database.close()


class ValueHashes:
    """The contents of the values of one run, for the keys of their readers; a `ValueSource`.

    A content is returned with the value if possible: process workers hash what they return, and a cached value has it
    in its entry. They do not if the value holds classes or functions of the user: only the driver knows what these
    reach, and they may have changed since the value was stored. Such a content is computed here when the first key
    needs it. The content of a list is computed from the contents of its values, so no list of a million is ever built
    for it.

    Args:
        run: The run.

    Attributes:
        code_graph: The code that is known already: of steps, and of classes and functions in values.
        with_code: Items whose values hold code, among the items that were hashed here.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[int, Content] = {}
        self.code_graph = CodeGraph()
        self.with_code: set[int] = set()

    def note(self, item: int, found: Content) -> None:
        """Add the content of an item's value."""
        self._known[item] = found

    def _content(self, item: int) -> Content:
        found = self._known.get(item)
        if found is None:
            raw = self._run.values.raw[item]
            parts = raw.parts if isinstance(raw, MultiOutput) else None
            found = self._hash(item, raw) if parts is None else [self._hash(item, part) for part in parts]
            self._known[item] = found
        return found

    def parts_of(self, item: int) -> list[bytes]:
        """Return the contents of all outputs of an item.

        Raises:
            UnhashableError: If there is none.
        """
        found = self._content(item)
        return found if isinstance(found, list) else [found]

    def of_item(self, item: int) -> bytes:
        """Return the content of an item's value.

        Raises:
            UnhashableError: If there is none.
        """
        found = self._content(item)
        return combined(found) if isinstance(found, list) else found

    def of_part(self, item: int, part: int) -> bytes:
        """Return the content of one of several outputs."""
        return self.parts_of(item)[part]

    def of_map(self, node: int) -> bytes:
        """Return the content of the list of all values of a mapped step."""
        items = self._run.item_index.items_of(node)
        return combined([self.of_item(item) if self.has(item) else b"-" for item in items])

    def has(self, reference: Any) -> bool:
        """Return True if there is a value."""
        return self._run.values.has(reference)

    def forget_files(self) -> None:
        """Drop the contents of values with files in them, so that the files are read again."""
        raw = self._run.values.raw
        for item, found in list(self._known.items()):
            parts = found if isinstance(found, list) else [found]
            if raw[item] is not MISSING and any(part.startswith(HOLDS_FILES) for part in parts):
                del self._known[item]

    def _hash(self, item: int, value: Any) -> bytes:
        if type(value) in ENCODED and self._run.keeps_serialized:
            try:
                value = decoded(value)
            except (Exception, SystemExit, GeneratorExit) as error:
                raise UnhashableError(f"it cannot be loaded: {type(error).__name__}: {error}") from error
        found = plain_content(value)
        if found is None:
            self.with_code.add(item)
            found = content(value, self.code_graph)
        return found
