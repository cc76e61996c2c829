"""If and Switch: decisions as nodes of the graph, and the branches that they choose from.

```
If(condition).then(a).else_(b) ──▶ a decision: a step that reads the results before it and returns the answer
                               └─▶ its branches: ordinary steps, each guarded by that answer
```

A decision runs once, where steps run, after every step that was added before it (or its `after=`), even if some of them
have no value. It reads their values through a `DecisionContext`. Branches are ordinary steps: they can be read and
joined, and they can fail.
"""

from __future__ import annotations

import inspect
from itertools import count
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.steps.conditions import Guard, checked_predicate
from flowyml.steps.declarations import checked_after, checked_text
from flowyml.steps.step import Step, as_step

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from flowyml.steps.decision_context import DecisionContext
    from flowyml.steps.declarations import Named


class Decision:
    """The function of a decision's step.

    Args:
        ask: What the user gave: a function of what is seen.
        exact: Whether its answer is kept as it is; else it is taken as true or false.
    """

    def __init__(self, ask: Callable[[Any], Any], *, exact: bool) -> None:
        self.ask = ask
        self.exact = exact

    def __call__(self, context: Any) -> Any:
        """Ask."""
        answer = self.ask(context)
        return answer if self.exact else bool(answer)


class BranchPredicate:
    """A branch's predicate: the decision's answer is one of these values, or none of them.

    Args:
        decision: Name of the decision's step.
        values: The values.
        wanted: Whether the answer must be among them.
        told: The answer in words, for pictures.
    """

    def __init__(self, decision: str, values: Sequence[Any], *, wanted: bool, told: str) -> None:
        self.decision = decision
        self.told = told
        self.values = values
        self.wanted = wanted
        self.__signature__: inspect.Signature = inspect.Signature(
            [inspect.Parameter(decision, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=...)]
        )

    def __call__(self, answer: Any) -> bool:
        """Return True if the branch runs."""
        return any(answer == value for value in self.values) is self.wanted

    def __repr__(self) -> str:
        """Return when the branch runs."""
        values = " or ".join(map(repr, self.values))
        return f"<{', '.join(self.__signature__.parameters)} is{'' if self.wanted else ' not'} {values}>"


class ControlFlow:
    """What `If` and `Switch` have in common."""

    kind: str
    exact: bool

    def __init__(self, ask: Any, after: Any, name: Any) -> None:
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
        """Yield the branches, each with its guard."""
        raise NotImplementedError


def _identifier(name: Any, kind: str) -> str:
    if not checked_text(f"the name of {kind}", name).isidentifier():
        raise ValueError(f"the name of {kind} must be an identifier, got {name!r}")
    return str(name)


class If(ControlFlow):
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

    @hides_internal_frames
    def __init__(
        self,
        condition: Callable[[DecisionContext], object],
        then_step: Callable[..., Any] | None = None,
        else_step: Callable[..., Any] | None = None,
        *,
        after: Named | Sequence[Named] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(condition, after, name)
        self._steps: dict[bool, Step[..., Any]] = {}
        for answer, step in ((True, then_step), (False, else_step)):
            if step is not None:
                self._set(answer, step)

    @hides_internal_frames
    def then(self, step: Callable[..., Any]) -> If:
        """Set the step that runs if the answer is true."""
        return self._set(answer=True, step=step)

    @hides_internal_frames
    def else_(self, step: Callable[..., Any]) -> If:
        """Set the step that runs if it is not."""
        return self._set(answer=False, step=step)

    def _set(self, answer: bool, step: Any) -> If:  # noqa: FBT001  by name in the two methods above
        if answer in self._steps:
            raise ValueError(f"If has {self._steps[answer]!r} already for the answer {answer}")
        self._steps[answer] = as_step(step)
        return self

    def branches(self, decision: str) -> Iterator[tuple[Step[..., Any], Guard]]:
        """Yield the branches, each with its guard."""
        for answer, step in sorted(self._steps.items(), reverse=True):
            yield step, Guard(BranchPredicate(decision, (True,), wanted=answer, told=str(answer)), wanted=True)


class Switch(ControlFlow):
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

    @hides_internal_frames
    def __init__(
        self,
        selector: Callable[[DecisionContext], object],
        *,
        after: Named | Sequence[Named] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(selector, after, name)
        self._cases: list[tuple[Any, Step[..., Any]]] = []
        self._default: Step[..., Any] | None = None

    @hides_internal_frames
    def case(self, value: Any, step: Callable[..., Any]) -> Switch:
        """Set the step that runs for a value."""
        if any(value == other for other, _ in self._cases):
            raise ValueError(f"Switch has a case {value!r} already")
        self._cases.append((value, as_step(step)))
        return self

    @hides_internal_frames
    def default(self, step: Callable[..., Any]) -> Switch:
        """Set the step that runs for any other value."""
        if self._default is not None:
            raise ValueError(f"Switch has the default {self._default!r} already")
        self._default = as_step(step)
        return self

    def branches(self, decision: str) -> Iterator[tuple[Step[..., Any], Guard]]:
        """Yield the branches, each with its guard."""
        for value, step in self._cases:
            yield step, Guard(BranchPredicate(decision, (value,), wanted=True, told=repr(value)), wanted=True)
        if self._default is not None:
            values = tuple(value for value, _ in self._cases)
            yield (
                self._default,
                Guard(BranchPredicate(decision, values, wanted=False, told="anything else"), wanted=True),
            )
