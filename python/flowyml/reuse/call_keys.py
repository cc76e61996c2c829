"""What the calls of a run are recognised by: the function, and the content of each argument.

```
item ──arguments()──▶ one content for each source of its template ──joined()──▶ part of a key
                       params, items, context: keys/content.py
                       values of other steps: what `refer` says, the one thing in which cache and journal differ
```

What all calls of a template have in common is looked at once, a parameter of a mapped step once for all its items: a
million calls of one function cost one look at its code. The module knows neither stores nor executors.
"""

from __future__ import annotations

import contextlib
import marshal
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml._digests import blake2b
from flowyml.keys.content import ATOMS, HOLDS_FILES, SIZE, Unhashable, content, contents_of_atoms
from flowyml.keys.file import collected
from flowyml.keys.fingerprint import Fingerprint, fingerprint
from flowyml.planning.templates import ASSET, CHOICE, ITEM, KEPT, PARAM, SPREAD, VALUE, VIEW
from flowyml.store.encoding import decoded
from flowyml.store.values import Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowyml.keys.code_graph import CodeGraph
    from flowyml.planning.forms import Form
    from flowyml.planning.templates import Template
    from flowyml.running.run import Run
    from flowyml.store.values import Reference

    Refer = Callable[[Reference], bytes | None]

_VERSION = 2
# Contents of parameters that many steps share are kept; more of them than this are not shared.
_MOST_KEPT = 10_000
FILES = b"%"
"""The first byte of the hash of the files that a value refers to, which is stored with its content."""
UNHASHABLE = b"?"
"""The first byte of the substitute for an argument without a content; no content begins with it."""
_LENGTHS = [bytes((length,)) for length in range(256)]


class Made(NamedTuple):
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
    def unpacked(cls, data: bytes) -> Made:
        """Return it again."""
        return cls(*marshal.loads(data))  # noqa: S302  it stood in a row with a checksum


class CallKeys:
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
        unhashable: Callable[[int, Unhashable], bytes] | None = None,
    ) -> None:
        self._unhashable = unhashable
        self._run = run
        self._refer = refer
        self._code = code_graph
        self._fingerprints: dict[tuple[int, int], Fingerprint | Unhashable] = {}
        self._functions: dict[int, tuple[object, Fingerprint]] = {}
        self._made: dict[int, Made] = {}
        self._static: dict[int, list[bytes | None]] = {}
        self._of_mapped: dict[int, list[bytes | None]] = {}
        self._kept: dict[int, tuple[object, bytes]] = {}

    # -- functions

    def fingerprint(self, node: int) -> Fingerprint:
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
            except Unhashable as error:
                found = error
            self._fingerprints[key] = found
        if isinstance(found, Unhashable):
            raise found
        return found

    def look_ahead(self, nodes: Iterable[int]) -> None:
        """Hash the functions of steps before any has run, so that modules that steps import are not loaded in any run.

        Functions that cannot be hashed are an error when a key is made.
        """
        forms = self._run.plan.forms
        for node in {id(forms[node]): node for node in nodes}.values():
            with contextlib.suppress(Unhashable):
                self.fingerprint(node)

    def _look(self, form: Form) -> Fingerprint:
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
        return Fingerprint(state.digest(), parts, asks)

    def _of_function(self, function: Any) -> Fingerprint:
        """Return the fingerprint of a function, which many steps may share."""
        found = self._functions.get(id(function))
        if found is None:
            found = self._functions[id(function)] = (function, fingerprint(function, self._code))
        return found[1]

    def made(self, node: int) -> Made:
        """Return the parts of the keys of a step.

        Raises:
            Unhashable: If its code cannot be hashed.
        """
        template = self._template(node)
        found = self._made.get(id(template))
        if found is None:
            found = self._made[id(template)] = Made(self.fingerprint(node).parts, self.names(node))
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
            table, first = run.tables[node], run.layout.firsts[node]
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

    def _before(self, node: int, template: Template) -> list[bytes | None]:
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
            entry = self._run.tables[node][item - self._run.layout.firsts[node]]
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
        except Unhashable as error:
            if self._unhashable is None:
                raise
            return self._unhashable(node, error)

    def _template(self, node: int) -> Template:
        return self._run.plan.templates[node]  # type: ignore[return-value]  # a plan that runs is wired


def argument_names(template: Template, form: Form) -> list[str]:
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
        Exception: Any that loading it raises, and `Unhashable`.
    """
    value = decoded(raw)
    with collected() as files:
        for part in value.parts if isinstance(value, Outputs) else (value,):
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
