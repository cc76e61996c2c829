"""Keys of calls: a hash of the function and of the content of each argument.

```
item ──arguments()──▶ one content for each source of its template ──joined()──▶ part of a key
                       params, items, context: hashing/content.py
                       values of other steps: `ValueSource`, the only thing in which cache and journal differ
```

The parts that all calls of a template share are hashed once, and a parameter of a mapped step once for all its items: a
million calls of one function hash its code once. The module knows neither stores nor executors.

Keys of the cache:

```
"code_hash"     its code    + names and contents of its arguments, and its name and index if it may call `get_context()`
"input_hash"    its name    + the same
a function      its name    + the string that the function returns
```

The step's name in the pipeline is not part of the first key, so a renamed step finds its value. A value of another step
counts by its content, not by its origin: a step that ran again and returned an equal value changes no key.
"""

from __future__ import annotations

import contextlib
import marshal
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.hashing import blake2b
from flowyml.hashing.content import ATOMS, HOLDS_FILES, SIZE, UnhashableError, content, contents_of_atoms
from flowyml.hashing.file import collected
from flowyml.hashing.fingerprint import FunctionFingerprint, fingerprint
from flowyml.planning.call_template import ASSET, CHOICE, ITEM, KEPT, PARAM, SPREAD, VALUE, VIEW
from flowyml.runtime.events import LazyInputs
from flowyml.steps.cache_policy import CODE
from flowyml.steps.step import added_step
from flowyml.store.serialization import decoded
from flowyml.store.value_store import ListRef, MappedRef, MultiOutput, OutputRef, parts_of, unwrap_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Protocol

    from flowyml.caching.step_cache import ValueHashes
    from flowyml.hashing.code_graph import CodeGraph
    from flowyml.planning.call_template import CallTemplate
    from flowyml.planning.step_spec import StepSpec
    from flowyml.runtime.run import Run
    from flowyml.steps.cache_policy import CachePolicy
    from flowyml.store.value_store import Reference

    class ValueSource(Protocol):
        """How values of other steps count in keys."""

        def of_item(self, item: int) -> bytes:
            """Return the content of an item's value, or what stands for it."""

        def of_part(self, item: int, part: int) -> bytes:
            """Return the same of one of several outputs."""

        def of_map(self, node: int) -> bytes:
            """Return the same of the list of all values of a mapped step."""

        def has(self, reference: Any) -> bool:
            """Return True if there is a value."""


_CACHE_KEY_VERSION = b"2"  # changes when keys of the cache are made in another way
_MARSHAL_VERSION = 2
_MAX_SHARED_PARAMS = 10_000  # contents of parameters that steps share are kept up to this number
_LENGTH_BYTES = [bytes((length,)) for length in range(256)]
_MISSING = b"-"
FILES = b"%"
"""The first byte of the hash of the files that a value refers to, which is stored with its content."""
UNHASHABLE = b"?"
"""The first byte of the substitute for an argument without a content; no content begins with it."""


class CacheKey(NamedTuple):
    """The key of a cached call.

    Attributes:
        digest: The key of its value.
        recipe: What it was made of: the id of its `KeyParts`, and the contents of the arguments.
    """

    digest: bytes
    recipe: bytes


class KeyParts(NamedTuple):
    """What a key is made of, in words and short hashes, so that a change can be explained.

    Attributes:
        parts: Parts of the function and its conditions.
        arguments: Names of the arguments, in the order of their contents.
    """

    parts: dict[str, bytes]
    arguments: list[str]

    def packed(self) -> bytes:
        """Return it as bytes."""
        return marshal.dumps(tuple(self), _MARSHAL_VERSION)

    @classmethod
    def unpacked(cls, data: bytes) -> KeyParts:
        """Return the key parts of `packed` bytes."""
        return cls(*marshal.loads(data))  # noqa: S302  the row or record has a checksum


class CacheKeys:
    """The keys of one run's cached calls.

    Args:
        run: The run.
        contents: The contents of its values.
        context: Its context, for the user's key functions.

    Attributes:
        words: The `KeyParts` of the keys, packed, by id.
    """

    def __init__(self, run: Run, contents: ValueHashes, context: Mapping[str, Any]) -> None:
        self._run = run
        self._context = context
        self._contents = contents
        self._hasher = CallHasher(run, contents, contents.code_graph)
        self._heads: dict[tuple[int, tuple[str, ...]], tuple[bytes, bytes]] = {}
        self._uses_context: dict[int, bool] = {}
        self.words: dict[bytes, bytes] = {}

    def key(self, item: int, mode: CachePolicy) -> CacheKey:
        """Return the key of an item.

        Raises:
            UnhashableError: If an argument has no content.
            Exception: Any exception of the user's key function.
        """
        node = self._run.node_of[item]
        if mode.function is not None:
            return self._user_key(item, node, mode)
        head, words = self._head(node, mode)
        contents = self._hasher.joined(item)
        if self._uses_context[id(self._run.plan.templates[node])]:
            # What `get_context()` returns about an item that is the same in each run.
            contents += joined([content([self._run.plan.name, self._run.item_name(item)])])
        return CacheKey(blake2b(head + contents, digest_size=SIZE).digest(), words + contents)

    def has_changed(self, item: int, key: CacheKey) -> bool:
        """Return True if a file among an item's arguments has changed since its key was made."""
        before = key.recipe[SIZE:]
        if not holds_files(before):
            return False
        self._contents.forget_files()
        try:
            return not before.startswith(self._hasher.read_again(item))  # the item's name and index may follow
        except UnhashableError:
            return True

    def hash_code(self, nodes: Iterable[int]) -> None:
        """Hash the code of steps before any step has run."""
        self._hasher.hash_code(nodes)

    def _head(self, node: int, mode: CachePolicy) -> tuple[bytes, bytes]:
        """Return what all keys of a step have in common, and the id of their `KeyParts`."""
        plan, hasher = self._run.plan, self._hasher
        shared = id(plan.templates[node]), plan.specs[node].several
        found = self._heads.get(shared)
        if found is None:
            code = hasher.fingerprint(node).digest if mode.name == "code_hash" else self._identity(node)
            try:
                parts, uses_context = hasher.parts(node), hasher.fingerprint(node).asks
            except UnhashableError:
                if mode == CODE:
                    raise
                parts, uses_context = KeyParts({}, hasher.names(node)), True
            self._uses_context[shared[0]] = uses_context
            if uses_context:
                parts = parts._replace(arguments=[*parts.arguments, "get_context()"])
            head = hashed(
                _CACHE_KEY_VERSION, mode.name.encode(), code, hasher.outputs(node), _utf8("\0".join(parts.arguments))
            )
            words = parts.packed()
            found = self._heads[shared] = (head, hashed(words))
            self.words[found[1]] = words
        return found

    def _user_key(self, item: int, node: int, mode: CachePolicy) -> CacheKey:
        spec = self._run.plan.specs[node]
        step = added_step(spec.step, self._run.item_name(item), spec.inputs, spec.outputs, spec.options)
        text = mode.own_key(step, LazyInputs(self._run, item, None), self._context)
        identity, outputs = self._identity(node), self._hasher.outputs(node)
        return CacheKey(hashed(_CACHE_KEY_VERSION, b"own", identity, outputs, _utf8(text)), b"")

    def _identity(self, node: int) -> bytes:
        """Return what stands for a function whose code does not count: its names, and the values bound to it.

        A lambda has no name of its own, so its code counts.
        """
        step = self._run.plan.specs[node].step
        function, bound = _unbound(step.func)
        names = [step.name, *(str(getattr(function, name, "")) for name in ("__module__", "__qualname__"))]
        parts = [_utf8("\0".join(names)), *(content(value, self._contents.code_graph) for value in bound)]
        if getattr(function, "__name__", "") == "<lambda>":
            parts.append(self._hasher.fingerprint(node).digest)
        return hashed(*parts)


def _unbound(func: Any) -> tuple[Any, list[Any]]:
    """Return the plain function of a partial, a bound method or a callable object, and the values bound to it."""
    bound: list[Any] = []
    while isinstance(func, partial):
        bound += [func.args, func.keywords]
        func = func.func
    if isinstance(func, MethodType):
        if not isinstance(func.__self__, type):
            bound.append(func.__self__)
        return func.__func__, bound
    if not hasattr(func, "__qualname__"):
        bound.append(func)
    return func, bound


class CallHasher:
    """Functions and arguments of a run's calls, by content.

    Args:
        run: The run.
        values: How values of other steps count.
        code_graph: The code that is known already.
        on_unhashable: Called with the step of an argument that has no content; returns a substitute. Without it, such
            an argument is an error.
    """

    def __init__(
        self,
        run: Run,
        values: ValueSource,
        code_graph: CodeGraph,
        on_unhashable: Callable[[int, UnhashableError], bytes] | None = None,
    ) -> None:
        self._run = run
        self._values = values
        self._code = code_graph
        self._on_unhashable = on_unhashable
        self._fingerprints: dict[tuple[int, int], FunctionFingerprint | UnhashableError] = {}
        self._functions: dict[int, tuple[object, FunctionFingerprint]] = {}
        self._parts: dict[int, KeyParts] = {}
        self._of_template: dict[int, list[bytes | None]] = {}
        self._of_mapped: dict[int, list[bytes | None]] = {}
        self._of_params: dict[int, tuple[object, bytes]] = {}

    # -- functions

    def fingerprint(self, node: int) -> FunctionFingerprint:
        """Return the fingerprint of a step's function and its conditions.

        Raises:
            UnhashableError: If a part of it cannot be hashed.
        """
        spec = self._run.plan.specs[node]
        key = (id(spec.step), id(spec.options))
        found = self._fingerprints.get(key)
        if found is None:
            try:
                found = self._fingerprint_of(spec)
            except UnhashableError as error:
                found = error
            self._fingerprints[key] = found
        if isinstance(found, UnhashableError):
            raise found
        return found

    def hash_code(self, nodes: Iterable[int]) -> None:
        """Hash the functions of steps before any has run: steps import modules, which are not loaded in every run.

        A function that cannot be hashed is an error when a key is made.
        """
        specs = self._run.plan.specs
        for node in {id(specs[node]): node for node in nodes}.values():
            with contextlib.suppress(UnhashableError):
                self.fingerprint(node)

    def _fingerprint_of(self, spec: StepSpec) -> FunctionFingerprint:
        own = self._function_fingerprint(spec.step.func)
        guards = spec.options.guards
        if not guards:
            return own
        state, parts, asks = blake2b(own.digest, digest_size=SIZE), dict(own.parts), own.asks
        for number, guard in enumerate(guards, 1):
            condition = self._function_fingerprint(guard.predicate)
            state.update(condition.digest + bytes([guard.wanted]))
            parts[f"its condition {number}" if len(guards) > 1 else "its condition"] = condition.digest[:8]
            asks = asks or condition.asks
        return FunctionFingerprint(state.digest(), parts, asks)

    def _function_fingerprint(self, function: Any) -> FunctionFingerprint:
        found = self._functions.get(id(function))
        if found is None:
            found = self._functions[id(function)] = (function, fingerprint(function, self._code))
        return found[1]

    def parts(self, node: int) -> KeyParts:
        """Return the parts of the keys of a step.

        Raises:
            UnhashableError: If its code cannot be hashed.
        """
        template = id(self._template(node))
        found = self._parts.get(template)
        if found is None:
            found = self._parts[template] = KeyParts(self.fingerprint(node).parts, self.names(node))
        return found

    def names(self, node: int) -> list[str]:
        """Return the names of the arguments whose contents `arguments` returns."""
        names = argument_names(self._template(node), self._run.plan.specs[node])
        return names if self._run.seed is None else [*names, "seed"]

    def outputs(self, node: int) -> bytes:
        """Return the declared outputs of a step with several: they determine how its value is split."""
        return _utf8("\0".join(self._run.plan.specs[node].several))

    # -- arguments

    def arguments(self, item: int) -> list[bytes]:
        """Return the contents of an item's arguments, in call order.

        Raises:
            UnhashableError: If one has none.
        """
        run = self._run
        node = run.node_of[item]
        template = self._template(node)
        known = self._of_mapped.get(node) if node in run.item_index.mapped else self._of_template.get(id(template))
        contents: list[Any] = list(known or self._known_before(node, template))
        for position, (kind, which) in enumerate(template.sources):
            if contents[position] is None:
                if kind == ASSET:  # the most common kind, for which another call per argument shows
                    reference = run.plan.references[node][which]
                    if type(reference) is int:
                        contents[position] = self._values.of_item(reference)
                    else:
                        contents[position] = self._of_reference(reference) or _MISSING
                else:
                    contents[position] = self._of_source(kind, which, node, item)
        if run.seed is not None:
            contents.append(content(run.calls.seed_of(item)))
        return contents

    def joined(self, item: int) -> bytes:
        """Return the contents of an item's arguments, joined.

        Raises:
            UnhashableError: If one has none.
        """
        return joined(self.arguments(item))

    def read_again(self, item: int) -> bytes:
        """Return the contents of an item's arguments as they are now, joined.

        Raises:
            UnhashableError: If one has none.
        """
        known = self._of_template, self._of_mapped, self._of_params
        self._of_template, self._of_mapped, self._of_params = {}, {}, {}
        try:
            return self.joined(item)
        finally:
            self._of_template, self._of_mapped, self._of_params = known

    def joined_batch(self, items: Sequence[int]) -> list[bytes] | None:
        """Return the joined contents of several items of one template whose only argument is a number or string.

        Most large fan-outs consist of such items; `None` for all others.
        """
        run, node = self._run, self._run.node_of[items[0]]
        template = self._template(node)
        if run.seed is not None or len(template.sources) != 1:
            return None
        if template.single:
            inputs, first = run.map_inputs[node], run.item_index.firsts[node]
            values = [inputs[item - first] for item in items]
        elif template.direct and template.has_single_param:
            rows, node_of = run.plan.rows, run.node_of
            values = [rows[node_of[item]] for item in items]
        else:
            return None
        contents = contents_of_atoms(values)
        return None if contents is None else [_LENGTH_BYTES[len(each)] + each for each in contents]

    def only_reference(self, item: int) -> int | None:
        """Return the position of the reference that is the only argument of an item's step; `None` for other steps."""
        template = self._template(self._run.node_of[item])
        ((kind, which), *others) = template.sources or ((None, None),)
        return which if kind == ASSET and not others and self._run.seed is None else None

    def _known_before(self, node: int, template: CallTemplate) -> list[bytes | None]:
        """Return the contents that all items of a template, or of a mapped step, have in common."""
        shared = self._of_template.get(id(template))
        if shared is None:
            shared = [self._of_param(which, node) if kind == VALUE else None for kind, which in template.sources]
            self._of_template[id(template)] = shared
        if not self._run.item_index.is_mapped(node):
            return shared
        row = self._run.plan.row(node)
        params = [self._of_param(row[which], node) if kind == PARAM else None for kind, which in template.sources]
        self._of_mapped[node] = [one or other for one, other in zip(shared, params, strict=True)]
        return self._of_mapped[node]

    def _of_source(self, kind: int, which: Any, node: int, item: int) -> bytes:
        plan = self._run.plan
        if kind == PARAM:
            return self._of_param(plan.row(node)[which], node)
        if kind in {ITEM, KEPT}:
            entry = self._run.map_inputs[node][item - self._run.item_index.firsts[node]]
            part = entry if which is None else entry[which]
            return self._of_value(part, node) if kind == ITEM else self._of_reference(part) or _MISSING
        references = plan.references.get(node, ())  # a decision may depend on nothing
        if kind == SPREAD:
            return self._of_reference(references[which]) or _MISSING
        if kind == CHOICE:
            return self._of_reference(references[which[0]]) or self._of_param(which[1], node)
        assert kind == VIEW  # noqa: S101  all kinds are above
        seen = [self._of_reference(reference) or _MISSING for reference in references]
        return combined([self._of_param(which, node), *seen])

    def _of_param(self, value: Any, node: int) -> bytes:
        if type(value) in ATOMS:
            return content(value)
        known = self._of_params.get(id(value))
        if known is None:
            if len(self._of_params) >= _MAX_SHARED_PARAMS:
                self._of_params.clear()
            known = self._of_params[id(value)] = (value, self._of_value(value, node))
        return known[1]

    def _of_value(self, value: Any, node: int) -> bytes:
        try:
            return content(value, self._code)
        except UnhashableError as error:
            if self._on_unhashable is None:
                raise
            return self._on_unhashable(node, error)

    def _of_reference(self, reference: Reference) -> bytes | None:
        """Return what stands in a key for a value of other steps; `None` if there is no value."""
        if isinstance(reference, int):
            return self._values.of_item(reference)
        if isinstance(reference, OutputRef):
            return self._values.of_part(reference.item, reference.part)
        if isinstance(reference, MappedRef):
            return self._values.of_map(reference.node)
        if isinstance(reference, ListRef):
            return combined([self._of_reference(each) or _MISSING for each in reference.references])
        return self._of_optional(unwrap_reference(reference))

    def _of_optional(self, reference: Any) -> bytes | None:
        """Return the same of references whose values may be missing: lists contain the values that there are."""
        if isinstance(reference, MappedRef):
            return self._values.of_map(reference.node) if self._run.values.is_whole(reference.node) else None
        parts = parts_of(reference, self._run.item_index)
        if parts is None:
            return self._of_reference(reference) if self._values.has(reference) else None
        return combined([part for part in map(self._of_optional, parts) if part is not None])

    def _template(self, node: int) -> CallTemplate:
        return self._run.plan.templates[node]  # type: ignore[return-value]  # a plan that runs is wired


def argument_names(template: CallTemplate, spec: StepSpec) -> list[str]:
    """Return the names of a template's arguments in call order."""
    signature, count = spec.step.signature, len(template.sources) - len(template.keywords)
    names = list(signature.positional[:count])
    star = signature.var_positional or "args"
    return [*names, *(f"*{star}[{k}]" for k in range(count - len(names))), *template.keywords]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def joined(contents: Iterable[bytes]) -> bytes:
    """Return contents in one byte string that can be split again.

    >>> split(joined([b"a", b"", b"bc"]))
    [b'a', b'', b'bc']
    """
    return b"".join([_LENGTH_BYTES[len(each)] + each for each in contents])


def split(contents: bytes) -> list[bytes]:
    """Split what `joined` returned."""
    parts, position = [], 0
    while position < len(contents):
        end = position + 1 + contents[position]
        parts.append(contents[position + 1 : end])
        position = end
    return parts


def files_of(raw: Any) -> bytes:
    """Return one hash of the paths and bytes of all files that an encoded value refers to.

    Raises:
        Exception: Any exception of loading the value, and `UnhashableError`.
    """
    value = decoded(raw)
    with collected() as files:
        for part in value.parts if isinstance(value, MultiOutput) else (value,):
            content(part)
    return FILES + content(sorted(files.items()))[-SIZE:]


def holds_files(contents: bytes) -> bool:
    """Return True if one of the joined contents is that of a value with a `File` in it.

    >>> holds_files(joined([b"@a", b"b"])), holds_files(joined([b"a@"]))
    (True, False)
    """
    return HOLDS_FILES in contents and any(each.startswith(HOLDS_FILES) for each in split(contents))


def combined(contents: Sequence[bytes]) -> bytes:
    """Return one content for a list of contents."""
    first = HOLDS_FILES if any(each.startswith(HOLDS_FILES) for each in contents) else b"+"
    return first + blake2b(joined(contents), digest_size=SIZE).digest()


def hashed(*parts: bytes) -> bytes:
    """Return a key of these parts."""
    return blake2b(joined(parts[:-1]) + parts[-1], digest_size=SIZE).digest()
