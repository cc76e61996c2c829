"""Code objects as plain data, and what they read.

Two functions are alike if they do alike: names, constants, instructions. File, line numbers, comments, docstrings and
annotations take no part. Constants stand where they are used and not by number, so that a docstring, which is one of
them, moves nothing. The instructions are those of this Python version: another one means another key.

The instructions also show what a function reads in addition to its arguments: global names, closure variables, and
chains of attributes of these (`pkg.sub.h`). A container to which the code only writes (`CALLS.append(...)`,
`COUNTS[name] += 1`) does not change what the function does, and would change the key with each call.
"""

from __future__ import annotations

import dis
import inspect
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CONSTANT = frozenset(dis.hasconst)
# Flags that say how a function is called; others tell whether it is nested or has a docstring.
_CALLED = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_KIND = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_GLOBAL = frozenset(["LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"])
_CLOSURE = frozenset(["LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"])
_ATTRIBUTE = frozenset(["LOAD_ATTR", "LOAD_METHOD"])
_REBINDS = frozenset(["STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"])
# Where the container is below the top of the stack; the value, if there is one, is below it.
_PUTS = {"STORE_ATTR": 1, "DELETE_ATTR": 1, "STORE_SUBSCR": 2, "DELETE_SUBSCR": 2, "STORE_SLICE": 3}
_CONSUMES = ("POP_", "STORE_", "DELETE_", "RETURN_", "JUMP_")
_IN_PLACE, _SUBSCRIPT = range(13, 26), 26  # arguments of BINARY_OP
_IMPORTERS = frozenset(["import_module", "__import__"])
# Methods of the built-in containers, queues and files that change them and whose result is usually dropped.
_CHANGES = frozenset(
    [
        *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "appendleft", "extendleft"),
        *("popleft", "rotate", "add", "discard", "update", "setdefault", "popitem", "subtract", "write", "writelines"),
        *("difference_update", "intersection_update", "symmetric_difference_update", "put", "put_nowait", "set"),
        *("flush", "acquire", "release", "move_to_end"),
    ]
)

Path: TypeAlias = "tuple[str, ...]"
"""A name and the attributes that are read of it: `pkg.sub.h` is `("pkg", "sub", "h")`."""


class NameUsage(NamedTuple):
    """What code reads and changes in addition to its arguments.

    Attributes:
        names: Paths of the global names that it reads. A name that is used in any other way than by an attribute (as
            an argument, for example) is a path of its own: `("pkg",)`.
        closure: The same for closure variables.
        written: Paths that it only writes to, with the method that it calls for that or "": `CALLS.append(x)`,
            `COUNTS[x] += 1`, `f.calls += 1`. Whether the method only writes depends on the object at the path.
        imports: The imports inside it: name, level, and names that are imported from the module.
        importers: Paths that are called with one constant string, and the string: `importlib.import_module("pkg.sub")`.
        open_importers: Such paths that are used in another way.
    """

    names: frozenset[Path]
    closure: frozenset[Path]
    written: frozenset[tuple[Path, str]]
    imports: frozenset[tuple[str, int, tuple[str, ...]]]
    importers: frozenset[tuple[Path, str]]
    open_importers: frozenset[Path]


@lru_cache(maxsize=4096)
def plain(code: CodeType) -> tuple[Any, ...]:
    """Return code as plain data: tuples, numbers, text; equal for code that does alike.

    >>> one, other = (compile(text, "file", "exec") for text in ("x = 1", "x = 1  # more"))
    >>> plain(one) == plain(other)
    True
    """
    constants = code.co_consts  # `argval` does not know the names of keyword arguments
    steps = tuple(
        (each.opcode, _constant(constants[each.arg])) if each.opcode in _CONSTANT else (each.opcode, each.arg)  # type: ignore[index]
        for each in dis.get_instructions(code)
    )
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & (_CALLED | _KIND))
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (steps, shape, names, code.co_exceptiontable)


def _constant(value: Any) -> tuple[Any, ...]:
    return ("code", *plain(value)) if isinstance(value, CodeType) else ("constant", value)


@lru_cache(maxsize=4096)
def uses(code: CodeType) -> NameUsage:
    """Return what code reads and changes, the functions inside it included.

    >>> sorted(uses(compile("pkg.sub.h(pkg.RATE)", "file", "eval")).names)
    [('pkg', 'RATE'), ('pkg', 'sub', 'h')]
    """
    search = _BytecodeScanner()
    for instruction in dis.get_instructions(code):
        search.see(instruction)
    found = [search.found(), *(uses(each) for each in _inner(code))]
    names, closure, written, *others = (frozenset().union(*parts) for parts in zip(*found, strict=True))
    return NameUsage(names, closure, written, *others)


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (each for each in code.co_consts if isinstance(each, CodeType))


class _Load:
    """A global name or closure variable on the stack, with the attributes that were read of it since.

    Attributes:
        path: Its name and those attributes.
        is_global: Whether it is a global name.
        written: The path of the container, if this load is only part of writing to it.
        constant: The only argument that it was called with, if that is a constant string.
    """

    def __init__(self, path: Path, *, is_global: bool) -> None:
        self.path = path
        self.is_global = is_global
        self.written: tuple[Path, str] | None = None
        self.constant: str | None = None


class _Result(NamedTuple):
    """The result of a call, a subscript or an in-place operation, which replaced its operand on the stack."""

    kind: str
    of: _Load


class _Constant(NamedTuple):
    value: Any


class _BytecodeScanner:
    """Goes through instructions with a stack that knows which of its entries a name has put there.

    Jumps are not followed: after one, nothing is known of the stack. A use that is not known to read an attribute of a
    name, or to write to it, is a use of the whole object. So it does not matter whether the object goes through a local
    variable, an argument or a dict.
    """

    def __init__(self) -> None:
        self._loads: list[_Load] = []
        self._imports: set[tuple[str, int, tuple[str, ...]]] = set()
        self._stack: list[_Load | _Result | _Constant | None] = []
        self._argument: Any = None

    def found(self) -> NameUsage:
        """Return what was found."""
        reads = [load for load in self._loads if load.written is None]
        names = frozenset(load.path for load in reads if load.is_global)
        importers = [load for load in reads if load.path[-1] in _IMPORTERS]
        return NameUsage(
            names,
            frozenset(load.path for load in reads if not load.is_global),
            frozenset(load.written for load in self._loads if load.written is not None),
            frozenset(self._imports),
            frozenset((load.path, load.constant) for load in importers if load.constant is not None),
            frozenset(load.path for load in importers if load.constant is None),
        )

    def see(self, instruction: dis.Instruction) -> None:
        """Take in one instruction."""
        if instruction.is_jump_target:
            self._stack[:] = [None] * len(self._stack)
        operation = instruction.opname
        if operation in _GLOBAL or operation in _CLOSURE:
            load = _Load((instruction.argval,), is_global=operation in _GLOBAL)
            self._loads.append(load)
            self._push(instruction, load)
        elif operation in _ATTRIBUTE and isinstance(load := self._at(1), _Load):
            load.path += (instruction.argval,)
            self._push(instruction, load)
        elif operation in {"LOAD_CONST", "LOAD_SMALL_INT"}:
            self._push(instruction, _Constant(instruction.argval))
        elif operation in {"COPY", "SWAP"}:
            self._turn(operation, instruction.arg or 1)
        elif operation in _HANDLERS:
            _HANDLERS[operation](self, instruction)
        else:
            self._other(instruction)

    def _push(self, instruction: dis.Instruction, entry: Any) -> None:
        """Put an entry on the stack, twice where the instruction prepares a call: one is the place of `self`."""
        count = _effect(instruction)
        if instruction.opname in _ATTRIBUTE:
            self._stack.pop()
            count += 1
        self._stack += [entry] * max(1, count)

    def _turn(self, operation: str, depth: int) -> None:
        """Keep track through `x[k] += v`, which copies and swaps."""
        if depth > len(self._stack):
            self._stack[:0] = [None] * (depth - len(self._stack))
        if operation == "SWAP":
            self._stack[-1], self._stack[-depth] = self._stack[-depth], self._stack[-1]
            return
        entry = self._stack[-depth]
        if isinstance(entry, _Load):  # each of the two goes its own way
            entry = _Load(entry.path, is_global=entry.is_global)
            self._loads.append(entry)
        self._stack.append(entry)

    def _at(self, depth: int) -> Any:
        return self._stack[-depth] if depth <= len(self._stack) else None

    def _other(self, instruction: dis.Instruction) -> None:
        """Follow the height of the stack; what an instruction leaves on top comes from no name."""
        effect = _effect(instruction)
        if effect < 0:
            del self._stack[effect:]
        else:
            self._stack += [None] * effect
        if self._stack and not instruction.opname.startswith(_CONSUMES):
            self._stack[-1] = None

    def _replaced(self, instruction: dis.Instruction, result: _Result | None) -> None:
        self._other(instruction)
        if self._stack and result is not None:
            self._stack[-1] = result

    # -- writing

    def _prepare_call(self, instruction: dis.Instruction) -> None:
        """Pop the arguments, which Python 3.11 does before the call."""
        self._argument = self._at(1) if instruction.arg == 1 else None
        if count := instruction.arg or 0:
            del self._stack[-count:]

    def _call(self, instruction: dis.Instruction) -> None:
        count = 0 if _TAKES_OFF_EARLIER else (instruction.arg or 0)
        if not _TAKES_OFF_EARLIER:
            self._argument = self._at(1) if count == 1 else None
        called = next((each for k in (1, 2) if isinstance(each := self._at(count + k), _Load)), None)
        if called is not None and isinstance(self._argument, _Constant) and isinstance(self._argument.value, str):
            called.constant = self._argument.value
        self._argument = None
        self._replaced(instruction, None if called is None else _Result("call", called))

    def _drop(self, instruction: dis.Instruction) -> None:
        """Recognise `CALLS.append(x)`: the return value of the method is dropped."""
        top = self._at(1)
        if isinstance(top, _Result) and top.kind == "call" and len(top.of.path) > 1 and top.of.path[-1] in _CHANGES:
            top.of.written = (top.of.path[:-1], top.of.path[-1])
        self._other(instruction)

    def _item(self, instruction: dis.Instruction) -> None:
        container = self._at(2)
        self._replaced(instruction, _Result("item", container) if isinstance(container, _Load) else None)

    def _operate(self, instruction: dis.Instruction) -> None:
        if instruction.arg == _SUBSCRIPT:
            self._item(instruction)
            return
        left = self._at(2) if instruction.arg in _IN_PLACE else None
        if isinstance(left, _Result):
            left = left.of if left.kind == "item" else None
        self._replaced(instruction, _Result("in place", left) if isinstance(left, _Load) else None)

    def _rebind(self, instruction: dis.Instruction) -> None:
        """Recognise `total += x` of a global name or closure variable."""
        top = self._at(1)
        if isinstance(top, _Result) and top.kind == "in place" and top.of.path == (instruction.argval,):
            top.of.written = (top.of.path, "")
        self._other(instruction)

    def _put(self, instruction: dis.Instruction) -> None:
        """Recognise an item or attribute that is set, also by an in-place operation."""
        depth = _PUTS[instruction.opname]
        container, value = self._at(depth), self._at(depth + 1)
        if isinstance(container, _Load):
            container.written = (container.path, "")
            attribute = (instruction.argval,) if instruction.opname == "STORE_ATTR" else ()
            if (
                instruction.opname.startswith("STORE")
                and isinstance(value, _Result)
                and value.kind == "in place"
                and value.of.path == container.path + attribute
            ):
                value.of.written = (container.path, "")
        self._other(instruction)

    # -- imports of modules

    def _import(self, instruction: dis.Instruction) -> None:
        level, names = self._at(2), self._at(1)
        given = names.value if isinstance(names, _Constant) else None
        of = level.value if isinstance(level, _Constant) else 0
        self._imports.add((instruction.argval, of, given or ()))
        self._other(instruction)


_HANDLERS: dict[str, Callable[[_BytecodeScanner, dis.Instruction], None]] = {
    "PRECALL": _BytecodeScanner._prepare_call,  # noqa: SLF001
    "CALL": _BytecodeScanner._call,  # noqa: SLF001
    "POP_TOP": _BytecodeScanner._drop,  # noqa: SLF001
    "BINARY_SUBSCR": _BytecodeScanner._item,  # noqa: SLF001
    "BINARY_OP": _BytecodeScanner._operate,  # noqa: SLF001
    "IMPORT_NAME": _BytecodeScanner._import,  # noqa: SLF001
    **dict.fromkeys(_REBINDS, _BytecodeScanner._rebind),  # noqa: SLF001
    **dict.fromkeys(_PUTS, _BytecodeScanner._put),  # noqa: SLF001
}
_TAKES_OFF_EARLIER = "PRECALL" in dis.opmap


def _effect(instruction: dis.Instruction) -> int:
    return dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
