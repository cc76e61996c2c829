"""Signatures: the part of a function's signature that binding needs, read once for each step.

A builtin that does not expose its parameters has a signature that is not `readable`; everything is passed to it by
position. The module knows nothing of steps.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import re
import sys
import typing
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NOTHING: Mapping[str, Any] = {}
# A hint that is still text: its names may exist for type checkers only.
_ITERATOR = r"""["']?(\w+\.)*Iterator(\[|["']?$)"""


def asks_for_iterator(func: Callable[..., Any], parameter: str) -> bool:
    """Return True if a parameter's type hint is `Iterator` or `Iterator[...]`.

    >>> def total(values: typing.Iterator[int], others: list[int]) -> int: ...
    >>> asks_for_iterator(total, "values"), asks_for_iterator(total, "others")
    (True, False)
    """
    hint = _annotations(func).get(parameter)
    hint = getattr(hint, "__forward_arg__", hint)
    if isinstance(hint, str):
        return re.match(_ITERATOR, hint) is not None
    return collections.abc.Iterator in {hint, typing.get_origin(hint)} if hint is not None else False


def _annotations(func: Any) -> Mapping[str, Any]:
    while isinstance(func, functools.partial):
        func = func.func
    if isinstance(func, type):
        func = func.__init__  # type: ignore[misc]
    elif not inspect.isroutine(func):
        func = type(func).__call__
    func = inspect.unwrap(func)
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(func, format=annotationlib.Format.FORWARDREF)
    return getattr(func, "__annotations__", {})


class StepSignature(NamedTuple):
    """The part of a function's signature that binding needs.

    Attributes:
        positional: Names that can be passed by position, in order.
        keyword_only: Names that must be passed by keyword.
        positional_only: How many of `positional` cannot be passed by keyword.
        defaults: Parameters that have a default, with it.
        var_positional: The name of `*args`, if there is one.
        var_keyword: Whether there is `**kwargs`.
        readable: `False` for builtins that do not tell their signature: all is passed by position, in the order given.
    """

    positional: tuple[str, ...] = ()
    keyword_only: tuple[str, ...] = ()
    positional_only: int = 0
    defaults: Mapping[str, Any] = _NOTHING
    var_positional: str | None = None
    var_keyword: bool = False
    readable: bool = True

    @classmethod
    def of(cls, func: Callable[..., Any]) -> StepSignature:
        """Read the signature of a function; numpy's functions have one or not by version, so theirs is not used."""
        plain = func.__func__ if isinstance(func, MethodType) else func
        if isinstance(plain, FunctionType) and not plain.__dict__:
            return cls._of_code(plain, bound=plain is not func)
        if type(func).__name__ == "ufunc":
            return cls(readable=False)
        try:
            parameters = inspect.signature(func).parameters.values()
        except (TypeError, ValueError):
            return cls(readable=False)
        kinds = inspect.Parameter
        by_position = [p.name for p in parameters if p.kind in {kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD}]
        return cls(
            positional=tuple(by_position),
            keyword_only=tuple(p.name for p in parameters if p.kind is kinds.KEYWORD_ONLY),
            positional_only=sum(p.kind is kinds.POSITIONAL_ONLY for p in parameters),
            defaults={p.name: p.default for p in parameters if p.default is not kinds.empty},
            var_positional=next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), None),
            var_keyword=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
        )

    @classmethod
    def _of_code(cls, func: FunctionType, *, bound: bool) -> StepSignature:
        """Read a plain function's code object: ten times as fast as `inspect`, which a loop of lambdas feels."""
        code, values = func.__code__, func.__defaults__ or ()
        count, end = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
        positional = code.co_varnames[:count]
        skip = int(bound and count > 0)
        defaults = dict(zip(positional[count - len(values) :], values, strict=True)) | (func.__kwdefaults__ or {})
        return cls(
            positional=positional[skip:],
            keyword_only=code.co_varnames[count:end],
            positional_only=max(0, code.co_posonlyargcount - skip),
            defaults={name: value for name, value in defaults.items() if not skip or name != positional[0]},
            var_positional=code.co_varnames[end] if code.co_flags & inspect.CO_VARARGS else None,
            var_keyword=bool(code.co_flags & inspect.CO_VARKEYWORDS),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All named parameters, left to right."""
        return self.positional + self.keyword_only

    def takes(self, name: str) -> bool:
        """Return True if a value can be passed under that name."""
        return name in self.positional or name in self.keyword_only or self.var_keyword

    def near(self, name: str) -> str:
        """Return ", did you mean ...?" for a misspelled parameter, else ""."""
        return did_you_mean(name, self.names)
