"""The graph of functions, classes and modules that use one another, with one hash for each and everything it reaches.

```
function ──code.py──▶ parts ──content.py──▶ hash of each part, with references to other code of the user
    │                                                              │
    └── digest(): numbered in the order in which they are reached ◀┘ references, followed until none is new
```

Each object is split into parts once, and parts refer to others by index, so cycles need no special case: functions that
call each other, a table of functions that use the table. The indexes follow from the order of parts; sets are ordered
by the hashes of their elements and of the objects these refer to. If two elements cannot be distinguished, either order
is correct; at worst an equal set gets another key. If something cannot be hashed, everything that reaches it is
`UnhashableError`.

Values with cycles are hashed in the same way, each mutable object by itself.
"""

from __future__ import annotations

from itertools import pairwise
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.hashing import blake2b, code, module_source
from flowyml.hashing.content import FLAT, SIZE, TOO_MUCH, TROUBLE, CanonicalPickler, UnhashableError, ValueWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FILES = (module_source.Source, module_source.Project)
_CODE = (FunctionType, type, ModuleType, BuiltinFunctionType, *_FILES)
_IMMUTABLE = FLAT | {tuple, frozenset, range, slice, complex, code.InstalledName, *_FILES}
_SHAPE_DEPTH = 3  # references followed to order the elements of a set
_MAX_NODES = 1_000_000
_INT_BYTES = 4


class UnhashableCodeError(UnhashableError):
    """The code of a function cannot be followed, or uses something that cannot be hashed."""


class HashedPart(NamedTuple):
    """A part of a function, class, module or object, with its hash.

    Attributes:
        label: Its label.
        digest: Hash of the part itself, without the objects it refers to.
        edges: The objects that it refers to, in order.
        names: Names of the installed functions, classes and modules that it uses.
    """

    label: str
    digest: bytes
    edges: list[Any]
    names: list[str]


class CodeHash(NamedTuple):
    """The hash of code and everything that it reaches.

    Attributes:
        digest: The hash.
        asks: True if it may call `get_context()`.
    """

    digest: bytes
    asks: bool


class CodeNode:
    """A node of the graph: a function, class, module or object, with its parts.

    Attributes:
        obj: The object; kept, so that its id is not reused.
        parts: Its parts.
        error: The reason why it cannot be hashed.
        is_whole: True if all its parts are known.
    """

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.parts: list[HashedPart] = []
        self.error: UnhashableError | None = None
        self.is_whole = False

    def edges(self) -> Iterator[Any]:
        """Yield the objects that it refers to."""
        return (edge for part in self.parts for edge in part.edges)


class CodeGraph:
    """The functions, classes and modules that one run has seen. Each is examined once."""

    def __init__(self) -> None:
        self._entries: dict[Any, CodeNode] = {}
        self._components: dict[Any, int] = {}
        self._reached: dict[Any, CodeHash | UnhashableError] = {}

    def digest(self, obj: Any) -> bytes:
        """Return the hash of a function, class or module; see `reached`."""
        return self.reached(obj).digest

    def part(self, label: str, value: Any, owner: Any = None) -> CodeHash:
        """Return the hash of a part of a step with everything that it reaches.

        Raises:
            UnhashableCodeError: If something in it cannot be hashed.
        """
        return self._combined(self.hashed_parts(label, value, owner), lambda edge: self.reached(edge).digest)

    def hashed_parts(self, label: str, value: Any, owner: Any = None) -> list[HashedPart]:
        """Return the hash of a part of a step alone, and the parts that it may call by name; raises like `part`."""
        entry = CodeNode(owner)
        self._add(entry, label, value)
        if entry.error is not None:
            raise entry.error
        return entry.parts

    def reached(self, obj: Any) -> CodeHash:
        """Return the hash of a function, class, module or object with everything that it reaches.

        Raises:
            UnhashableCodeError: If something in it cannot be hashed.
        """
        key = key_of(obj)
        code_hash = self._reached.get(key)
        if code_hash is None:
            if key not in self._components:
                for component in self._new_components(obj):
                    self._components.update(dict.fromkeys(component, len(self._components)))
                    if len(component) == 1:  # usual, and its dependencies are hashed by now
                        self._number(component[0])
            code_hash = self._reached.get(key) or self._number(key)
        if isinstance(code_hash, UnhashableError):
            raise code_hash
        return code_hash

    def walk(self, roots: Iterable[Any]) -> Iterator[CodeNode]:
        """Yield the nodes of some objects and everything that they reach, each once."""
        seen: set[Any] = set()
        todo = list(roots)
        for obj in todo:
            if key_of(obj) not in seen:
                seen.add(key_of(obj))
                entry = self.entry(obj)
                yield entry
                todo += entry.edges()

    def entry(self, obj: Any) -> CodeNode:
        """Return the node of an object."""
        key = key_of(obj)
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= _MAX_NODES:
                raise OverflowError(f"it reaches more than {_MAX_NODES:,} objects")
            entry = self._entries[key] = CodeNode(obj)  # before its parts are added, which may refer to it
            self._split(entry)
            entry.is_whole = True
        return entry

    # -- splitting into parts

    def _split(self, entry: CodeNode) -> None:
        obj = entry.obj
        if not _is_code(obj):
            entry.parts.append(ObjectWriter(self, obj).hashed("object"))
            return
        try:
            for label, value in _parts(obj):
                self._add(entry, label, value, lenient=isinstance(obj, ModuleType))
        except TROUBLE as error:
            entry.error = entry.error or UnhashableCodeError(f"{code.full_name(obj)}: {_error_message(error)}")

    def _add(self, entry: CodeNode, label: str, value: Any, *, lenient: bool = False) -> None:
        """Add one part; with `lenient` a value may be unhashable, because the file that makes it counts."""
        try:
            part = self._hashed(label, value)
        except TROUBLE as error:
            if lenient:
                entry.parts.append(HashedPart(label, b"made by its file", [], []))
            elif entry.error is None:
                entry.error = _named_error(entry.obj, label, error)
            return
        entry.parts.append(part)
        for name in part.names:
            if code.finds_names(name):
                reached = [part for part in code.reachable(_module_of(entry.obj), name) if part[1] is not entry.obj]
                entry.parts += [HashedPart(more, b"by name", [one], []) for more, one in reached]

    def _hashed(self, label: str, value: Any) -> HashedPart:
        try:
            return PartWriter(self).hashed(label, value)
        except TOO_MUCH:
            return ObjectWriter(self).hashed(label, value)

    # -- one hash

    def _combined(self, parts: Iterable[HashedPart], stands_for: Any) -> CodeHash:
        state, asks = blake2b(digest_size=SIZE), False
        for part in parts:
            state.update(_sized(part.label.encode("utf-8", "surrogatepass")) + _sized(part.digest))
            state.update(len(part.edges).to_bytes(_INT_BYTES, "big"))
            for edge in part.edges:
                state.update(_sized(stands_for(edge)))
                known = self._reached.get(key_of(edge))
                asks = asks or (isinstance(known, CodeHash) and known.asks)
            asks = asks or any(map(code.reads_context, part.names))
        return CodeHash(state.digest(), asks)

    def _number(self, root: Any) -> CodeHash | UnhashableError:
        """Hash an object with its component, numbered in the order in which it is reached."""
        numbers, order = {root: 0}, [root]
        own = self._components[root]

        def stands_for(edge: Any) -> bytes:
            key = key_of(edge)
            if self._components[key] != own:
                return self.reached(edge).digest
            if key not in numbers:
                numbers[key] = len(order)
                order.append(key)
            return numbers[key].to_bytes(_INT_BYTES, "big")

        state, asks = blake2b(digest_size=SIZE), False
        code_hash: CodeHash | UnhashableError
        try:
            for key in order:
                entry = self._entries[key]
                if entry.error is not None:
                    raise entry.error
                part_hash = self._combined(entry.parts, stands_for)
                state.update(part_hash.digest)
                asks = asks or part_hash.asks
            code_hash = CodeHash(state.digest(), asks)
        except UnhashableError as error:
            code_hash = error
        self._reached[root] = code_hash
        return code_hash

    def _new_components(self, root: Any) -> Iterator[list[Any]]:
        """Yield the new strongly connected components, dependencies first (Tarjan's algorithm)."""
        index: dict[Any, int] = {}
        low: dict[Any, int] = {}
        stack: list[Any] = []
        on_stack: set[Any] = set()
        todo = [(key_of(root), iter([*self.entry(root).edges()]))]
        index[todo[0][0]] = low[todo[0][0]] = 0
        stack.append(todo[0][0])
        on_stack.add(todo[0][0])
        while todo:
            key, edges = todo[-1]
            for edge in edges:
                other = key_of(edge)
                if other in index:
                    if other in on_stack:
                        low[key] = min(low[key], index[other])
                elif other not in self._components:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    todo.append((other, iter([*self.entry(edge).edges()])))
                    break
            else:
                todo.pop()
                if todo:
                    low[todo[-1][0]] = min(low[todo[-1][0]], low[key])
                if low[key] == index[key]:
                    cut = stack.index(key)
                    component = stack[cut:]
                    del stack[cut:]
                    on_stack.difference_update(component)
                    yield component

    # -- the order of sets

    def shape(self, obj: Any, depth: int = _SHAPE_DEPTH) -> bytes:
        """Return a hash that distinguishes objects with the same name, as far as their parts are known."""
        entry = self.entry(obj)
        if not entry.is_whole or not depth:
            return code.full_name(obj).encode("utf-8", "surrogatepass")
        state = blake2b(digest_size=SIZE)
        for part in entry.parts:
            state.update(_sized(part.digest))
            for edge in part.edges:
                state.update(_sized(self.shape(edge, depth - 1)))
        return state.digest()


class ObjectGraph(CodeGraph):
    """A value with cycles: its mutable objects, one by one. Without a code graph it may contain no code."""

    def __init__(self, code_graph: CodeGraph | None) -> None:
        super().__init__()
        self.code_graph = code_graph

    def digest_of(self, value: Any) -> bytes:
        """Return the hash of a value."""
        part = ObjectWriter(self).hashed("value", value)
        return self._combined([part], lambda edge: self.reached(edge).digest).digest


def digest_of_objects(value: Any, code_graph: CodeGraph | None) -> bytes:
    """Return the hash of a value with cycles; its parts are equal only if they are the same object.

    Raises:
        UnhashableError: If something in it cannot be pickled.
    """
    return ObjectGraph(code_graph).digest_of(value)


class PartWriter(CanonicalPickler):
    """Writes a part; functions, classes and modules in it are references."""

    def __init__(self, graph: CodeGraph) -> None:
        super().__init__()
        self.graph = graph
        self.is_code = not isinstance(graph, ObjectGraph)
        self._edges: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._names: list[str] = []

    def hashed(self, label: str, value: Any) -> HashedPart:
        """Return the part; may be called once."""
        return HashedPart(label, self.dumped(value), self._edges, self._names)

    def reference(self, obj: Any) -> tuple[str, int]:
        """Return a reference to another object."""
        key = key_of(obj)
        if key not in self._numbers:
            self._numbers[key] = len(self._edges)
            self._edges.append(obj)
        return "reference", self._numbers[key]

    def code(self, obj: Any) -> tuple[Any, ...]:
        """Return a reference to code; in a value, its hash."""
        if isinstance(self.graph, ObjectGraph):
            return ValueWriter(self.graph.code_graph).code(obj)
        return self.reference(obj)

    def named(self, name: str) -> tuple[Any, ...]:
        """Record the name of something installed."""
        self._names.append(name)
        return super().named(name)

    def unordered(self, parts: Iterable[Any]) -> tuple[Any, ...]:
        """Write parts in the order of their hashes, then of the names and shapes of the objects they refer to."""
        hashed_parts = [type(self)(self.graph).hashed("", part) for part in parts]
        hashed_parts.sort(key=_first_order)
        if any(_first_order(one) == _first_order(other) for one, other in pairwise(hashed_parts)):
            hashed_parts.sort(key=lambda part: (_first_order(part), [self.graph.shape(edge) for edge in part.edges]))
        self._names += sorted(name for part in hashed_parts for name in part.names)
        return tuple([(part.digest, *(self.reference(edge)[1] for edge in part.edges)) for part in hashed_parts])


def _first_order(part: HashedPart) -> tuple[bytes, list[str]]:
    return part.digest, list(map(code.full_name, part.edges))


class ObjectWriter(PartWriter):
    """Writes one object, or none if `root` is `None`; other mutable objects are references."""

    def __init__(self, graph: CodeGraph, root: Any = None) -> None:
        super().__init__(graph)
        self._root = root
        self._inline = [] if root is None else [root, getattr(root, "__dict__", None)]

    def hashed(self, label: str, value: Any = None) -> HashedPart:
        """Return a part; without a value, that of the root."""
        return super().hashed(label, self._root if value is None else value)

    def persistent_id(self, obj: Any) -> Any:
        """Return a reference to a mutable object; the root is written itself."""
        if type(obj) in _IMMUTABLE or _is_code(obj):
            return super().persistent_id(obj)
        position = next((k for k, inline in enumerate(self._inline) if inline is obj), None)
        if position is None:
            return self.reference(obj)
        del self._inline[position]  # further occurrences inside it are references
        return super().persistent_id(obj)


def key_of(obj: Any) -> Any:
    """Return the key of an object: files are identified by name, all others by identity."""
    return obj if type(obj) in _FILES else id(obj)


def kind_of(obj: Any) -> str:
    """Return the kind of an object in one word.

    >>> kind_of(dict), kind_of(kind_of)
    ('class', 'function')
    """
    if isinstance(obj, _FILES):
        return "file" if isinstance(obj, module_source.Source) else "files"
    if isinstance(obj, type):
        return "class"
    return "module" if isinstance(obj, ModuleType) else "function" if _is_code(obj) else "value"


def _is_code(obj: Any) -> bool:
    return isinstance(obj, _CODE) or not isinstance(type(obj).__module__, str)  # as of Cython's functions


def _parts(obj: Any) -> Iterator[code.Part]:
    if isinstance(obj, FunctionType):
        yield from code.parts_of(obj)
        return
    yield "its name", code.full_name(obj)
    if isinstance(obj, type):
        yield from code.parts_of_class(obj)
    elif isinstance(obj, ModuleType):
        yield from code.parts_of_module(obj)
    elif isinstance(obj, module_source.Source):
        yield from code.parts_of_source(obj)
    elif isinstance(obj, module_source.Project):
        yield from code.parts_of_project(obj)
    else:
        yield from code.parts_of_builtin(obj)


def _module_of(obj: Any) -> Any:
    if isinstance(obj, FunctionType):
        return obj.__globals__.get("__name__")
    return obj.__name__ if isinstance(obj, ModuleType) else getattr(obj, "__module__", None)


def _named_error(owner: Any, label: str, error: BaseException) -> UnhashableCodeError:
    """Return an error that names the part that cannot be hashed, and its owner."""
    if isinstance(error, UnhashableCodeError):
        return error
    of = "" if owner is None else f" of {code.full_name(owner)}"
    return UnhashableCodeError(f"{label}{of} cannot be hashed: {_error_message(error)}")


def _error_message(error: BaseException) -> str:
    return str(error) if isinstance(error, UnhashableError) else f"{type(error).__name__}: {error}"


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(_INT_BYTES, "big") + data
