"""Exceptions that transports break on, each with what is nasty about it as its name."""

# ruff: noqa: N818, PLE0307  classes are named after what is nasty about them; some print nothing

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from flowyml.errors import PipelineValidationError, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable


def raised(function: Callable[[], Any]) -> BaseException:
    """Call a function that raises and return the exception with its traceback."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class OwnConstructor(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a, self.b = a, b


class KeywordOnly(ValueError):
    def __init__(self, *, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class ConstructorExits(Exception):
    def __init__(self, *args: Any) -> None:
        if not args:
            sys.exit("built twice")
        super().__init__()


class NewWants(Exception):
    def __new__(cls, a: int, b: int) -> Self:
        self = super().__new__(cls, a)
        self.b = b  # type: ignore[attr-defined]
        return self

    def __init__(self, a: int, b: int) -> None:
        pass


class Slotted(Exception):
    __slots__ = ("axis", "unset")

    def __init__(self, axis: int) -> None:
        self.axis = axis


@dataclass(frozen=True)
class Frozen(Exception):
    x: int


class OwnOS(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "not here", path)
        self.path = path


class OwnUnicode(UnicodeDecodeError):
    def __init__(self, text: str) -> None:
        super().__init__("utf-8", text.encode(), 0, 1, "no reason")


class Reduces(Exception):
    def __init__(self, a: int) -> None:
        super().__init__("text")
        self.a = a

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduces, (self.a,)


class ReduceRaises(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class ReduceExits(Exception):
    def __reduce__(self) -> Any:
        sys.exit(3)


class ReducesToOther(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("5",)


class LoadsWithError(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("five",)


class StateRaises(Exception):
    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("no")


class Base(BaseException):
    pass


class TwoBases(KeyError, AttributeError):
    pass


def missing_attribute() -> Any:
    return object().absent  # type: ignore[attr-defined]


class Wild:
    """Raises from everything that pickling and printing call."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise KeyboardInterrupt

    def __repr__(self) -> str:
        sys.exit(1)


class WildAtLoad:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (5,)

    def __repr__(self) -> str:
        return "<wild>"


class Fragile(Exception):
    """Its text needs an attribute that does not travel."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        return f"locked: {self.lock.locked()}"


class NoText(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class ExitsWhenPrinted(Exception):
    def __str__(self) -> str:
        sys.exit(1)


class NoLinks(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError


class OwnGroup(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception], code: int) -> Self:
        self = super().__new__(cls, f"code {code}", errors)
        self.code = code  # type: ignore[attr-defined]
        return self

    def __init__(self, errors: list[Exception], code: int) -> None:
        pass


def unpicklable_class() -> type[Exception]:
    class Meta(type):
        def __reduce_ex__(cls, protocol: Any) -> Any:
            raise TypeError("not this class")

    return Meta("Secret", (Exception,), {"__module__": "m", "lock": threading.Lock()})


TABLE: dict[str, BaseException] = {
    "plain": ValueError("bad", 3),
    "no arguments": AssertionError(),
    "key": KeyError("x"),
    "os": OSError(13, "denied", "/a", None, "/b"),
    "file not found": FileNotFoundError(2, "No such file", "x.csv"),
    "blocking": BlockingIOError(11, "again", 7),
    "unicode": raised(b"\xff".decode),
    "syntax": raised(lambda: compile("1 +", "cell", "exec")),
    "import": raised(lambda: __import__("no_such_module")),
    "import with path": ImportError("x", name="n", path="p"),
    "name": raised(lambda: undefined_name),  # type: ignore[name-defined]  # noqa: F821
    "attribute": raised(missing_attribute),
    "recursion": RecursionError("deep"),
    "system exit": SystemExit(3),
    "system exit with text": SystemExit("bye"),
    "keyboard interrupt": KeyboardInterrupt(),
    "generator exit": GeneratorExit("x"),
    "stop iteration": StopIteration(5),
    "cancelled": asyncio.CancelledError("stop"),
    "own base exception": Base("x"),
    "own constructor": OwnConstructor(1, 2),
    "keyword only": KeywordOnly(code=7),
    "constructor exits": ConstructorExits("once"),
    "own new": NewWants(1, 2),
    "slots": Slotted(4),
    "frozen dataclass": Frozen(3),
    "own os error": OwnOS("/tmp/x"),
    "own unicode error": OwnUnicode("ä"),
    "reduces": Reduces(3),
    "reduce raises": ReduceRaises("r"),
    "reduce exits": ReduceExits("r"),
    "reduces to something else": ReducesToOther("r"),
    "loads with an error": LoadsWithError("r"),
    "setstate raises": StateRaises("s"),
    "two built-in bases": TwoBases("t"),
    "ours": WorkerLostError("a", -9),
    "ours with problems": PipelineValidationError(["one", "two"], "p"),
    "local class": type("Local", (ValueError,), {"__module__": "__main__"})("l"),
    "huge": ValueError("x" * 10_000_000),
}
