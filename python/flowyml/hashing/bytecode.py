"""Code objects as plain data, and the names that they read.

Two functions are equal if their names, constants and instructions are. File, line numbers, comments, docstrings and
annotations do not count. Constants are written where they are used rather than by index, so that a docstring, which is
a constant, shifts nothing. Another Python version has other instructions and so other keys.

The instructions also show what a function reads in addition to its arguments: global names, closure variables, and
chains of their attributes (`pkg.sub.h`). Containers that the code only writes to (`CALLS.append(...)`,
`COUNTS[name] += 1`) do not change what the function does, and would change the key with each call.
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
# Flags of the signature and of the kind of function; others mark nested functions and docstrings.
_SIGNATURE = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_KIND = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_GLOBAL = frozenset(["LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"])
_CLOSURE = frozenset(["LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"])
_ATTRIBUTE = frozenset(["LOAD_ATTR", "LOAD_METHOD"])
_REBINDS = frozenset(["STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"])
# Depth of the container below the top of the stack; the value, if there is one, is below it.
_STORE_DEPTHS = {"STORE_ATTR": 1, "DELETE_ATTR": 1, "STORE_SUBSCR": 2, "DELETE_SUBSCR": 2, "STORE_SLICE": 3}
_CONSUMES = ("POP_", "STORE_", "DELETE_", "RETURN_", "JUMP_")
_IN_PLACE, _SUBSCRIPT = range(13, 26), 26  # arguments of BINARY_OP
_IMPORTERS = frozenset(["import_module", "__import__"])
# Mutating methods of built-in containers, queues and files whose return value is usually dropped.
_MUTATING_METHODS = frozenset(
    [
        *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "appendleft", "extendleft"),
        *("popleft", "rotate", "add", "discard", "update", "setdefault", "popitem", "subtract", "write", "writelines"),
        *("difference_update", "intersection_update", "symmetric_difference_update", "put", "put_nowait", "set"),
        *("flush", "acquire", "release", "move_to_end"),
    ]
)

Path: TypeAlias = "tuple[str, ...]"
"""A name and the attributes read from it: `pkg.sub.h` is `("pkg", "sub", "h")`."""


class NameUsage(NamedTuple):
    """The names that code reads and changes in addition to its arguments.

    Attributes:
        names: Paths of the global names that it reads. A name used in any other way than by an attribute (for
            example as an
            argument) is a path of its own: `("pkg",)`.
        closure: The same for closure variables.
        written: Paths that it only writes to, with the method called for that or "": `CALLS.append(x)`,
            `COUNTS[x] += 1`, `f.calls += 1`. Whether the method only writes depends on the object at the path.
        imports: Its import statements: name, level, and the names imported from the module.
        importers: Paths called with one constant string, and the string: `importlib.import_module("pkg.sub")`.
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
    """Return code as plain data (tuples, numbers, strings), equal for code that does the same.

    >>> one, other = (compile(text, "file", "exec") for text in ("x = 1", "x = 1  # more"))
    >>> plain(one) == plain(other)
    True
    """
    constants = code.co_consts  # `argval` lacks the names of keyword arguments
    instructions = tuple(
        (instruction.opcode, _constant(constants[instruction.arg]))  # type: ignore[index]
        if instruction.opcode in _CONSTANT
        else (instruction.opcode, instruction.arg)
        for instruction in dis.get_instructions(code)
    )
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & (_SIGNATURE | _KIND))
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (instructions, shape, names, code.co_exceptiontable)


def _constant(value: Any) -> tuple[Any, ...]:
    return ("code", *plain(value)) if isinstance(value, CodeType) else ("constant", value)


@lru_cache(maxsize=4096)
def uses(code: CodeType) -> NameUsage:
    """Return the names that code and the functions inside it read and change.

    >>> sorted(uses(compile("pkg.sub.h(pkg.RATE)", "file", "eval")).names)
    [('pkg', 'RATE'), ('pkg', 'sub', 'h')]
    """
    scanner = _BytecodeScanner()
    for instruction in dis.get_instructions(code):
        scanner.scan(instruction)
    usages = [scanner.usage(), *(uses(inner) for inner in _inner(code))]
    names, closure, written, *others = (frozenset().union(*parts) for parts in zip(*usages, strict=True))
    return NameUsage(names, closure, written, *others)


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (constant for constant in code.co_consts if isinstance(constant, CodeType))


class _Load:
    """A global name or closure variable on the stack, with the attributes read from it since.

    Attributes:
        path: The name and the attributes.
        is_global: True for a global name.
        written: The path of the container, if this load is only part of writing to it.
        constant: The only argument that it was called with, if that is a constant string.
    """

    def __init__(self, path: Path, *, is_global: bool) -> None:
        self.path = path
        self.is_global = is_global
        self.written: tuple[Path, str] | None = None
        self.constant: str | None = None


class _Result(NamedTuple):
    """The result of a call, subscript or in-place operation, which replaced its operand on the stack."""

    kind: str
    of: _Load


class _Constant(NamedTuple):
    value: Any


class _BytecodeScanner:
    """Simulates the stack, marking the entries that were loaded by name.

    Jumps are not followed: after a jump the whole stack is unknown. A use that is not recognised as reading an
    attribute of a name or writing to it counts as a use of the whole object, so it does not matter whether the object
    passes through a local variable, an argument or a dict.
    """

    def __init__(self) -> None:
        self._loads: list[_Load] = []
        self._imports: set[tuple[str, int, tuple[str, ...]]] = set()
        self._stack: list[_Load | _Result | _Constant | None] = []
        self._argument: Any = None

    def usage(self) -> NameUsage:
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

    def scan(self, instruction: dis.Instruction) -> None:
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
            self._copy_or_swap(operation, instruction.arg or 1)
        elif operation in _HANDLERS:
            _HANDLERS[operation](self, instruction)
        else:
            self._apply_effect(instruction)

    def _push(self, instruction: dis.Instruction, entry: Any) -> None:
        """Push an entry, twice if the instruction prepares a call, which needs a place for `self`."""
        count = _effect(instruction)
        if instruction.opname in _ATTRIBUTE:
            self._stack.pop()
            count += 1
        self._stack += [entry] * max(1, count)

    def _copy_or_swap(self, operation: str, depth: int) -> None:
        """Track `x[k] += v`, which copies and swaps entries."""
        if depth > len(self._stack):
            self._stack[:0] = [None] * (depth - len(self._stack))
        if operation == "SWAP":
            self._stack[-1], self._stack[-depth] = self._stack[-depth], self._stack[-1]
            return
        entry = self._stack[-depth]
        if isinstance(entry, _Load):  # the copies are used independently
            entry = _Load(entry.path, is_global=entry.is_global)
            self._loads.append(entry)
        self._stack.append(entry)

    def _at(self, depth: int) -> Any:
        return self._stack[-depth] if depth <= len(self._stack) else None

    def _apply_effect(self, instruction: dis.Instruction) -> None:
        """Adjust the height of the stack; the new top was not loaded by name."""
        effect = _effect(instruction)
        if effect < 0:
            del self._stack[effect:]
        else:
            self._stack += [None] * effect
        if self._stack and not instruction.opname.startswith(_CONSUMES):
            self._stack[-1] = None

    def _replace_top(self, instruction: dis.Instruction, result: _Result | None) -> None:
        self._apply_effect(instruction)
        if self._stack and result is not None:
            self._stack[-1] = result

    # -- writes

    def _prepare_call(self, instruction: dis.Instruction) -> None:
        """Pop the arguments, which Python 3.11 does before the call."""
        self._argument = self._at(1) if instruction.arg == 1 else None
        if count := instruction.arg or 0:
            del self._stack[-count:]

    def _call(self, instruction: dis.Instruction) -> None:
        count = 0 if _POPS_BEFORE_CALL else (instruction.arg or 0)
        if not _POPS_BEFORE_CALL:
            self._argument = self._at(1) if count == 1 else None
        called = next((entry for k in (1, 2) if isinstance(entry := self._at(count + k), _Load)), None)
        if called is not None and isinstance(self._argument, _Constant) and isinstance(self._argument.value, str):
            called.constant = self._argument.value
        self._argument = None
        self._replace_top(instruction, None if called is None else _Result("call", called))

    def _drop(self, instruction: dis.Instruction) -> None:
        """Recognise `CALLS.append(x)`: the return value of the method is dropped."""
        top = self._at(1)
        if (
            isinstance(top, _Result)
            and top.kind == "call"
            and len(top.of.path) > 1
            and top.of.path[-1] in _MUTATING_METHODS
        ):
            top.of.written = (top.of.path[:-1], top.of.path[-1])
        self._apply_effect(instruction)

    def _item(self, instruction: dis.Instruction) -> None:
        container = self._at(2)
        self._replace_top(instruction, _Result("item", container) if isinstance(container, _Load) else None)

    def _operate(self, instruction: dis.Instruction) -> None:
        if instruction.arg == _SUBSCRIPT:
            self._item(instruction)
            return
        left = self._at(2) if instruction.arg in _IN_PLACE else None
        if isinstance(left, _Result):
            left = left.of if left.kind == "item" else None
        self._replace_top(instruction, _Result("in place", left) if isinstance(left, _Load) else None)

    def _rebind(self, instruction: dis.Instruction) -> None:
        """Recognise `total += x` of a global name or closure variable."""
        top = self._at(1)
        if isinstance(top, _Result) and top.kind == "in place" and top.of.path == (instruction.argval,):
            top.of.written = (top.of.path, "")
        self._apply_effect(instruction)

    def _put(self, instruction: dis.Instruction) -> None:
        """Recognise assignments to an item or attribute, also by an in-place operation."""
        depth = _STORE_DEPTHS[instruction.opname]
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
        self._apply_effect(instruction)

    # -- imports of modules

    def _import(self, instruction: dis.Instruction) -> None:
        level, names = self._at(2), self._at(1)
        given = names.value if isinstance(names, _Constant) else None
        of = level.value if isinstance(level, _Constant) else 0
        self._imports.add((instruction.argval, of, given or ()))
        self._apply_effect(instruction)


_HANDLERS: dict[str, Callable[[_BytecodeScanner, dis.Instruction], None]] = {
    "PRECALL": _BytecodeScanner._prepare_call,  # noqa: SLF001
    "CALL": _BytecodeScanner._call,  # noqa: SLF001
    "POP_TOP": _BytecodeScanner._drop,  # noqa: SLF001
    "BINARY_SUBSCR": _BytecodeScanner._item,  # noqa: SLF001
    "BINARY_OP": _BytecodeScanner._operate,  # noqa: SLF001
    "IMPORT_NAME": _BytecodeScanner._import,  # noqa: SLF001
    **dict.fromkeys(_REBINDS, _BytecodeScanner._rebind),  # noqa: SLF001
    **dict.fromkeys(_STORE_DEPTHS, _BytecodeScanner._put),  # noqa: SLF001
}
_POPS_BEFORE_CALL = "PRECALL" in dis.opmap


def _effect(instruction: dis.Instruction) -> int:
    return dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
