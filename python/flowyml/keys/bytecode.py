"""Code objects as plain data, and what they read.

Two functions are alike if they do alike: names, constants, instructions. File, line numbers, comments, docstrings and
annotations take no part. Constants stand where they are used and not by number, so that a docstring, which is one of
them, moves nothing. The instructions are those of this Python version: another one means another key.

What a function reads beside its arguments is found in its instructions, too: global names, attributes of global
modules. A container that the code itself changes (`CALLS.append(...)`, `COUNTS[name] += 1`, `global n`) is something it
writes: its contents say nothing about what the function will do, and would make each key a new one.
"""

from __future__ import annotations

import dis
import inspect
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any

from flowyml._tuples import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONSTANT = frozenset(dis.hasconst)
# Flags that say how a function is called; others tell whether it is nested or has a docstring.
_CALLED = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_KIND = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_GLOBAL = frozenset(["LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"])
_LOADS = _GLOBAL | {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
_ATTRIBUTE = frozenset(["LOAD_ATTR", "LOAD_METHOD"])
_REBINDS = frozenset(["STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"])
# Where the container stands below the top of the stack.
_PUTS = {"STORE_ATTR": 1, "DELETE_ATTR": 1, "STORE_SUBSCR": 2, "DELETE_SUBSCR": 2, "STORE_SLICE": 3}
_CONSUMES = ("POP_", "STORE_", "DELETE_", "RETURN_", "JUMP_")
_CHANGES = frozenset(
    [
        *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "appendleft", "extendleft"),
        *("popleft", "rotate", "add", "discard", "update", "setdefault", "popitem", "subtract", "write", "writelines"),
        *("difference_update", "intersection_update", "symmetric_difference_update", "put", "put_nowait", "set"),
    ]
)


class Uses(NamedTuple):
    """What code reads and changes beside its arguments.

    Attributes:
        names: Global names that it reads.
        attributes: Names that it reads of what global names stand for.
        changed: Global names and closure variables that it rebinds, or whose contents it changes.
    """

    names: frozenset[str]
    attributes: frozenset[tuple[str, str]]
    changed: frozenset[str]


@lru_cache(maxsize=4096)
def plain(code: CodeType) -> tuple[Any, ...]:
    """Return code as plain data: tuples, numbers, text; equal for code that does alike.

    >>> one, other = (compile(text, "file", "exec") for text in ("x = 1", "x = 1  # more"))
    >>> plain(one) == plain(other)
    True
    """
    steps = tuple(
        (each.opcode, _constant(each.argval)) if each.opcode in _CONSTANT else (each.opcode, each.arg)
        for each in dis.get_instructions(code)
    )
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & (_CALLED | _KIND))
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (steps, shape, names, code.co_exceptiontable)


def _constant(value: Any) -> tuple[Any, ...]:
    return ("code", *plain(value)) if isinstance(value, CodeType) else ("constant", value)


@lru_cache(maxsize=4096)
def uses(code: CodeType) -> Uses:
    """Return what code reads and changes, the functions inside it included."""
    search = _Search()
    for instruction in dis.get_instructions(code):
        search.see(instruction)
    found = [search.found(), *(uses(each) for each in _inner(code))]
    return Uses(*(frozenset().union(*parts) for parts in zip(*found, strict=True)))


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (each for each in code.co_consts if isinstance(each, CodeType))


class _Search:
    """Goes through instructions with a stack that knows which of its entries a name has put there.

    Jumps are not followed: after one, nothing is known of the stack. That is enough for the plain forms in which people
    write such things.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._attributes: set[tuple[str, str]] = set()
        self._changed: set[str] = set()
        self._stack: list[str | None] = []

    def found(self) -> Uses:
        """Return what was found."""
        return Uses(frozenset(self._names), frozenset(self._attributes), frozenset(self._changed))

    def see(self, instruction: dis.Instruction) -> None:
        """Take in one instruction."""
        if instruction.is_jump_target:
            self._stack[:] = [None] * len(self._stack)
        operation = instruction.opname
        if operation in _LOADS:
            self._load(instruction)
        elif operation in {"COPY", "SWAP"}:
            self._turn(operation, instruction.arg or 1)
        else:
            self._note(operation, instruction.argval)
            self._other(instruction)

    def _load(self, instruction: dis.Instruction) -> None:
        if instruction.opname in _GLOBAL:
            self._names.add(instruction.argval)
        self._stack += [instruction.argval] * max(1, _effect(instruction))

    def _turn(self, operation: str, depth: int) -> None:
        """Keep track through `x[k] += v`, which copies and swaps."""
        if depth > len(self._stack):
            self._stack[:0] = [None] * (depth - len(self._stack))
        if operation == "COPY":
            self._stack.append(self._stack[-depth])
        else:
            self._stack[-1], self._stack[-depth] = self._stack[-depth], self._stack[-1]

    def _note(self, operation: str, argument: Any) -> None:
        if operation in _REBINDS:
            self._changed.add(argument)
        elif operation in _ATTRIBUTE and (name := self._at(1)):
            self._attributes.add((name, argument))
            if argument in _CHANGES:
                self._changed.add(name)
        elif operation in _PUTS and (name := self._at(_PUTS[operation])):
            self._changed.add(name)

    def _at(self, depth: int) -> str | None:
        return self._stack[-depth] if depth <= len(self._stack) else None

    def _other(self, instruction: dis.Instruction) -> None:
        """Follow the height of the stack; what an instruction leaves on top is nobody's."""
        effect = _effect(instruction)
        if effect < 0:
            del self._stack[effect:]
        else:
            self._stack += [None] * effect
        if self._stack and not instruction.opname.startswith(_CONSUMES):
            self._stack[-1] = None


def _effect(instruction: dis.Instruction) -> int:
    return dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
