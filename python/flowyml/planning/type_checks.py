"""Types across edges: what a step says it returns against what the next one says it takes.

```
Plan ──▶ the arguments of each step, with their hints ──▶ producer's hint or value ──_hints──▶ sentences
```

Loaded for pipelines that ask for it (`Pipeline(validate_types=...)`), no other pays. Three things are compared with the
hint of a parameter: the return hint of the step whose output it reads; the class of a value from `params`, run inputs
or a context; the items of a map. Steps that were added alike share one sentence. What cannot be judged is no finding.
"""

from __future__ import annotations

import logging
import types
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.messages.warned import warn_caller
from flowyml.messages.words import MOST_TOLD, others_like_it
from flowyml.planning.hints import assignable, element_of, fits, hints_of, may_be_items, optional, part_of, told
from flowyml.planning.plan import Plan
from flowyml.planning.templates import ASSET, CHOICE, ITEM, KEPT, PARAM, SPREAD, VALUE
from flowyml.steps.conditions import Guards
from flowyml.steps.control import Decision
from flowyml.steps.tasks import MapTaskResult
from flowyml.store.values import Gather, Items, Output, Present, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from flowyml.planning.forms import Columns, Form
    from flowyml.planning.layout import Layout
    from flowyml.planning.scope import Scope
    from flowyml.planning.templates import Columns as Over
    from flowyml.planning.templates import Template

_log = logging.getLogger("flowyml")


class Typed(NamedTuple):
    """An argument whose parameter has a hint: the hint, and its source as in `Template.sources`."""

    parameter: str
    hint: Any
    kind: int
    which: Any


class Given(NamedTuple):
    """Where an argument's value comes from: a step, which of its outputs, and how many lists there are around it.

    There are -1 where the value is an element of what the step returns.
    """

    node: int
    part: int | None
    lists: int


def checked_plan(
    name: str,
    columns: Columns,
    scope: Scope,
    mode: Literal["warn", "error"] | None,
    *,
    strict: bool,
) -> Plan:
    """Return the plan of a pipeline whose types have been looked at; a finding is a problem or a warning.

    Args:
        name: As for `Plan`, like `columns`, `scope` and `strict`.
        columns: What was added.
        scope: The named values.
        mode: What to do with findings; a plan that is not strict keeps them as problems, or ignores them. Sub-pipelines
            may say something else of their steps.
        strict: Raise what is wrong.

    Raises:
        PipelineValidationError: With everything that is wrong.
    """
    plan = Plan(name, columns, scope, strict=False)
    found = Mismatches(plan, scope, plan.layout, range(len(plan.names)), mode)
    plan.problems.add_sentences(found.told("error"))
    if strict:
        plan.problems.raise_all(name)
        warned = found.told("warn")
        if warned:
            warn_caller(f"types of pipeline {name!r} do not fit:\n" + "\n".join(warned))
    return plan


def types_of_new_steps(
    scope: Scope, mode: Literal["warn", "error"] | None
) -> Callable[[Plan, Layout, range], list[str]]:
    """Return what looks at the steps that come during a run, logs what it is to warn of, and returns what is wrong."""

    def look(plan: Plan, layout: Layout, steps: range) -> list[str]:
        found = Mismatches(plan, scope, layout, steps, mode)
        warned = found.told("warn")
        if warned:  # no warning: who runs in this thread need not be who wrote the pipeline
            _log.warning("types of pipeline %r do not fit:\n%s", plan.name, "\n".join(warned))
        return found.told("error")

    return look


class Mismatches:
    """Where the types of a plan contradict each other.

    Args:
        plan: The plan, valid or not.
        scope: Values of the run's inputs and the contexts, to say where a value comes from.
        layout: Which items each step has.
        steps: The steps to look at.
        mode: What is done with findings, where no sub-pipeline says something else; `None`: they are not looked for.
    """

    def __init__(
        self, plan: Plan, scope: Scope, layout: Layout, steps: range, mode: Literal["warn", "error"] | None
    ) -> None:
        """Look at every argument of the steps."""
        self._plan, self._scope, self._layout, self._mode = plan, scope, layout, mode
        self._hints: dict[int, dict[str, Any]] = {}
        self._fits: dict[Any, bool] = {}
        self._found: dict[Any, list[Any]] = {}  # a sentence each, and how many others are like it
        self._told: dict[Any, list[list[Any]]] = {"error": [], "warn": []}
        arguments: dict[int, list[Typed]] = {}
        for node in steps:
            template = plan.templates[node]
            if template is None or self._mode_of(node) is None:
                continue
            if id(template) not in arguments:
                arguments[id(template)] = list(self._arguments(plan.forms[node], template))
                self._look_at_values(node, template, arguments[id(template)])
            if template.over is not None:
                self._look_at_lists(node, template.over)
            for argument in arguments[id(template)]:
                self._look(node, argument)

    def told(self, mode: Literal["warn", "error"]) -> list[str]:
        """Return one sentence for each mismatch that is to be an error, or a warning; of many the first few."""
        return [f"{sentence}{others_like_it(others)}" for sentence, others in self._told[mode]]

    def _mode_of(self, node: int) -> Literal["warn", "error"] | None:
        within = self._plan.forms[node].within
        while within is not None and within.types is None:
            within = within.outer
        return self._mode if within is None else within.types

    # -- what there is to compare

    def _hints_of(self, form: Form) -> dict[str, Any]:
        func = form.step.func
        if isinstance(func, Decision):
            return {}
        if id(func) not in self._hints:
            self._hints[id(func)] = hints_of(func)
        return self._hints[id(func)]

    def _arguments(self, form: Form, template: Template) -> Iterator[Typed]:
        """Go through the arguments of a call whose parameters have hints."""
        hints, signature = self._hints_of(form), form.step.signature
        if not hints or not signature.readable:
            return
        guards = form.options.guards
        positional = (Guards(guards, signature).signature if guards else signature).positional
        count = len(template.sources) - len(template.keywords)
        for index, (kind, which) in enumerate(template.sources):
            name = positional[index] if index < min(count, len(positional)) else signature.var_positional
            name = template.keywords[index - count] if index >= count else name
            if name in hints and name != "return":
                default = signature.defaults.get(name, hints)
                hint = optional(hints[name]) if default is None else hints[name]
                yield Typed(name, hint, kind, which)

    def _given(self, reference: Any) -> Iterator[Given]:
        """Go through what a reference stands for."""
        if isinstance(reference, (Present, Stream)):
            yield from self._given(reference.reference)
        elif isinstance(reference, Gather):
            for part in reference.references:
                for node, output, lists in self._given(part):
                    yield Given(node, output, lists + 1)
        elif isinstance(reference, Items):
            yield Given(reference.node, None, 1)
        elif isinstance(reference, Output):
            yield Given(self._layout.node_at(reference.item), reference.part, 0)
        elif isinstance(reference, int):
            yield Given(self._layout.node_at(reference), None, 0)

    def _hint(self, given: Given, wrapper: type = list) -> Any:
        """Return what a step says about the value that it gives; what has many items has them in a wrapper."""
        form = self._plan.forms[given.node]
        if form.options.dynamic:  # a pipeline, whose outcome nobody has said anything about
            return Any
        hint = self._hints_of(form).get("return", Any)
        if given.part is not None:
            hint = part_of(hint, given.part, form.parts[given.part], len(form.outputs))
        if given.lists < 0:
            hint = element_of(hint)
        for depth in range(given.lists):
            hint = types.GenericAlias(list if depth else wrapper, (hint,))
        return hint

    # -- comparing

    def _look_at_values(self, node: int, template: Template, arguments: list[Typed]) -> None:
        """Compare the values that all steps of a form share."""
        defaults = self._plan.forms[node].step.signature.defaults
        for argument in arguments:
            if argument.kind == VALUE and argument.which is not defaults.get(argument.parameter, self):
                if not fits(argument.which, argument.hint):
                    self._add_value(node, argument, self._origin(node, argument.parameter), argument.which)
            elif argument.kind == ITEM:
                self._look_at_items(node, template, argument)

    def _look_at_items(self, node: int, template: Template, argument: Typed) -> None:
        """Compare the items of a map, one of each class."""
        part = template.over.parts[argument.which or 0] if template.over else ()
        items = () if isinstance(part, int) or part is None else part
        firsts = {int: 0} if isinstance(items, range) and items else dict(zip(map(type, items), items, strict=True))
        for item in firsts.values():
            if not fits(item, argument.hint):
                self._add_value(node, argument, "items", item)

    def _look_at_lists(self, node: int, over: Over) -> None:
        """See whether what a map runs over is a list."""
        for part in over.parts:
            for given in self._given(self._plan.references[node][part]) if isinstance(part, int) else ():
                if given.lists == 0 and not may_be_items(self._hint(given)):
                    key = id(self._plan.forms[given.node]), given.part, id(self._plan.forms[node])
                    self._add(node, key, partial(self._no_list, node, given))

    def _no_list(self, node: int, given: Given) -> str:
        asset, outputs = self._outputs(given)
        runs = f"step {self._plan.names[node]!r} runs over it, so it must be a list ({self._plan.forms[node].place})"
        return f"Type mismatch on {asset!r}: {outputs} → {runs}"

    def _look(self, node: int, argument: Typed) -> None:
        """Compare what differs from step to step."""
        if argument.kind == PARAM:
            value = self._plan.row(node)[argument.which]
            if not fits(value, argument.hint):
                self._add_value(node, argument, "params", value)
            return
        which = argument.which[0] if argument.kind == CHOICE else argument.which
        template = self._plan.templates[node]
        if argument.kind in {ITEM, KEPT} and template is not None and template.over is not None:
            which = template.over.parts[argument.which or 0]
        if argument.kind not in {ASSET, CHOICE, SPREAD, ITEM, KEPT} or not isinstance(which, int):
            return
        reference = self._plan.references[node][which]
        if isinstance(reference, Stream):
            argument = argument._replace(hint=element_of(argument.hint))
        for given in self._given(reference):
            lists = given.lists - (isinstance(reference, Stream) or argument.kind in {SPREAD, ITEM, KEPT})
            self._look_at_edge(node, argument, given._replace(lists=lists))

    def _look_at_edge(self, node: int, argument: Typed, given: Given) -> None:
        producer, template = id(self._plan.forms[given.node]), id(self._plan.templates[node])
        key = producer, given.part, given.lists, template, argument.parameter
        if key not in self._fits:
            task = given.lists > 0 and self._plan.forms[given.node].step.terms is not None
            wrappers = (list, MapTaskResult) if task else (list,)  # it may be read as either
            self._fits[key] = any(assignable(self._hint(given, each), argument.hint) for each in wrappers)
        if not self._fits[key]:
            self._add_edge(node, argument, given)

    def _origin(self, node: int, name: str) -> str:
        """Say who gives a value; a declared input of another name can only come from the run's inputs."""
        scope = self._scope.inside(self._plan.forms[node].within)
        known = name in scope.inputs or name in scope.context or name == "context"
        return scope.origin(name).removesuffix(f" has {name!r}") if known else "run(inputs=)"

    def _add_value(self, node: int, argument: Typed, origin: str, value: Any) -> None:
        gives = "give" if origin in {"params", "items"} else "gives"
        said = f"Type mismatch on {argument.parameter!r}: {origin} {gives} {told(type(value))}"
        key = id(self._plan.forms[node]), argument.parameter, said
        self._add(node, key, lambda: f"{said} → {self._expects(node, argument)}")

    def _add_edge(self, node: int, argument: Typed, given: Given) -> None:
        forms = self._plan.forms
        key = id(forms[given.node]), given.part, id(forms[node]), argument.parameter
        self._add(node, key, partial(self._edge, node, argument, given))

    def _edge(self, node: int, argument: Typed, given: Given) -> str:
        asset, outputs = self._outputs(given)
        spread = argument.parameter == self._plan.forms[node].step.signature.var_positional
        parameter = f"{'*' * spread}{argument.parameter}"
        expects = self._expects(node, argument, f" as {parameter!r}" * (parameter != asset))
        return f"Type mismatch on {asset!r}: {outputs} → {expects}"

    def _outputs(self, given: Given) -> tuple[str, str]:
        """Return the name of an asset, and in words what its step says that it is."""
        plan, form = self._plan, self._plan.forms[given.node]
        outputs = f"step {plan.names[given.node]!r} outputs {told(self._hint(given))} ({form.place})"
        return plan.assets_of(given.node)[given.part or 0], outputs

    def _expects(self, node: int, argument: Typed, where: str = "") -> str:
        name, place = self._plan.names[node], self._plan.forms[node].place
        return f"step {name!r} expects {told(argument.hint)}{where} ({place})"

    def _add(self, node: int, key: Any, sentence: Callable[[], str]) -> None:
        """Tell of a mismatch, or count it where one like it was told, or enough of them were."""
        found = self._found.get(key)
        if found is None:
            told = self._told[self._mode_of(node)]
            if len(told) < MOST_TOLD:
                self._found[key] = [sentence(), 0]
                told.append(self._found[key])
                return
            found = told[-1]
        found[1] += 1
