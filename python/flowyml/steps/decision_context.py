"""Decision context: what a decision, or a condition, sees of the steps before it.

`ctx.steps[name].outputs[asset]`, `ctx.params`, `ctx[name]`: values are loaded when they are read. A name that does not
exist is an error with the names that do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import did_you_mean, join_names
from flowyml.errors import StepNotRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class VisibleStep(NamedTuple):
    """A step that a decision may look at.

    Attributes:
        name: Its name.
        outputs: Its assets.
        also: Further names of its assets, with their positions; of a step in a sub-pipeline.
        declared: Its assets as the step declares them, where these are other names.
        mapped: Whether it is a mapped step, whose value needs all its items.
    """

    name: str
    outputs: tuple[str, ...]
    also: tuple[tuple[str, int], ...] = ()
    declared: tuple[str, ...] = ()
    mapped: bool = False

    def position(self, asset: str) -> int | None:
        """Return which of its assets that is."""
        return self.outputs.index(asset) if asset in self.outputs else dict(self.also).get(asset)

    def own_position(self, asset: str) -> int | None:
        """Return which of its assets that is, also by the name that the step itself has for it."""
        position = self.position(asset)
        return self.declared.index(asset) if position is None and asset in self.declared else position


class _NotANumber:
    """Refuses comparisons and arithmetic: it is not the value of a step.

    Raises:
        TypeError: Always; the message says what to write.
    """

    __slots__ = ()

    def _in_words(self) -> str:
        raise NotImplementedError

    def _refuse(self, *_: object) -> Any:
        raise TypeError(self._in_words())

    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __mod__ = __rmod__ = __floordiv__ = __neg__ = __abs__ = __int__ = __float__ = _refuse


class _NoValue(_NotANumber):
    """Also refuses equality and truth, which would take the same branch for any value."""

    __slots__ = ()
    __bool__ = _NotANumber._refuse  # noqa: SLF001  of its own base
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return True if other is self else bool(self._refuse())

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> Any:
            told = "" if name.startswith("__") else f"; {self._in_words()}"
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{told}")


class DecisionContext(_NoValue):
    """What a decision sees: `ctx.steps[name].outputs[asset]`, `ctx.params`, and `ctx[name]` for either.

    Args:
        before: The steps that are finished.
        values: By step, the values of its outputs as they are kept; a step without a value is left out.
        params: The context and the run's inputs.
        decode: Turns a kept value into the object; `None` if it is the object.
        given: What the pipeline around a sub-pipeline gives it, as it is kept; goes before `params`.
    """

    def __init__(
        self,
        before: Sequence[VisibleStep],
        values: Mapping[str, Sequence[Any]],
        params: Mapping[str, Any],
        decode: Callable[[Any], Any] | None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        self.params: Mapping[str, Any] = _ContextView(self, params, given) if given else params
        self._before = {each.name: each for each in before}
        self._values = values
        self._decode = decode

    def _in_words(self) -> str:
        first = next(iter(self._before.values()), None)
        if first is None:
            return "the argument of this decision is not a value: it holds the context; write ctx['name']"
        asset = first.outputs[0] if first.outputs else first.name
        return (
            f"the argument of this decision is not a value: it holds the outputs of the steps before it; write "
            f"ctx[{asset!r}], or ctx.steps[{first.name!r}].outputs[{asset!r}]"
        )

    @property
    def steps(self) -> Mapping[str, StepView]:
        """The steps before the decision by name."""
        return _StepsView(self)

    def __getitem__(self, name: str) -> Any:
        """Return an asset of the steps before, a value of the context, or a key of what such a step returned.

        Raises:
            LookupError: If there is none; names it.
            StepNotRunError: If its step was skipped or failed.
        """
        for each in self._before.values():
            position = each.position(name)
            if position is not None:
                return self.value(each.name, position)
        if name in self.params:
            return self.params[name]
        known = [asset for each in self._before.values() for asset in each.outputs]
        near = did_you_mean(name, [*known, *self.params])
        raise LookupError(
            f"{name!r} is no output of the steps before this decision ({join_names(known) or 'there are none'}), and "
            f"no context value; add its step before, or name it in after={near}"
        )

    def value(self, step: str, index: int) -> Any:
        """Return one output of a step, loaded."""
        if step not in self._values:
            mapped = self._before[step].mapped
            raise StepNotRunError(step, f"it was skipped or failed{', or some of its items were' if mapped else ''}")
        return self.loaded(self._values[step][index])

    def loaded(self, kept: Any) -> Any:
        """Return the object of a kept value."""
        return [self._loaded(each) for each in kept.items] if isinstance(kept, EncodedItems) else self._loaded(kept)

    def _loaded(self, kept: Any) -> Any:
        return kept if self._decode is None else self._decode(kept)


class EncodedItems(NamedTuple):
    """The values of a mapped step as they are kept."""

    items: list[Any]


class _ContextView(Mapping[str, Any]):
    """The context, the run's inputs, and what the pipeline around gives, loaded when it is looked at."""

    def __init__(self, seen: DecisionContext, params: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self._seen = seen
        self._params = params
        self._given = given

    def __getitem__(self, name: str) -> Any:
        return self._seen.loaded(self._given[name]) if name in self._given else self._params[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._params, **self._given})

    def __len__(self) -> int:
        return len({**self._params, **self._given})


class _StepsView(_NotANumber, Mapping[str, "StepView"]):
    """The steps that a decision may look at."""

    def __init__(self, seen: DecisionContext) -> None:
        self._seen = seen

    def _in_words(self) -> str:
        return self._seen._in_words()  # noqa: SLF001

    def __getitem__(self, name: str) -> StepView:
        before = self._seen._before  # noqa: SLF001  a view of it
        if name not in before:
            raise LookupError(
                f"step {name!r} is not before this decision (before it: {join_names(before) or 'nothing'})"
                f"; add it before, or name it in after={did_you_mean(name, before)}"
            )
        return StepView(self._seen, before[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen._before)  # noqa: SLF001

    def __len__(self) -> int:
        return len(self._seen._before)  # noqa: SLF001

    def __contains__(self, name: object) -> bool:
        return name in self._seen._before  # noqa: SLF001


@dataclass(frozen=True, slots=True, eq=False)
class StepView(_NoValue):
    """A step as a decision sees it.

    Attributes:
        seen: What the decision sees.
        before: The step.
    """

    seen: DecisionContext
    before: VisibleStep

    def _in_words(self) -> str:
        return _words_of(self.before)

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Its outputs by asset; of a step whose one output is a mapping, also that one's keys."""
        return _OutputsView(self.seen, self.before)


def _words_of(step: VisibleStep) -> str:
    asset = step.outputs[0] if step.outputs else step.name
    return (
        f"step {step.name!r}, as a decision sees it, is not its value; write ctx[{asset!r}], or "
        f"ctx.steps[{step.name!r}].outputs[{asset!r}]"
    )


class _OutputsView(_NotANumber, Mapping[str, Any]):
    """The outputs of a step, loaded when they are looked at."""

    def __init__(self, seen: DecisionContext, before: VisibleStep) -> None:
        self._seen = seen
        self._step = before

    def _in_words(self) -> str:
        return _words_of(self._step)

    def __getitem__(self, name: str) -> Any:
        position = self._step.own_position(name)
        if position is not None:
            return self._seen.value(self._step.name, position)
        whole = self._seen.value(self._step.name, 0) if len(self._step.outputs) == 1 else None
        if isinstance(whole, Mapping) and name in whole:
            return whole[name]
        raise LookupError(
            f"step {self._step.name!r} has no output {name!r}, its outputs are {join_names(self._step.outputs)}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._step.outputs)

    def __len__(self) -> int:
        return len(self._step.outputs)
