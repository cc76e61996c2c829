"""How the steps of one run are called in this process: with which arguments, seed and function.

```
item ──▶ its step's template, row, references ──▶ arguments ──▶ the function, or the fallback of a step that failed
```

`StepCaller.caller` builds one function for all items with all its data in local variables, since it is called for each
item. If nothing but the step is to be called, the core calls it directly, with the data of `StepCaller.for_core`. The
module knows neither the scheduler nor how values are stored.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.tracebacks import user_code_boundary
from flowyml.planning.call_template import there
from flowyml.steps.context import by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import TypeAlias

    from flowyml.planning.call_template import CallTemplate
    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.plan import Plan
    from flowyml.runtime.mutation_check import MutationCheck
    from flowyml.store.value_store import ValueStore

    # See `ThreadCallLoop.call`.
    Steps: TypeAlias = tuple[
        list[CallTemplate | None], list[Any], dict[int, Any], dict[int, Any], Callable[[int], Any], bool
    ]


class StepCaller:
    """How the steps of a run are called.

    Args:
        plan: The steps.
        item_index: Which items belong to which step.
        node_of: The step of each item.
        values: The return values.
        tables: For each mapped step its items.
        fallen: Items for which the fallback of their step is called.
        seed: Seeds the random generators of each step; `None`: they are not seeded.
        watch: Reports steps that change their arguments; `None`: arguments are not compared.
    """

    def __init__(
        self,
        plan: Plan,
        item_index: ItemIndex,
        node_of: Sequence[int],
        values: ValueStore,
        *,
        tables: dict[int, Sequence[Any]],
        fallen: Mapping[int, BaseException],
        seed: int | None,
        watch: MutationCheck | None = None,
    ) -> None:
        self._plan, self._item_index, self._node_of, self._values = plan, item_index, node_of, values
        self._tables, self._fallen, self._seed = tables, fallen, seed
        self.watch = watch
        self._fallbacks: dict[int, CallTemplate] = {}

    def caller(self, *, fallbacks: bool) -> Callable[[int], Any]:
        """Build the function that calls an item's step; `fallbacks=False`: no step has one."""
        call = self._plain()
        if fallbacks:
            call = self._falling_back(call)
        call = call if self._seed is None else self._seeding(call)
        return call if self.watch is None else self._watching(call)

    def for_core(self, call: Callable[[int], Any], *, fallbacks: bool) -> Steps:
        """Return the data with which the core calls steps; `call` is the function of `caller`.

        Only `call` is used if something is to be done before each step.
        """
        plan, always = self._plan, fallbacks or self._seed is not None or self.watch is not None
        return plan.templates, plan.rows, plan.references, self._tables, call, always

    def template_of(self, item: int) -> CallTemplate:
        """Return how the step of an item is called: with its function or with its fallback."""
        node = self._node_of[item]
        return self.fallback_of(node) if self.falls_back(item) else self._plan.templates[node]  # type: ignore[return-value]

    def falls_back(self, item: int) -> bool:
        """Return True if the fallback of an item's step is called; not if it has returned a pipeline."""
        return item in self._fallen and not self._plan.is_expanded(self._node_of[item])

    def fallback_of(self, node: int) -> CallTemplate:
        """Return how the fallback of a step is called."""
        from flowyml.steps.fallback import Fallback

        template: Any = self._plan.templates[node]
        if id(template) not in self._fallbacks:
            options: Any = self._plan.specs[node].options
            function = Fallback(options.fallback, self._plan.function_of(node))
            self._fallbacks[id(template)] = replace(template, function=function)
        return self._fallbacks[id(template)]

    def arguments(self, item: int, read: Callable[[Any], Any] | None = None) -> list[Any]:
        """Return the arguments of an item's step in call order; `read` gives the value of a reference."""
        plan, node = self._plan, self._node_of[item]
        template: Any = plan.templates[node]
        value = None if template.map_input is None else self._tables[node][item - self._item_index.firsts[node]]
        return template.assemble(plan.row(node), value, plan.references.get(node, ()), read or self._values.argument)  # type: ignore[no-any-return]

    def seed_of(self, item: int) -> int | None:
        """Return the seed of an item under `run(seed=)`."""
        if self._seed is None:
            return None
        from flowyml.runtime import random_seeds

        return random_seeds.derived(self._seed, self._plan.item_name(*self._item_index.place_of(item)))

    def watched(self, item: int) -> AbstractContextManager[None]:
        """Report in this block if an item's step changes its arguments, under `run(debug=True)`."""
        if self.watch is None:
            return contextlib.nullcontext()
        node, index = self._item_index.place_of(item)
        template = self.template_of(item)
        function = template.function if item in self._fallen else self._plan.function_of(node)
        named = by_name(function, template.keywords, self.arguments(item))
        return self.watch.compare_arguments(self._plan.item_name(node, index), node, named)

    def _plain(self) -> Callable[[int], Any]:
        templates, rows, node_of = self._plan.templates, self._plan.rows, self._node_of
        general, tables, firsts = self._general, self._tables, self._item_index.firsts

        @user_code_boundary
        def call(item: int) -> Any:
            template: Any = templates[item]
            if not template.direct:
                return general(template, item, item)
            return template.function(rows[item]) if template.has_single_param else template.function(*rows[item])

        @user_code_boundary
        def call_mapped(item: int) -> Any:
            node = node_of[item]
            template = templates[node]
            if template.single:  # type: ignore[union-attr]
                return template.function(tables[node][item - firsts[node]])  # type: ignore[union-attr]
            return general(template, node, item)  # type: ignore[arg-type]

        return call if self._item_index.is_plain else call_mapped

    def _falling_back(self, call: Callable[[int], Any]) -> Callable[[int], Any]:
        def called(item: int) -> Any:
            return self._general(self.template_of(item), self._node_of[item], item) if item in fallen else call(item)

        fallen = self._fallen
        return called

    def _watching(self, call: Callable[[int], Any]) -> Callable[[int], Any]:
        def watching(item: int) -> Any:
            with self.watched(item):
                return call(item)

        return watching

    def _seeding(self, call: Callable[[int], Any]) -> Callable[[int], Any]:
        def seeded(item: int) -> Any:
            random_seeds.begin(self.seed_of(item) or 0)
            return call(item)

        from flowyml.runtime import random_seeds

        return seeded

    @user_code_boundary
    def _general(self, template: CallTemplate, node: int, item: int) -> Any:
        value = None
        if template.map_input is not None:
            value = self._tables[node][item - self._item_index.firsts[node]]
            if template.kept:
                return template.function(there(self._values.argument(value)))
        references = self._plan.references.get(node, ())
        arguments = template.assemble(self._plan.row(node), value, references, self._values.argument)
        returned = template.call(arguments)
        return self._plan.split(returned, node)
