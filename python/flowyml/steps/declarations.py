"""Declarations of a step: names, assets that it reads and produces, steps that it waits for, tags; all of them checked.

Every `checked_` function returns its argument in the form in which steps store it, which later changes of the caller's
object do not reach, or raises a `TypeError` or `ValueError` that names the step. A *handle* stands for a name:
`pipeline["load"]` is one, and so is a `Step`. As an input it means the asset (`_as_asset`), in `after=` the step
(`_as_step`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml.diagnostics.text import join_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from flowyml.steps.step import Step


Inputs: TypeAlias = "str | Sequence[str] | Mapping[str, str | Sequence[str]]"
"""Declared inputs: one asset, several, or the assets of each parameter."""
Named: TypeAlias = "str | Step[..., Any]"
"""A name, or a step that stands for its own."""
Reads: TypeAlias = "Named | Sequence[Named] | Mapping[str, Named | Sequence[Named]]"
"""What `inputs=` takes."""


_LISTS = frozenset([list, tuple])


def checked_text(what: str, text: Any) -> str:
    """Return a name as a plain string."""
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, got {type(text).__name__} {text!r:.60}")
    if not text:
        raise ValueError(f"{what} must not be empty")
    return str(text)


def checked_inputs(inputs: Any, step: str, owner: str = "step") -> Any:
    """Return declared inputs in a form that later changes of the caller's object do not reach."""
    if inputs is None:
        return None
    if not isinstance(inputs, Mapping):
        return checked_names("inputs", inputs, step, asset_of, owner)
    for parameter in inputs:
        if not isinstance(parameter, str):
            raise TypeError(f"inputs of {owner} {step!r} must have parameter names as keys, got {parameter!r:.60}")
    return {
        parameter: wanted if type(wanted) is str else _checked_wanted(f"inputs[{parameter!r}]", wanted, step, owner)
        for parameter, wanted in inputs.items()
    }


def _checked_wanted(what: str, wanted: Any, step: str, owner: str) -> str | tuple[str, ...]:
    named = asset_of(wanted)
    return named if isinstance(named, str) else checked_names(what, wanted, step, asset_of, owner)


def checked_outputs(outputs: Any, step: str) -> tuple[str, ...]:
    """Return declared outputs as a tuple of distinct names."""
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


def checked_after(after: Any, step: str, owner: str = "step") -> tuple[str, ...]:
    """Return the names of the steps that one waits for."""
    return () if after is None else checked_names("after", after, step, step_of, owner)


def checked_names(
    what: str, names: Any, step: str, stands_for: Callable[[Any], Any] = lambda name: name, owner: str = "step"
) -> tuple[str, ...]:
    """Return one name or several as a tuple.

    Args:
        what: The argument.
        names: Its value.
        step: The name of the step or sub-pipeline, for messages.
        stands_for: Returns the name that a step or a handle stands for.
        owner: "step" or "sub-pipeline", for messages.
    """
    if isinstance(names, str) or isinstance(stands_for(names), str):
        names = (names,)
    if isinstance(names, (bytes, Mapping, set, frozenset)) or not hasattr(type(names), "__iter__"):
        raise TypeError(f"{what} of {owner} {step!r} must be a name or a list of names, got {names!r:.60}")
    found: tuple[str, ...] = tuple(map(stands_for, names))
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{what} of {owner} {step!r} must be names, got {type(name).__name__} {name!r:.60}")
        if not name:
            raise ValueError(f"{what} of {owner} {step!r} must not be empty names")
    return found


class NameHandle(str):
    """The name of a step or asset that was added to a pipeline; `Pipeline.__getitem__` gives it.

    Args:
        name: The name that was asked for.
        step: Its step.
        assets: What the step produces, if the name is the step's; else that name alone.

    >>> from flowyml import Pipeline
    >>> pipeline = Pipeline("p").add_step(dict, name="raw")
    >>> pipeline = pipeline.add_step(len, inputs=[pipeline["raw"]])
    >>> pipeline["raw"], pipeline.run()["len"]
    ('raw', 0)
    """

    __slots__ = ("_assets", "_step")

    _step: str
    _assets: tuple[str, ...]

    def __new__(cls, name: str, step: str, assets: tuple[str, ...]) -> Self:
        """Make a name that knows what it is the name of."""
        self = super().__new__(cls, name)
        self._step, self._assets = step, assets
        return self

    def _as_asset(self) -> str:
        return only_asset(self._step, self._assets)

    def _as_step(self) -> str:
        return self._step

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the plain name."""
        return str, (str(self),)


def only_asset(step: str, assets: tuple[str, ...]) -> str:
    """Return the one asset of a step.

    Raises:
        ValueError: If it has several, or is a sub-pipeline.
    """
    if len(assets) == 1:
        return assets[0]
    if not assets:
        raise ValueError(f"{step!r} is a sub-pipeline and no asset; name an asset of it")
    raise ValueError(f"step {step!r} has several outputs, name one of them: {join_names(assets)}")


def asset_of(name: Any) -> Any:
    """Return the asset that a handle stands for, and anything else as it is."""
    stands = getattr(type(name), "_as_asset", None)
    return name if stands is None else stands(name)


def step_of(name: Any) -> Any:
    """Return the step that a handle stands for, and anything else as it is."""
    stands = getattr(type(name), "_as_step", None)
    return name if stands is None else stands(name)


Tags: TypeAlias = "str | Iterable[str] | Mapping[str, str | int | float | bool | None]"
"""Tags as they are given: one, several, or with values."""


def checked_tags(tags: Any, step: str) -> dict[str, Any]:
    """Return tags as a mapping of their own; one without a value has "".

    >>> checked_tags("nightly", "train"), checked_tags({"team": "ml"}, "train")
    ({'nightly': ''}, {'team': 'ml'})
    """
    if isinstance(tags, str):
        tags = (tags,)
    if not isinstance(tags, Iterable):
        raise TypeError(f"tags of step {step!r} must be texts or a mapping, got {type(tags).__name__} {tags!r:.60}")
    kept = dict(tags) if isinstance(tags, Mapping) else dict.fromkeys(tags, "")
    for tag, value in kept.items():
        if not isinstance(tag, str):
            raise TypeError(f"tags of step {step!r} must be texts, got {type(tag).__name__} {tag!r:.60}")
        if not tag:
            raise ValueError(f"a tag of step {step!r} is empty")
        if not isinstance(value, (str, int, float, type(None))):
            raise TypeError(
                f"tag {tag!r} of step {step!r} must have a text or a number as its value, "
                f"got {type(value).__name__} {value!r:.60}"
            )
    return kept


def has_tag(tags: Mapping[str, Any], wanted: str) -> bool:
    """Return True if tags have one, written "tag" or "tag=value".

    >>> has_tag({"team": "ml"}, "team"), has_tag({"team": "ml"}, "team=ml"), has_tag({"team": "ml"}, "team=ops")
    (True, True, False)
    """
    tag, said, value = wanted.partition("=")
    return wanted in tags or (tag in tags and (not said or str(tags[tag]) == value))
