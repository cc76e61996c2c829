"""Keys of cached calls: what a step's value is stored under.

```
"code_hash"     its code    + names and contents of its arguments, and its name and index if it may call `get_context()`
"input_hash"    its name    + the same
a function      its name    + the text that the function returns
```

The step's name in the pipeline takes no part in the first: a step that was renamed finds its value. A value of another
step counts by its content, not by how it came about: a step that ran again and returned the same changes no key.
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml._digests import blake2b
from flowyml.keys.content import SIZE, Unhashable, content
from flowyml.reuse.call_keys import CallKeys, Made, hashed, holds_files, joined
from flowyml.running.events import Inputs
from flowyml.steps.cache_modes import CODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowyml.reuse.value_contents import ValueContents
    from flowyml.running.run import Run
    from flowyml.steps.cache_modes import CacheMode

_FORM = b"2"  # changes when keys are made in another way


class Key(NamedTuple):
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

    def __init__(self, run: Run, contents: ValueContents, context: Mapping[str, Any]) -> None:
        self._run = run
        self._context = context
        self._contents = contents
        self._code = contents.code_graph
        self._calls = CallKeys(run, contents.of, self._code)
        self._heads: dict[tuple[int, tuple[str, ...]], tuple[bytes, bytes]] = {}
        self._asking: dict[int, bool] = {}
        self.words: dict[bytes, bytes] = {}

    def key(self, item: int, mode: CacheMode) -> Key:
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
        return Key(blake2b(head + contents, digest_size=SIZE).digest(), words + contents)

    def has_changed(self, item: int, key: Key) -> bool:
        """Return True if a file among an item's arguments has changed since its key was made."""
        before = key.recipe[SIZE:]
        if not holds_files(before):
            return False
        self._contents.forget_files()
        try:
            return not before.startswith(self._calls.read_again(item))  # the item's name and index may follow
        except Unhashable:
            return True

    def look_ahead(self, nodes: Iterable[int]) -> None:
        """Hash the code of these steps before any step has run."""
        self._calls.look_ahead(nodes)

    def _head(self, node: int, mode: CacheMode) -> tuple[bytes, bytes]:
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

    def _made(self, node: int, mode: CacheMode) -> tuple[Made, bool]:
        """Return the parts of the keys of a step, and whether it may call `get_context()`."""
        calls = self._calls
        try:
            return calls.made(node), calls.fingerprint(node).asks
        except Unhashable:
            if mode == CODE:
                raise
            return Made({}, calls.names(node)), True

    def _own(self, item: int, node: int, mode: CacheMode) -> Key:
        """Ask the user's function."""
        form = self._run.plan.forms[node]
        step = form.step.as_added(self._run.item_name(item), form.inputs, form.outputs, form.options)
        text = mode.own_key(step, Inputs(self._run, item, None), self._context)
        identity, outputs = self._identity(node), self._calls.outputs(node)
        return Key(hashed(_FORM, b"own", identity, outputs, text.encode("utf-8", "surrogatepass")), b"")

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
