"""Keys of journaled calls: by them the next run knows what it has finished already.

```
key = step's name + its code + contents of params, items, context + keys of the steps that it reads
```

A value of another step counts by how it came about, not by what it is: the keys of a run can be told without its
values, and a step that has changed changes the keys of all that depends on it. Of equal items of one mapped step each
counts once. A step with code or an argument that cannot be hashed runs again in each run, with a warning.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from flowyml.caching.keys import UNHASHABLE, CallHasher, KeyParts, combined, hashed
from flowyml.hashing import blake2b
from flowyml.hashing.code_graph import CodeGraph
from flowyml.hashing.content import SIZE, UnhashableError
from flowyml.store.value_store import MISSING, ListRef, MappedRef, OutputRef, bare, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowyml.runtime.run import Run
    from flowyml.store.value_store import Reference

_LENGTH = bytes((SIZE,))  # before a key among joined contents
_SHORT = 64
_LENGTHS = [length.to_bytes(4, "big") for length in range(_SHORT)]  # before names


class JournalKeys:
    """The keys of one run's calls.

    Args:
        run: The run.
        tell: Is told, once for each step, of an argument that cannot be hashed.
        foresee: Make the keys that calls will have if all steps that they read return a value.
    """

    def __init__(self, run: Run, tell: Callable[[int, UnhashableError], None], *, foresee: bool = False) -> None:
        self._run = run
        self._foresee = foresee
        self._tell = tell
        self._told: set[int] = set()
        self._of_this_run = UNHASHABLE + os.urandom(SIZE)
        self._calls = CallHasher(run, self._refer, CodeGraph(), self._unhashable)
        self._heads: dict[int, bytes] = {}
        self._of_lists: dict[int, bytes] = {}
        self._keys = bytearray(SIZE * run.layout.item_count)
        self._known = bytearray(run.layout.item_count)
        if not foresee:
            run.on_plan_change(self._grow)

    def look_ahead(self) -> None:
        """Hash the code of all steps before any has run."""
        self._calls.look_ahead(range(len(self._run.plan.forms)))

    def _grow(self, nodes: Sequence[int]) -> None:
        """Take in steps that came during the run: the last of these, which they came from, is called anew now."""
        item = self._run.layout.firsts[nodes[-1]]
        if item < len(self._known):
            self._known[item] = 0

    def of(self, items: Sequence[int]) -> list[bytes]:
        """Return the keys of several items that have one template and are named alike: see `stretches`."""
        return self.with_contents(items)[0]

    def with_contents(self, items: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
        """Return the keys of such items, and the contents of their arguments; each may read those before it."""
        contents = self._calls.all_at_once(items)
        if contents is None:
            self._make_room()
            return self._of_links(items) or self._one_by_one(items)
        run = self._run
        head, name_of = self._head(run.node_of[items[0]]), self._names(items[0])
        keys = [
            blake2b(head + name_of(item) + each, digest_size=SIZE).digest()
            for item, each in zip(items, contents, strict=True)
        ]
        self._note(items, keys)
        return keys, contents

    def _of_links(self, items: Sequence[int]) -> tuple[list[bytes], list[bytes]] | None:
        """Return the same of steps whose only argument is the value of another step, as in chains; else `None`.

        What `_one_by_one` does, without a call of ours for each item.
        """
        which = self._calls.link(items[0])
        if which is None or self._calls.outputs(self._run.node_of[items[0]]):
            return None
        names, references = self._run.plan.names, self._run.plan.references
        head, all_keys, known = self._head(self._run.node_of[items[0]]), self._keys, self._known
        keys: dict[int, bytes] = {}  # of these items: they are written to their places together
        contents: list[bytes] = []
        before, key = -1, b""
        for item, node in zip(items, map(self._run.node_of.__getitem__, items), strict=True):
            reference = references[node][which]
            if type(reference) is not int:
                return None
            if reference == before:
                each = _LENGTH + key
            elif reference in keys:
                each = _LENGTH + keys[reference]
            elif known[reference]:
                each = _LENGTH + all_keys[SIZE * reference : SIZE * reference + SIZE]
            else:
                return None
            name = names[node].encode("utf-8", "surrogatepass")
            length = _LENGTHS[len(name)] if len(name) < _SHORT else len(name).to_bytes(4, "big")
            key = keys[item] = blake2b(b"".join((head, length, name, each)), digest_size=SIZE).digest()
            before = item
            contents.append(each)
        found = list(keys.values())
        self._note(items, found)
        return found, contents

    def _one_by_one(self, items: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
        head, name_of = self._head(self._run.node_of[items[0]]), self._names(items[0])
        contents_of, all_keys, known = self._calls.joined, self._keys, self._known
        keys, contents = [], []
        for item in items:
            each = contents_of(item)
            key = blake2b(head + name_of(item) + each, digest_size=SIZE).digest()
            all_keys[SIZE * item : SIZE * (item + 1)] = key
            known[item] = 1
            keys.append(key)
            contents.append(each)
        return keys, contents

    def _names(self, item: int) -> Callable[[int], bytes]:
        """Return what tells the name of an item's step, for items like this one."""
        run = self._run
        node = run.node_of[item]
        if run.layout.is_mapped(node):
            name = _name(run.plan.names[node])
            if self._asks(node):  # it may return another value for an equal item
                first = run.layout.firsts[node]
                return lambda item: name + (item - first).to_bytes(8, "big")
            return lambda _: name
        names, node_of, outputs = run.plan.names, run.node_of, self._calls.outputs
        if outputs(node_of[item]):  # steps that call alike may differ in them
            return lambda item: _name(names[node_of[item]]) + hashed(outputs(node_of[item]))
        return lambda item: _name(names[node_of[item]])

    def _make_room(self) -> None:
        """Have a place for the keys of items that have come during the run."""
        more = self._run.layout.item_count - len(self._known)
        if more > 0:
            self._known.extend(bytes(more))
            self._keys.extend(bytes(SIZE * more))

    def _note(self, items: Sequence[int], keys: list[bytes]) -> None:
        """Keep keys for those who read these items."""
        self._make_room()
        first, last = items[0], items[-1]
        if last - first + 1 == len(items) and list(items) == list(range(first, last + 1)):
            self._keys[SIZE * first : SIZE * (last + 1)] = b"".join(keys)
            self._known[first : last + 1] = b"\1" * len(items)
            return
        for item, key in zip(items, keys, strict=True):
            self._keys[SIZE * item : SIZE * (item + 1)] = key
            self._known[item] = 1

    def key(self, item: int) -> bytes:
        """Return the key of one item."""
        if item >= len(self._known) or not self._known[item]:
            return self.of([item])[0]
        return bytes(self._keys[SIZE * item : SIZE * (item + 1)])

    def read_again(self, item: int) -> bytes:
        """Return the contents of an item's arguments as they are now; see `CallHasher.read_again`."""
        return self._calls.read_again(item)

    def made(self, node: int) -> KeyParts:
        """Return what the keys of a step are made of."""
        try:
            return self._calls.made(node)
        except UnhashableError:
            return KeyParts({}, self._calls.names(node))

    def template(self, node: int) -> int:
        """Return what steps share whose keys are made of the same."""
        return id(self._run.plan.templates[node])

    def stretches(self, items: Sequence[int]) -> Iterable[Sequence[int]]:
        """Split items into such that have one template: ordinary steps, or items of one mapped step."""
        node_of, templates, mapped = self._run.node_of, self._run.plan.templates, self._run.layout.mapped
        alike = list(map(templates.__getitem__, map(node_of.__getitem__, items)))
        if alike and alike.count(alike[0]) == len(items) and node_of[items[0]] not in mapped:
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

    def _head(self, node: int) -> bytes:
        template = self.template(node)
        found = self._heads.get(template)
        if found is None:
            calls = self._calls
            names = "\0".join(self.made(node).arguments).encode("utf-8", "surrogatepass")
            try:
                code = calls.fingerprint(node).digest
            except UnhashableError as error:
                code = self._unhashable(node, error)
            found = self._heads[template] = hashed(b"journal 2", code, names)
        return found

    # -- what stands for the values of other steps

    def _refer(self, reference: Reference) -> bytes | None:
        if type(reference) is int:
            known = reference < len(self._known) and self._known[reference]
            return bytes(self._keys[SIZE * reference : SIZE * (reference + 1)]) if known else self.key(reference)
        if isinstance(reference, OutputRef):
            return combined([self.key(reference.item), bytes([reference.part & 0xFF, reference.part >> 8])])
        if isinstance(reference, MappedRef):
            return self._of_list(reference.node)
        if isinstance(reference, ListRef):
            return combined([self._refer(each) or b"-" for each in reference.references])
        return self._present(bare(reference))

    def _of_list(self, node: int) -> bytes:
        """Return what stands for all values of a mapped step."""
        found = self._of_lists.get(node)
        if found is None:
            raw, items = self._run.values.raw, self._run.layout.items_of(node)
            found = self._of_lists[node] = combined(
                [b"-" if raw[item] is MISSING and not self._foresee else self.key(item) for item in items]
            )
        return found

    def _present(self, reference: Any) -> bytes | None:
        """Return the same for what is there: whether a value is there is part of the key."""
        if isinstance(reference, MappedRef):
            return self._of_list(reference.node) if self._run.values.is_whole(reference.node) else None
        parts = parts_of(reference, self._run.layout)
        if parts is None:
            return self._refer(reference) if self._foresee or self._run.values.has(reference) else None
        return combined([self._present(part) or b"-" for part in parts])

    def _asks(self, node: int) -> bool:
        """Return True if a step's code may call `get_context()`."""
        try:
            return self._calls.fingerprint(node).asks
        except UnhashableError:
            return True

    def _unhashable(self, node: int, error: UnhashableError) -> bytes:
        """Return the substitute for something that cannot be hashed: one that no other run has."""
        if node not in self._told:
            self._told.add(node)
            self._tell(node, error)
        return self._of_this_run


def _name(name: str) -> bytes:
    data = name.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(4, "big") + data
