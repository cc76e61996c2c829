"""If and Switch: decisions as nodes of the graph, and the branches that they choose from.

```
If(condition).then(a).else_(b) ──▶ a decision: a step that reads what is before it and returns the answer
                               └─▶ its branches: ordinary steps, each guarded by that answer
```

A decision runs once, where steps run, after every step that was added before it (or `after=`), whatever became of them
as long as one has a value. It sees their values through a `Seen`, which loads a value when it is looked at. Branches
are steps like others: they can be read, joined, fail. The module knows neither pipelines nor workers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from flowyml._frames import leaves_no_frames
from flowyml._words import listed, nearest
from flowyml.conditions import Guard, checked_predicate
from flowyml.errors import StepNotRunError
from flowyml.steps import Step, as_step, checked_after, checked_text

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from flowyml.steps import Named


class Before(NamedTuple):
    """A step that a decision may look at.

    Attributes:
        name: Its name.
        outputs: Its assets.
        also: Further names of its assets, with their positions; of a step in a sub-pipeline.
        declared: Its assets as the step declares them, where these are other names.
    """

    name: str
    outputs: tuple[str, ...]
    also: tuple[tuple[str, int], ...] = ()
    declared: tuple[str, ...] = ()

    def position(self, asset: str) -> int | None:
        """Return which of its assets that is."""
        return self.outputs.index(asset) if asset in self.outputs else dict(self.also).get(asset)

    def own_position(self, asset: str) -> int | None:
        """Return which of its assets that is, also by the name that the step itself has for it."""
        position = self.position(asset)
        return self.declared.index(asset) if position is None and asset in self.declared else position


class Seen:
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
        before: Sequence[Before],
        values: Mapping[str, Sequence[Any]],
        params: Mapping[str, Any],
        decode: Callable[[bytes], Any] | None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """Load nothing."""
        self.params: Mapping[str, Any] = _Params(self, params, given) if given else params
        self._before = {each.name: each for each in before}
        self._values = values
        self._decode = decode

    @property
    def steps(self) -> Mapping[str, SeenStep]:
        """The steps before the decision by name."""
        return _Steps(self)

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
        raise LookupError(
            f"{name!r} is no output of the steps before this decision ({listed(known) or 'there are none'}), and no "
            f"context value; add its step before, or name it in after={nearest(name, [*known, *self.params])}"
        )

    def value(self, step: str, index: int) -> Any:
        """Return one output of a step, loaded."""
        if step not in self._values:
            raise StepNotRunError(step, "it was skipped or failed")
        return self.loaded(self._values[step][index])

    def loaded(self, kept: Any) -> Any:
        """Return the object of a kept value."""
        return [self._loaded(each) for each in kept.items] if isinstance(kept, Kept) else self._loaded(kept)

    def _loaded(self, kept: Any) -> Any:
        return kept if self._decode is None or type(kept) is not bytes else self._decode(kept)


class Kept(NamedTuple):
    """The values of a mapped step as they are kept."""

    items: list[Any]


class _Params(Mapping[str, Any]):
    """The context, the run's inputs, and what the pipeline around gives, loaded when it is looked at."""

    def __init__(self, seen: Seen, params: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self._seen = seen
        self._params = params
        self._given = given

    def __getitem__(self, name: str) -> Any:
        return self._seen.loaded(self._given[name]) if name in self._given else self._params[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._params, **self._given})

    def __len__(self) -> int:
        return len({**self._params, **self._given})


class _Steps(Mapping[str, "SeenStep"]):
    """The steps that a decision may look at."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def __getitem__(self, name: str) -> SeenStep:
        before = self._seen._before  # noqa: SLF001  a view of it
        if name not in before:
            raise LookupError(
                f"step {name!r} is not before this decision (before it: {listed(before) or 'nothing'})"
                f"; add it before, or name it in after={nearest(name, before)}"
            )
        return SeenStep(self._seen, before[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen._before)  # noqa: SLF001

    def __len__(self) -> int:
        return len(self._seen._before)  # noqa: SLF001

    def __contains__(self, name: object) -> bool:
        return name in self._seen._before  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class SeenStep:
    """A step as a decision sees it.

    Attributes:
        seen: What the decision sees.
        before: The step.
    """

    seen: Seen
    before: Before

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Its outputs by asset; of a step whose one output is a mapping, also that one's keys."""
        return _Outputs(self.seen, self.before)


class _Outputs(Mapping[str, Any]):
    """The outputs of a step, loaded when they are looked at."""

    def __init__(self, seen: Seen, before: Before) -> None:
        self._seen = seen
        self._step = before

    def __getitem__(self, name: str) -> Any:
        position = self._step.own_position(name)
        if position is not None:
            return self._seen.value(self._step.name, position)
        whole = self._seen.value(self._step.name, 0) if len(self._step.outputs) == 1 else None
        if isinstance(whole, Mapping) and name in whole:
            return whole[name]
        raise LookupError(
            f"step {self._step.name!r} has no output {name!r}, its outputs are {listed(self._step.outputs)}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._step.outputs)

    def __len__(self) -> int:
        return len(self._step.outputs)


class Decision:
    """The function of a decision's step.

    Args:
        ask: What the user gave: a function of what is seen.
        exact: Whether its answer is kept as it is; else it is taken as true or false.
    """

    def __init__(self, ask: Callable[[Any], Any], *, exact: bool) -> None:
        """Keep the question."""
        self.ask = ask
        self.exact = exact

    def __call__(self, context: Any) -> Any:
        """Ask."""
        answer = self.ask(context)
        return answer if self.exact else bool(answer)


class Chosen:
    """A branch's predicate: the decision's answer is one of these values, or none of them.

    Args:
        decision: Name of the decision's step.
        values: The values.
        wanted: Whether the answer must be among them.
        told: The answer in words, for pictures.
    """

    def __init__(self, decision: str, values: Sequence[Any], *, wanted: bool, told: str) -> None:
        """Take the answer by the decision's name."""
        self.decision = decision
        self.told = told
        self.values = values
        self.wanted = wanted
        self.__signature__: inspect.Signature = inspect.Signature(
            [inspect.Parameter(decision, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=...)]
        )

    def __call__(self, answer: Any) -> bool:
        """Tell whether the branch runs."""
        return any(answer == value for value in self.values) is self.wanted

    def __repr__(self) -> str:
        """Say when the branch runs."""
        values = " or ".join(map(repr, self.values))
        return f"<{', '.join(self.__signature__.parameters)} is{'' if self.wanted else ' not'} {values}>"


class Branching:
    """What `If` and `Switch` have in common."""

    kind: str
    exact: bool

    def __init__(self, ask: Any, after: Any, name: Any) -> None:
        """Check the arguments."""
        self.decision: Decision = Decision(
            checked_predicate(f"the condition of {type(self).__name__}", ask), exact=self.exact
        )
        self.after: tuple[str, ...] | None = None if after is None else checked_after(after, type(self).__name__)
        self.name: str | None = None if name is None else _identifier(name, type(self).__name__)

    def decision_name(self, taken: Container[str], given: Any = None) -> str:
        """Return the name of the decision's step, one that is not taken unless the user said so."""
        if given is not None:
            return _identifier(given, type(self).__name__)
        numbered = (f"{self.kind}_{number}" for number in count(1))
        return self.name or next(name for name in numbered if name not in taken)

    def branches(self, decision: str) -> Iterator[tuple[Step[..., Any], Guard]]:
        """Go through the branches, each with the guard that lets it run."""
        raise NotImplementedError


def _identifier(name: Any, kind: str) -> str:
    if not checked_text(f"the name of {kind}", name).isidentifier():
        raise ValueError(f"the name of {kind} must be an identifier, got {name!r}")
    return str(name)


class If(Branching):
    """Runs one of two steps, by what the steps before it produced.

    Args:
        condition: A function of one argument: `ctx.steps[name].outputs[asset]`, `ctx[asset]` and `ctx.params` are what
            it may look at. Asked once, where steps run.
        then_step: The step that runs if the answer is true; the other one is skipped.
        else_step: The step that runs if it is not.
        after: The steps that it looks at; by default all that were added before it.
        name: Its name among the steps, an identifier; "if_1" and so on by default. Its value is the answer.

    Raises:
        TypeError: For a wrong argument.

    >>> from flowyml import If, Pipeline
    >>> def evaluate():
    ...     return 0.93
    >>> def deploy():
    ...     return "deployed"
    >>> def retrain():
    ...     return "trained"
    >>> pipeline = Pipeline("gate").add_step(evaluate)
    >>> pipeline = pipeline.add_control_flow(If(lambda ctx: ctx["evaluate"] > 0.9, deploy, retrain))
    >>> dict(pipeline.run().outputs)
    {'evaluate': 0.93, 'if_1': True, 'deploy': 'deployed'}
    """

    kind = "if"
    exact = False

    @leaves_no_frames
    def __init__(
        self,
        condition: Callable[[Any], Any],
        then_step: Callable[..., Any] | None = None,
        else_step: Callable[..., Any] | None = None,
        *,
        after: Named | Sequence[Named] | None = None,
        name: str | None = None,
    ) -> None:
        """Check the arguments."""
        super().__init__(condition, after, name)
        self._steps: dict[bool, Step[..., Any]] = {}
        for answer, step in ((True, then_step), (False, else_step)):
            if step is not None:
                self._set(answer, step)

    @leaves_no_frames
    def then(self, step: Callable[..., Any]) -> If:
        """Say which step runs if the answer is true."""
        return self._set(answer=True, step=step)

    @leaves_no_frames
    def else_(self, step: Callable[..., Any]) -> If:
        """Say which step runs if it is not."""
        return self._set(answer=False, step=step)

    def _set(self, answer: bool, step: Any) -> If:  # noqa: FBT001  by name in the two methods above
        if answer in self._steps:
            raise ValueError(f"If has {self._steps[answer]!r} already for the answer {answer}")
        self._steps[answer] = as_step(step)
        return self

    def branches(self, decision: str) -> Iterator[tuple[Step[..., Any], Guard]]:
        """Go through the branches, each with the guard that lets it run."""
        for answer, step in sorted(self._steps.items(), reverse=True):
            yield step, Guard(Chosen(decision, (True,), wanted=answer, told=str(answer)), wanted=True)


class Switch(Branching):
    """Runs one of several steps, by a value made of what the steps before it produced.

    Args:
        selector: A function of what is seen, as for `If`; its answer is compared with the cases.
        after: The steps that it looks at; by default all that were added before it.
        name: Its name among the steps, an identifier; "switch_1" and so on by default. Its value is the answer.

    >>> from flowyml import Pipeline, Switch
    >>> def load():
    ...     return "en"
    >>> def english():
    ...     return "hello"
    >>> def other():
    ...     return "?"
    >>> switch = Switch(lambda ctx: ctx["load"]).case("en", english).default(other)
    >>> Pipeline("words").add_step(load).add_control_flow(switch).run()["english"]
    'hello'
    """

    kind = "switch"
    exact = True

    @leaves_no_frames
    def __init__(
        self, selector: Callable[[Any], Any], *, after: Named | Sequence[Named] | None = None, name: str | None = None
    ) -> None:
        """Check the arguments."""
        super().__init__(selector, after, name)
        self._cases: list[tuple[Any, Step[..., Any]]] = []
        self._default: Step[..., Any] | None = None

    @leaves_no_frames
    def case(self, value: Any, step: Callable[..., Any]) -> Switch:
        """Say which step runs for a value."""
        if any(value == other for other, _ in self._cases):
            raise ValueError(f"Switch has a case {value!r} already")
        self._cases.append((value, as_step(step)))
        return self

    @leaves_no_frames
    def default(self, step: Callable[..., Any]) -> Switch:
        """Say which step runs for any other value."""
        if self._default is not None:
            raise ValueError(f"Switch has the default {self._default!r} already")
        self._default = as_step(step)
        return self

    def branches(self, decision: str) -> Iterator[tuple[Step[..., Any], Guard]]:
        """Go through the branches, each with the guard that lets it run."""
        for value, step in self._cases:
            yield step, Guard(Chosen(decision, (value,), wanted=True, told=repr(value)), wanted=True)
        if self._default is not None:
            values = tuple(value for value, _ in self._cases)
            yield self._default, Guard(Chosen(decision, values, wanted=False, told="anything else"), wanted=True)
