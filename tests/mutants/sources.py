"""Writes all mutants of a Rust file into one source, in which a number switches one of them on.

cargo-mutants compiles the crate and its tests once for each mutant, which takes far longer than the tests. Here one
build has all of them:

```
a + b                    (if crate::mutation::is(7) { a * b } else { a + b })
fn f() -> u32 { body }   fn f() -> u32 { if crate::mutation::is(8) { return 0; } body }
Some(x) => y             Some(x) if !crate::mutation::is(9) => y
```

Operands keep their grouping, where cargo-mutants replaces text: it makes `a || (b && c)` of `a && b && c`, this makes
`(a || b) && c`. What does not compile this way is left out (`suite.py`). Each mutant stands between two comments, which
tell in which one an error of the compiler is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import tree_sitter_rust
from tree_sitter import Language, Parser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tree_sitter import Node

_PARSER = Parser(Language(tree_sitter_rust.language()))
_OPENING = re.compile(rb"/\*<(\d+)\*/")


class Mutant(NamedTuple):
    """A mutant of cargo-mutants: what becomes of which part of a file; lines and columns count from 1."""

    number: int
    name: str
    file: str
    genre: str
    replacement: str
    start: tuple[int, int]
    end: tuple[int, int]

    @classmethod
    def read(cls, number: int, listed: Mapping[str, Any]) -> Mutant:
        """Return the mutant that an entry of `cargo mutants --list --json` describes."""
        start, end = ((at["line"], at["column"]) for at in (listed["span"]["start"], listed["span"]["end"]))
        return cls(number, listed["name"], listed["file"], listed["genre"], listed["replacement"], start, end)


class Source:
    """A Rust file with mutants in it.

    Attributes:
        left_out: The mutants that have no place in it.
    """

    def __init__(self, text: str, mutants: Iterable[Mutant]) -> None:
        self._bytes = text.encode()
        self._lines = text.splitlines(keepends=True)
        self._tree = _PARSER.parse(self._bytes)
        self._nodes = list(_all_below(self._tree.root_node))
        self._placed: dict[int, list[Mutant]] = {}
        self.left_out: list[Mutant] = []
        for mutant in mutants:
            node = self._place(mutant)
            if node is None:
                self.left_out.append(mutant)
            else:
                self._placed.setdefault(node.id, []).append(mutant)

    def text(self) -> str:
        """Return the text with all mutants that have a place."""
        return re.sub(r"\bconst fn\b", "fn", self._written(self._tree.root_node))  # what is switched is not constant

    def _place(self, mutant: Mutant) -> Node | None:
        start, end = (self._offset(at) for at in (mutant.start, mutant.end))
        if mutant.genre == "FnValue":
            around = [each for each in self._nodes if each.start_byte <= start and end <= each.end_byte]
            bodies = [each for each in around if each.type == "block" and each.parent.type == "function_item"]
            return max(bodies, key=lambda body: body.start_byte, default=None)
        for node in self._nodes:
            if node.start_byte == start and _FITS.get(mutant.genre, _never)(node, end):
                return node if mutant.genre.startswith("MatchArm") else node.parent
        return None

    def _offset(self, at: tuple[int, int]) -> int:
        before = "".join(self._lines[: at[0] - 1]) + self._lines[at[0] - 1][: at[1] - 1]
        return len(before.encode())

    def _raw(self, start: int, end: int) -> str:
        return self._bytes[start:end].decode()

    def _written(self, node: Node) -> str:
        mutants = self._placed.get(node.id, [])
        if not mutants or node.type == "match_arm":
            return self._with_children(node, mutants)
        if node.type == "block":
            return self._body(node, mutants)
        choices = "".join(f"if {_on(each)} {{ {_marked(each, self._instead(node, each))} }} else " for each in mutants)
        return f"({choices}{{ {self._with_children(node)} }})"

    def _instead(self, node: Node, mutant: Mutant) -> str:
        """Return what takes the place of an expression."""
        if mutant.genre == "UnaryOperator":
            return mutant.replacement + self._raw(node.children[1].start_byte, node.end_byte)
        if mutant.genre == "BinaryOperator":
            operator = node.child_by_field_name("operator")
            left, right = self._raw(node.start_byte, operator.start_byte), self._raw(operator.end_byte, node.end_byte)
            return left + mutant.replacement + right
        return mutant.replacement

    def _body(self, node: Node, mutants: list[Mutant]) -> str:
        """Return the body of a function that first looks whether it is to return something else."""
        body = self._with_children(node)
        returned = node.parent.child_by_field_name("return_type")
        if returned is None or not self._raw(returned.start_byte, returned.end_byte).startswith("impl "):
            early = "".join(_marked(each, f"if {_on(each)} {{ return {each.replacement}; }}") for each in mutants)
            return f"{{ {early} {body[1:]}"
        choices = ""
        for depth, each in enumerate(mutants):  # one type for all: nested `Either`s, the body in the innermost
            returned = _nested(f"crate::mutation::Either::L({each.replacement})", depth)
            choices += f"if {_on(each)} {{ {_marked(each, returned)} }} else "
        return f"{{ {choices}{{ {_nested(body, len(mutants))} }} }}"

    def _with_children(self, node: Node, removed: list[Mutant] | tuple[()] = ()) -> str:
        """Return the text of a node, its children with their mutants, and with one that removes this match arm."""
        parts, at = [], node.start_byte
        for child in node.children:
            parts.append(self._raw(at, child.start_byte))
            if removed and child.type == "match_pattern":
                parts.append(self._guarded(child, removed[0]))
            else:
                parts.append(self._written(child))
            at = child.end_byte
        return "".join([*parts, self._raw(at, node.end_byte)])

    def _guarded(self, pattern: Node, mutant: Mutant) -> str:
        condition = pattern.child_by_field_name("condition")
        off = _marked(mutant, f"!{_on(mutant)}")
        if condition is None:
            return f"{self._written(pattern)} if {off}"
        return f"{self._raw(pattern.start_byte, condition.start_byte)} {off} && ({self._written(condition)})"


def mutant_at(text: bytes, start: int, end: int) -> int | None:
    """Return the number of the innermost mutant around a place in a file that `Source` wrote."""
    around = []
    for opening in _OPENING.finditer(text):
        closing = text.find(b"/*%s>*/" % opening[1], opening.end())
        if opening.start() <= start and end <= closing:
            around.append((opening.start(), int(opening[1])))
    return max(around)[1] if around else None


def _all_below(node: Node) -> Iterator[Node]:
    for child in node.children:
        yield child
        yield from _all_below(child)


def _is_operator(node: Node, end: int) -> bool:
    return node.end_byte == end and node.parent.child_by_field_name("operator") == node


def _is_prefix(node: Node, end: int) -> bool:
    return node.end_byte == end and node.parent.type == "unary_expression"


def _is_arm(node: Node, _end: int) -> bool:
    """Say whether this is an arm next to one for all else; without that a guard leaves values that no arm takes."""
    if node.type != "match_arm":
        return False
    patterns = [arm.child_by_field_name("pattern") for arm in node.parent.children if arm.type == "match_arm"]
    return any(pattern.text == b"_" for pattern in patterns)


def _is_guard(node: Node, end: int) -> bool:
    return node.end_byte == end and node.parent.child_by_field_name("condition") == node


def _never(_node: Node, _end: int) -> bool:
    return False


# By genre: whether a node that begins where the mutant does is what it changes.
_FITS = {"BinaryOperator": _is_operator, "UnaryOperator": _is_prefix, "MatchArm": _is_arm, "MatchArmGuard": _is_guard}


def _on(mutant: Mutant) -> str:
    return f"crate::mutation::is({mutant.number})"


def _marked(mutant: Mutant, text: str) -> str:
    return f"/*<{mutant.number}*/ {text} /*{mutant.number}>*/"


def _nested(text: str, depth: int) -> str:
    return "crate::mutation::Either::R(" * depth + text + ")" * depth
