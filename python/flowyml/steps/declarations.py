"""What is declared of a step, checked: its name, the assets that it reads and produces, the steps that it waits for.

Every function returns what was given in the form in which steps keep it, which later changes of the caller's object do
not reach, or raises an error that names the step. It knows nothing of functions, pipelines or graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml.steps.handles import asset_of, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowyml.steps.step import Step

Inputs: TypeAlias = "str | Sequence[str] | Mapping[str, str | Sequence[str]]"
"""Declared inputs: one asset, several, or the assets of each parameter."""
Named: TypeAlias = "str | Step[..., Any]"
"""A name, or a step that stands for its own."""
Reads: TypeAlias = "Named | Sequence[Named] | Mapping[str, Named | Sequence[Named]]"
"""What `inputs=` takes."""


_LISTS = frozenset([list, tuple])


def checked_text(what: str, text: Any) -> str:
    """Return a name as a plain string.

    Raises:
        TypeError: If it is no string.
        ValueError: If it is empty.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, got {type(text).__name__} {text!r:.60}")
    if not text:
        raise ValueError(f"{what} must not be empty")
    return str(text)


def checked_inputs(inputs: Any, step: str) -> Any:
    """Return declared inputs in a form that later changes of the caller's object do not reach.

    Raises:
        TypeError: If they are neither a name, names, nor a mapping of parameters to names.
    """
    if inputs is None:
        return None
    if not isinstance(inputs, Mapping):
        return checked_names("inputs", inputs, step, asset_of)
    for parameter in inputs:
        if not isinstance(parameter, str):
            raise TypeError(f"inputs of step {step!r} must have parameter names as keys, got {parameter!r:.60}")
    return {
        parameter: wanted if type(wanted) is str else _checked_wanted(f"inputs[{parameter!r}]", wanted, step)
        for parameter, wanted in inputs.items()
    }


def _checked_wanted(what: str, wanted: Any, step: str) -> str | tuple[str, ...]:
    named = asset_of(wanted)
    return named if isinstance(named, str) else checked_names(what, wanted, step, asset_of)


def checked_outputs(outputs: Any, step: str) -> tuple[str, ...]:
    """Return declared outputs as a tuple of distinct names.

    Raises:
        TypeError: If they are not names.
        ValueError: If a name stands there twice.
    """
    if outputs is None:
        return ()
    names = checked_names("outputs", outputs, step)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"step {step!r} declares an output twice: {', '.join(map(repr, twice))}")
    return names


def plain_names(names: Any) -> tuple[str, ...]:
    """Return a string, or a list or tuple of distinct strings, as a tuple; an empty tuple for anything else."""
    if type(names) is str:
        return (names,) if names else ()
    if type(names) not in _LISTS:
        return ()
    for name in names:  # a generator in `all` costs three times as much
        if type(name) is not str or not name:
            return ()
    return tuple(names) if len(set(names)) == len(names) else ()


def checked_after(after: Any, step: str) -> tuple[str, ...]:
    """Return the names of the steps that one waits for.

    Raises:
        TypeError: If they are no names.
    """
    return () if after is None else checked_names("after", after, step, step_of)


def checked_names(
    what: str, names: Any, step: str, stands_for: Callable[[Any], Any] = lambda name: name
) -> tuple[str, ...]:
    """Return one name or several as a tuple; `stands_for` says which name a step or a handle stands for.

    Raises:
        TypeError: If they are no strings, or in no order.
        ValueError: If one is empty.
    """
    if isinstance(names, str) or isinstance(stands_for(names), str):
        names = (names,)
    if isinstance(names, (bytes, Mapping, set, frozenset)) or not hasattr(type(names), "__iter__"):
        raise TypeError(f"{what} of step {step!r} must be a name or a list of names, got {names!r:.60}")
    found: tuple[str, ...] = tuple(map(stands_for, names))
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{what} of step {step!r} must be names, got {type(name).__name__} {name!r:.60}")
        if not name:
            raise ValueError(f"{what} of step {step!r} must not be empty names")
    return found
