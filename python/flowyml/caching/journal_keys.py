"""Keys of journaled calls, by which the next run recognises the calls that are finished.

```
key = step's name + its code + contents of params, items, context + keys of the steps that it reads
```

A value of another step counts by its origin, not by its content: the keys of a run do not depend on its values, and a
step that has changed changes the keys of all its dependents. Of equal items of a mapped step each counts once. A step
with code or an argument that cannot be hashed runs again in each run, with a warning.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from flowyml.caching.keys import UNHASHABLE, CallHasher, KeyParts, combined, hashed
from flowyml.hashing import blake2b
from flowyml.hashing.code_graph import CodeGraph
from flowyml.hashing.content import SIZE, UnhashableError
from flowyml.store.value_store import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowyml.runtime.run import Run

_KEY_VERSION = b"journal 2"
_KEY_LENGTH = bytes((SIZE,))  # precedes a key among joined contents
_SHORT = 64
_NAME_LENGTHS = [length.to_bytes(4, "big") for length in range(_SHORT)]


class JournalKeys:
    """The keys of one run's calls; a `ValueSource` for the values that the calls read.

    Args:
        run: The run.
        on_unhashable: Called once for each step with code or an argument that cannot be hashed.
        foresee: Make the keys that calls will have if all steps that they read return a value.
    """

    def __init__(
        self, run: Run, on_unhashable: Callable[[int, UnhashableError], None], *, foresee: bool = False
    ) -> None:
        self._run = run
        self._foresee = foresee
        self._on_unhashable = on_unhashable
        self._unhashable: set[int] = set()
        self._substitute = UNHASHABLE + os.urandom(SIZE)  # no other run has it
        self._hasher = CallHasher(run, self, CodeGraph(), self._substitute_for)
        self._heads: dict[int, bytes] = {}
        self._of_maps: dict[int, bytes] = {}
        self._keys = bytearray(SIZE * run.item_index.item_count)
        self._is_known = bytearray(run.item_index.item_count)
        if not foresee:
            run.on_plan_change(self._on_steps_added)

    def hash_code(self) -> None:
        """Hash the code of all steps before any has run."""
        self._hasher.hash_code(range(len(self._run.plan.specs)))

    def _on_steps_added(self, nodes: Sequence[int]) -> None:
        """Drop the key of the dynamic step that returned these steps; it is the last of them and is called again."""
        item = self._run.item_index.firsts[nodes[-1]]
        if item < len(self._is_known):
            self._is_known[item] = 0

    # -- keys

    def key(self, item: int) -> bytes:
        """Return the key of one item."""
        if item < len(self._is_known) and self._is_known[item]:
            return bytes(self._keys[SIZE * item : SIZE * (item + 1)])
        return self.of([item])[0]

    def of(self, items: Sequence[int]) -> list[bytes]:
        """Return the keys of several items of one template; see `groups`."""
        return self.with_contents(items)[0]

    def with_contents(self, items: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
        """Return the keys of such items, and the contents of their arguments; each may read those before it."""
        contents = self._hasher.joined_batch(items)
        if contents is None:
            self._make_room()
            return self._of_chain(items) or self._one_by_one(items)
        head, name_of = self._head(self._run.node_of[items[0]]), self._naming(items[0])
        keys = [
            blake2b(head + name_of(item) + each, digest_size=SIZE).digest()
            for item, each in zip(items, contents, strict=True)
        ]
        self._keep(items, keys)
        return keys, contents

    def _of_chain(self, items: Sequence[int]) -> tuple[list[bytes], list[bytes]] | None:
        """Return the same for steps whose only argument is the value of another step, as in chains; else `None`.

        It computes what `_one_by_one` does, without a call of ours for each item.
        """
        which = self._hasher.only_reference(items[0])
        if which is None or self._hasher.outputs(self._run.node_of[items[0]]):
            return None
        names, references = self._run.plan.names, self._run.plan.references
        head, all_keys, known = self._head(self._run.node_of[items[0]]), self._keys, self._is_known
        keys: dict[int, bytes] = {}  # of these items: they are copied to their places together
        contents: list[bytes] = []
        before, key = -1, b""
        for item, node in zip(items, map(self._run.node_of.__getitem__, items), strict=True):
            reference = references[node][which]
            if type(reference) is not int:
                return None
            if reference == before:
                each = _KEY_LENGTH + key
            elif reference in keys:
                each = _KEY_LENGTH + keys[reference]
            elif known[reference]:
                each = _KEY_LENGTH + all_keys[SIZE * reference : SIZE * reference + SIZE]
            else:
                return None
            name = names[node].encode("utf-8", "surrogatepass")
            length = _NAME_LENGTHS[len(name)] if len(name) < _SHORT else len(name).to_bytes(4, "big")
            key = keys[item] = blake2b(b"".join((head, length, name, each)), digest_size=SIZE).digest()
            before = item
            contents.append(each)
        found = list(keys.values())
        self._keep(items, found)
        return found, contents

    def _one_by_one(self, items: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
        head, name_of = self._head(self._run.node_of[items[0]]), self._naming(items[0])
        contents_of, all_keys, known = self._hasher.joined, self._keys, self._is_known
        keys, contents = [], []
        for item in items:
            each = contents_of(item)
            key = blake2b(head + name_of(item) + each, digest_size=SIZE).digest()
            all_keys[SIZE * item : SIZE * (item + 1)] = key
            known[item] = 1
            keys.append(key)
            contents.append(each)
        return keys, contents

    def _head(self, node: int) -> bytes:
        """Return what all keys of a template have in common."""
        template = self.template(node)
        head = self._heads.get(template)
        if head is None:
            names = "\0".join(self.parts(node).arguments).encode("utf-8", "surrogatepass")
            try:
                code = self._hasher.fingerprint(node).digest
            except UnhashableError as error:
                code = self._substitute_for(node, error)
            head = self._heads[template] = hashed(_KEY_VERSION, code, names)
        return head

    def _naming(self, item: int) -> Callable[[int], bytes]:
        """Return a function that returns the part of the key for the step's name, for items like this one."""
        run = self._run
        node, node_of, names, outputs = run.node_of[item], run.node_of, run.plan.names, self._hasher.outputs
        if run.item_index.is_mapped(node):
            name = _name(names[node])
            if self._uses_context(node):  # it may return another value for an equal item
                first = run.item_index.firsts[node]
                return lambda item: name + (item - first).to_bytes(8, "big")
            return lambda _: name
        if outputs(node):  # steps that call alike may differ in them
            return lambda item: _name(names[node_of[item]]) + hashed(outputs(node_of[item]))
        return lambda item: _name(names[node_of[item]])

    def _uses_context(self, node: int) -> bool:
        try:
            return self._hasher.fingerprint(node).asks
        except UnhashableError:
            return True

    def _make_room(self) -> None:
        """Make room for the keys of items that were added during the run."""
        added = self._run.item_index.item_count - len(self._is_known)
        if added > 0:
            self._is_known.extend(bytes(added))
            self._keys.extend(bytes(SIZE * added))

    def _keep(self, items: Sequence[int], keys: list[bytes]) -> None:
        """Keep keys for the readers of these items."""
        self._make_room()
        first, last = items[0], items[-1]
        if last - first + 1 == len(items) and list(items) == list(range(first, last + 1)):
            self._keys[SIZE * first : SIZE * (last + 1)] = b"".join(keys)
            self._is_known[first : last + 1] = b"\1" * len(items)
            return
        for item, key in zip(items, keys, strict=True):
            self._keys[SIZE * item : SIZE * (item + 1)] = key
            self._is_known[item] = 1

    def read_again(self, item: int) -> bytes:
        """Return the contents of an item's arguments as they are now; see `CallHasher.read_again`."""
        return self._hasher.read_again(item)

    def template(self, node: int) -> int:
        """Return an id that steps share whose keys are made of the same parts."""
        return id(self._run.plan.templates[node])

    def parts(self, node: int) -> KeyParts:
        """Return the parts of the keys of a step."""
        try:
            return self._hasher.parts(node)
        except UnhashableError:
            return KeyParts({}, self._hasher.names(node))

    def groups(self, items: Sequence[int]) -> Iterable[Sequence[int]]:
        """Split items into groups of one template: ordinary steps, or items of one mapped step."""
        node_of, templates, mapped = self._run.node_of, self._run.plan.templates, self._run.item_index.mapped
        of_items = list(map(templates.__getitem__, map(node_of.__getitem__, items)))
        if of_items and of_items.count(of_items[0]) == len(items) and node_of[items[0]] not in mapped:
            yield items
            return
        start = 0
        while start < len(items):
            node = node_of[items[start]]
            template, end = templates[node], start + 1
            if node in mapped:
                while end < len(items) and node_of[items[end]] == node:
                    end += 1
            else:
                while end < len(items) and templates[node_of[items[end]]] is template:
                    end += 1
            yield items[start:end]
            start = end

    # -- values of other steps in keys

    of_item = key

    def of_part(self, item: int, part: int) -> bytes:
        """Return what stands for one of several outputs."""
        return combined([self.key(item), bytes([part & 0xFF, part >> 8])])

    def of_map(self, node: int) -> bytes:
        """Return what stands for all values of a mapped step."""
        found = self._of_maps.get(node)
        if found is None:
            raw, items = self._run.values.raw, self._run.item_index.items_of(node)
            found = self._of_maps[node] = combined(
                [b"-" if raw[item] is MISSING and not self._foresee else self.key(item) for item in items]
            )
        return found

    def has(self, reference: Any) -> bool:
        """Return True if there is a value: that is part of the key."""
        return self._foresee or self._run.values.has(reference)

    def _substitute_for(self, node: int, error: UnhashableError) -> bytes:
        if node not in self._unhashable:
            self._unhashable.add(node)
            self._on_unhashable(node, error)
        return self._substitute


def _name(name: str) -> bytes:
    data = name.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(4, "big") + data
