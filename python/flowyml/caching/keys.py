"""What the calls of a run are recognised by: the function, and the content of each argument.

```
item ──arguments()──▶ one content for each source of its template ──joined()──▶ part of a key
                       params, items, context: hashing/content.py
                       values of other steps: what `refer` says, the one thing in which cache and journal differ
```

What all calls of a template have in common is looked at once, a parameter of a mapped step once for all its items: a
million calls of one function cost one look at its code. The module knows neither stores nor executors.

Keys of cached calls: what a step's value is stored under.

```
"code_hash"     its code    + names and contents of its arguments, and its name and index if it may call `get_context()`
"input_hash"    its name    + the same
a function      its name    + the text that the function returns
```

The step's name in the pipeline takes no part in the first: a step that was renamed finds its value. A value of another
step counts by its content, not by how it came about: a step that ran again and returned the same changes no key.
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
from flowyml.store.serialization import decoded
from flowyml.store.value_store import MultiOutput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowyml.caching.step_cache import ValueHashes
    from flowyml.runtime.run import Run
    from flowyml.steps.cache_policy import CachePolicy


_FORM = b"2"  # changes when keys are made in another way


class CacheKey(NamedTuple):
    """The key of a call.

    Attributes:
        digest: What its value is stored under.
        recipe: What it was made of: the name of the words for it, and the contents of the arguments.
    """

    digest: bytes
    recipe: bytes


class CacheKeys:
    """The keys of one run's cached calls.

    Args:
        run: The run.
        contents: The contents of its values.
        context: Its context, for the user's key functions.

    Attributes:
        words: What keys are made of, packed, by name; see `call_keys.Made`.
    """

    def __init__(self, run: Run, contents: ValueHashes, context: Mapping[str, Any]) -> None:
        self._run = run
        self._context = context
        self._contents = contents
        self._code = contents.code_graph
        self._calls = CallHasher(run, contents.of, self._code)
        self._heads: dict[tuple[int, tuple[str, ...]], tuple[bytes, bytes]] = {}
        self._asking: dict[int, bool] = {}
        self.words: dict[bytes, bytes] = {}

    def key(self, item: int, mode: CachePolicy) -> CacheKey:
        """Return the key of an item.

        Raises:
            Unhashable: If an argument has no content.
            Exception: Whatever the user's function raises.
        """
        node = self._run.node_of[item]
        if mode.function is not None:
            return self._own(item, node, mode)
        head, words = self._head(node, mode)
        contents = joined(self._calls.arguments(item))
        if self._asking[id(self._run.plan.templates[node])]:
            contents += joined([_place(self._run, item)])
        return CacheKey(blake2b(head + contents, digest_size=SIZE).digest(), words + contents)

    def has_changed(self, item: int, key: CacheKey) -> bool:
        """Return True if a file among an item's arguments has changed since its key was made."""
        before = key.recipe[SIZE:]
        if not holds_files(before):
            return False
        self._contents.forget_files()
        try:
            return not before.startswith(self._calls.read_again(item))  # the item's name and index may follow
        except UnhashableError:
            return True

    def look_ahead(self, nodes: Iterable[int]) -> None:
        """Hash the code of these steps before any step has run."""
        self._calls.look_ahead(nodes)

    def _head(self, node: int, mode: CachePolicy) -> tuple[bytes, bytes]:
        """Return what all keys of a step have in common, and the name of the words for it."""
        plan = self._run.plan
        alike = id(plan.templates[node]), plan.forms[node].several
        found = self._heads.get(alike)
        if found is None:
            calls = self._calls
            code = calls.fingerprint(node).digest if mode.name == "code_hash" else self._identity(node)
            made, asks = self._made(node, mode)
            self._asking[alike[0]] = asks
            if asks:
                made = made._replace(arguments=[*made.arguments, "get_context()"])
            names = "\0".join(made.arguments).encode("utf-8", "surrogatepass")
            head = hashed(_FORM, mode.name.encode(), code, calls.outputs(node), names)
            words = made.packed()
            found = self._heads[alike] = (head, hashed(words))
            self.words[found[1]] = words
        return found

    def _made(self, node: int, mode: CachePolicy) -> tuple[KeyParts, bool]:
        """Return the parts of the keys of a step, and whether it may call `get_context()`."""
        calls = self._calls
        try:
            return calls.made(node), calls.fingerprint(node).asks
        except UnhashableError:
            if mode == CODE:
                raise
            return KeyParts({}, calls.names(node)), True

    def _own(self, item: int, node: int, mode: CachePolicy) -> CacheKey:
        """Ask the user's function."""
        form = self._run.plan.forms[node]
        step = form.step.as_added(self._run.item_name(item), form.inputs, form.outputs, form.options)
        text = mode.own_key(step, LazyInputs(self._run, item, None), self._context)
        identity, outputs = self._identity(node), self._calls.outputs(node)
        return CacheKey(hashed(_FORM, b"own", identity, outputs, text.encode("utf-8", "surrogatepass")), b"")

    def _identity(self, node: int) -> bytes:
        """Return what stands for a function whose code does not count: its names, and what is bound to it.

        A lambda has no name that tells it from another one, so its code counts after all.
        """
        step = self._run.plan.forms[node].step
        plain, bound = _unbound(step.func)
        names = [step.name, *(str(getattr(plain, each, "")) for each in ("__module__", "__qualname__"))]
        parts = ["\0".join(names).encode("utf-8", "surrogatepass"), *(content(each, self._code) for each in bound)]
        if getattr(plain, "__name__", "") == "<lambda>":
            parts.append(self._calls.fingerprint(node).digest)
        return hashed(*parts)


def _place(run: Run, item: int) -> bytes:
    """Return what `get_context()` returns about an item that is the same in each run."""
    return content([run.plan.name, run.item_name(item)])


def _unbound(func: Any) -> tuple[Any, list[Any]]:
    """Return the plain function of a partial, a bound method or a callable object, and what it carries: arguments."""
    bound: list[Any] = []
    while True:
        if isinstance(func, partial):
            bound += [func.args, func.keywords]
            func = func.func
        elif isinstance(func, MethodType):
            if not isinstance(func.__self__, type):
                bound.append(func.__self__)
            return func.__func__, bound
        else:
            if not hasattr(func, "__qualname__"):
                bound.append(func)
            return func, bound


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowyml.hashing.code_graph import CodeGraph
    from flowyml.planning.call_template import CallTemplate
    from flowyml.planning.step_spec import StepSpec
    from flowyml.runtime.run import Run
    from flowyml.store.value_store import Reference

    Refer = Callable[[Reference], bytes | None]

_VERSION = 2
# Contents of parameters that many steps share are kept; more of them than this are not shared.
_MOST_KEPT = 10_000
FILES = b"%"
"""The first byte of the hash of the files that a value refers to, which is stored with its content."""
UNHASHABLE = b"?"
"""The first byte of the substitute for an argument without a content; no content begins with it."""
_LENGTHS = [bytes((length,)) for length in range(256)]


class KeyParts(NamedTuple):
    """What a key is made of, in words and short hashes: by it, a change can be told.

    Attributes:
        parts: Of the function and its conditions.
        arguments: Names of the arguments, in the order of their contents.
    """

    parts: dict[str, bytes]
    arguments: list[str]

    def packed(self) -> bytes:
        """Return it as bytes."""
        return marshal.dumps(tuple(self), _VERSION)

    @classmethod
    def unpacked(cls, data: bytes) -> KeyParts:
        """Return it again."""
        return cls(*marshal.loads(data))  # noqa: S302  it stood in a row with a checksum


class CallHasher:
    """The arguments of a run's calls, by content.

    Args:
        run: The run.
        refer: Gives what stands for the value of another step in a key; `None` where there is no value.
        code_graph: The code that is known already.
        unhashable: Is called with an argument that has no content, and returns what stands for it; without it such an
            argument is an error.
    """

    def __init__(
        self,
        run: Run,
        refer: Refer,
        code_graph: CodeGraph,
        unhashable: Callable[[int, UnhashableError], bytes] | None = None,
    ) -> None:
        self._unhashable = unhashable
        self._run = run
        self._refer = refer
        self._code = code_graph
        self._fingerprints: dict[tuple[int, int], FunctionFingerprint | UnhashableError] = {}
        self._functions: dict[int, tuple[object, FunctionFingerprint]] = {}
        self._made: dict[int, KeyParts] = {}
        self._static: dict[int, list[bytes | None]] = {}
        self._of_mapped: dict[int, list[bytes | None]] = {}
        self._kept: dict[int, tuple[object, bytes]] = {}

    # -- functions

    def fingerprint(self, node: int) -> FunctionFingerprint:
        """Return the fingerprint of a step's function and its conditions.

        Raises:
            Unhashable: If something of it cannot be hashed.
        """
        form = self._run.plan.forms[node]
        key = (id(form.step), id(form.options))
        found = self._fingerprints.get(key)
        if found is None:
            try:
                found = self._look(form)
            except UnhashableError as error:
                found = error
            self._fingerprints[key] = found
        if isinstance(found, UnhashableError):
            raise found
        return found

    def look_ahead(self, nodes: Iterable[int]) -> None:
        """Hash the functions of steps before any has run, so that modules that steps import are not loaded in any run.

        Functions that cannot be hashed are an error when a key is made.
        """
        forms = self._run.plan.forms
        for node in {id(forms[node]): node for node in nodes}.values():
            with contextlib.suppress(UnhashableError):
                self.fingerprint(node)

    def _look(self, form: StepSpec) -> FunctionFingerprint:
        own = self._of_function(form.step.func)
        guards = form.options.guards
        if not guards:
            return own
        state, parts, asks = blake2b(own.digest, digest_size=SIZE), dict(own.parts), own.asks
        for number, guard in enumerate(guards, 1):
            one = self._of_function(guard.predicate)
            state.update(one.digest + bytes([guard.wanted]))
            parts[f"its condition {number}" if len(guards) > 1 else "its condition"] = one.digest[:8]
            asks = asks or one.asks
        return FunctionFingerprint(state.digest(), parts, asks)

    def _of_function(self, function: Any) -> FunctionFingerprint:
        """Return the fingerprint of a function, which many steps may share."""
        found = self._functions.get(id(function))
        if found is None:
            found = self._functions[id(function)] = (function, fingerprint(function, self._code))
        return found[1]

    def made(self, node: int) -> KeyParts:
        """Return the parts of the keys of a step.

        Raises:
            Unhashable: If its code cannot be hashed.
        """
        template = self._template(node)
        found = self._made.get(id(template))
        if found is None:
            found = self._made[id(template)] = KeyParts(self.fingerprint(node).parts, self.names(node))
        return found

    def names(self, node: int) -> list[str]:
        """Return the names of the arguments whose contents `arguments` returns."""
        names = argument_names(self._template(node), self._run.plan.forms[node])
        if self._run.seed is not None:
            names.append("seed")
        return names

    def outputs(self, node: int) -> bytes:
        """Return what a step's declared outputs say of its value: they take it apart."""
        return "\0".join(self._run.plan.forms[node].several).encode("utf-8", "surrogatepass")

    # -- arguments

    def arguments(self, item: int) -> list[bytes]:
        """Return the contents of an item's arguments, in call order.

        Raises:
            Unhashable: If one has none.
        """
        run = self._run
        node = run.node_of[item]
        template = self._template(node)
        before = self._of_mapped.get(node) if node in run.layout.mapped else self._static.get(id(template))
        found: list[Any] = list(before or self._before(node, template))
        for position, (kind, which) in enumerate(template.sources):
            if found[position] is None:
                if kind == ASSET:  # the most common one, and the one where a call for each counts
                    found[position] = self._refer(run.plan.references[node][which]) or b"-"
                else:
                    found[position] = self._content(kind, which, node, item)
        if run.seed is not None:
            found.append(content(run.calls.seed_of(item)))
        return found

    def joined(self, item: int) -> bytes:
        """Return the contents of an item's arguments, joined.

        Raises:
            Unhashable: If one has none.
        """
        return joined(self.arguments(item))

    def read_again(self, item: int) -> bytes:
        """Return the contents of an item's arguments as they are now, joined.

        Raises:
            Unhashable: If one has none.
        """
        kept = self._static, self._of_mapped, self._kept
        self._static, self._of_mapped, self._kept = {}, {}, {}
        try:
            return self.joined(item)
        finally:
            self._static, self._of_mapped, self._kept = kept

    def all_at_once(self, items: Sequence[int]) -> list[bytes] | None:
        """Return the same of several items that have one template, where numbers and texts are the only argument.

        That is what most large fan-outs are made of; `None` for all others.
        """
        run, node = self._run, self._run.node_of[items[0]]
        template = self._template(node)
        if run.seed is not None or len(template.sources) != 1:
            return None
        if template.single:
            table, first = run.map_inputs[node], run.layout.firsts[node]
            values = [table[item - first] for item in items]
        elif template.direct and template.lone:
            rows, node_of = run.plan.rows, run.node_of
            values = [rows[node_of[item]] for item in items]
        else:
            return None
        contents = contents_of_atoms(values)
        return None if contents is None else [_LENGTHS[len(each)] + each for each in contents]

    def link(self, item: int) -> int | None:
        """Return which reference is the only argument of an item's step; `None` if it has others, or another one."""
        run = self._run
        template = self._template(run.node_of[item])
        ((kind, which), *others) = template.sources or ((None, None),)
        return which if kind == ASSET and not others and run.seed is None else None

    def _before(self, node: int, template: CallTemplate) -> list[bytes | None]:
        """Return the contents that are known before it comes to an item."""
        static = self._static.get(id(template))
        if static is None:
            static = [self._param(which, node) if kind == VALUE else None for kind, which in template.sources]
            self._static[id(template)] = static
        if not self._run.layout.is_mapped(node):
            return static
        row = self._run.plan.row(node)
        params = [self._param(row[which], node) if kind == PARAM else None for kind, which in template.sources]
        self._of_mapped[node] = [one or other for one, other in zip(static, params, strict=True)]
        return self._of_mapped[node]

    def _content(self, kind: int, which: Any, node: int, item: int) -> bytes:
        plan = self._run.plan
        if kind == PARAM:
            return self._param(plan.row(node)[which], node)
        if kind in {ITEM, KEPT}:
            entry = self._run.map_inputs[node][item - self._run.layout.firsts[node]]
            part = entry if which is None else entry[which]
            return self._hashed(part, node) if kind == ITEM else self._refer(part) or b"-"
        references = plan.references.get(node, ())  # a decision may wait for nothing
        if kind == SPREAD:
            return self._refer(references[which]) or b"-"
        if kind == CHOICE:
            return self._refer(references[which[0]]) or self._param(which[1], node)
        assert kind == VIEW  # noqa: S101  all kinds are above
        return combined([self._param(which, node), *(self._refer(each) or b"-" for each in references)])

    def _param(self, value: Any, node: int) -> bytes:
        """Return the content of a value that many calls may share."""
        if type(value) in ATOMS:
            return content(value)
        kept = self._kept.get(id(value))
        if kept is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            kept = self._kept[id(value)] = (value, self._hashed(value, node))
        return kept[1]

    def _hashed(self, value: Any, node: int) -> bytes:
        try:
            return content(value, self._code)
        except UnhashableError as error:
            if self._unhashable is None:
                raise
            return self._unhashable(node, error)

    def _template(self, node: int) -> CallTemplate:
        return self._run.plan.templates[node]  # type: ignore[return-value]  # a plan that runs is wired


def argument_names(template: CallTemplate, form: StepSpec) -> list[str]:
    """Return the names of a template's arguments in call order."""
    signature, count = form.step.signature, len(template.sources) - len(template.keywords)
    names = list(signature.positional[:count])
    star = signature.var_positional or "args"
    return [*names, *(f"*{star}[{k}]" for k in range(count - len(names))), *template.keywords]


def joined(contents: Iterable[bytes]) -> bytes:
    """Return contents in one, so that they can be told apart.

    >>> split(joined([b"a", b"", b"bc"]))
    [b'a', b'', b'bc']
    """
    return b"".join([_LENGTHS[len(each)] + each for each in contents])


def split(contents: bytes) -> list[bytes]:
    """Take apart what `joined` has made."""
    found, at = [], 0
    while at < len(contents):
        end = at + 1 + contents[at]
        found.append(contents[at + 1 : end])
        at = end
    return found


def files_of(raw: Any) -> bytes:
    """Return one hash of all files that an encoded value refers to, of their paths and bytes.

    Raises:
        Exception: Any that loading it raises, and `UnhashableError`.
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
    """Return one content for a list of them."""
    first = HOLDS_FILES if any(each.startswith(HOLDS_FILES) for each in contents) else b"+"
    return first + blake2b(joined(contents), digest_size=SIZE).digest()


def hashed(*parts: bytes) -> bytes:
    """Return a key of these parts."""
    return blake2b(joined(parts[:-1]) + parts[-1], digest_size=SIZE).digest()
