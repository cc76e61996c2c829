"""Looking: what a decision, or a condition that asks for `ctx`, may see of the steps that it waits for.

```
If(lambda ctx: ...)         ──▶ the steps in its after=, the context, the run's inputs   ──▶ (VIEW, View)
skip_if=lambda ctx: ...     ──▶ the steps that the step waits for, and the same
```

The values are references like those of arguments; the view says which is whose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.planning.forms import Assets
from flowyml.planning.item_wiring import ItemWiring
from flowyml.planning.namespaces import Inside, names_of
from flowyml.planning.templates import ASSET, VIEW, View
from flowyml.steps.seen import Before
from flowyml.store.values import Present

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What a condition calls its parameter that wants to see more than the step's arguments, as in the pages of 2.x.
SEEN_AS = "ctx"


class Looking(ItemWiring):
    """The part of a wiring that concerns what is seen of other steps."""

    def _take_view(self) -> None:
        """A decision looks at the steps that it waits for, the reason why it names them."""
        before = self._see(self.awaited())
        params = {**self.scope.context, **self.scope.inputs}
        given = self._given_to_view(self.assets, params) if isinstance(self.assets, Inside) else ()
        self.sources["context"] = (VIEW, View(before, params, given))

    def _take_view_of_condition(self) -> None:
        """A condition looks at the steps that its step waits for anyway."""
        first = len(self.references)
        before = self._see(dict.fromkeys(self.producers))
        params = {**self.scope.context, **self.scope.inputs}
        self.used.update(self.scope.context, self.scope.inputs)  # nobody knows which of them it will ask for
        self.sources[SEEN_AS] = (VIEW, View(before, params, first=first))

    def _see(self, nodes: Iterable[int]) -> tuple[Before, ...]:
        """Read the return values of some steps; decisions that see the same steps share the description of each."""
        known = self._whole[0].seen.setdefault(self.form.within, {})
        seen = []
        for node in nodes:
            each = known.get(node)
            if each is None:
                each = known[node] = self._before(node), Present(self._whole[0].whole(node))
            seen.append(each)
        self.references.extend([reference for _, reference in seen])
        return tuple([before for before, _ in seen])

    def awaited(self) -> Sequence[int]:
        """Return the steps in `after=`, without names that are no steps."""
        assets, after = self.assets, self.form.after
        first = assets.number(after[0]) if after else None
        if first is not None and isinstance(assets, Assets) and assets.are_named(first, after):
            return range(first, first + len(after))  # all steps before a decision, as a rule
        return [node for name in after for node in assets.steps(name) or ()]

    def _before(self, node: int) -> Before:
        assets, within = self._whole[0], self.form.within
        name, form = assets.name_of(node), self.assets.forms[node]
        mapped = form.over is not None
        if form.within is None:
            return Before(name, form.outputs or (name,), mapped=mapped)
        named = names_of(assets, node, within)
        also = tuple((other, index) for index, names in enumerate(named) for other in names[1:-1])
        seen_as = name if within is None else name.removeprefix(within.prefix)
        return Before(seen_as, tuple(names[0] for names in named), also, tuple(names[-1] for names in named), mapped)

    def _given_to_view(self, within: Inside, params: dict[str, Any]) -> tuple[tuple[str, int], ...]:
        """What the pipeline around gives to the sub-pipeline of a decision is for the decision, too."""
        given = []
        for name in within.handed():
            source = self._outside(name, declared=False)
            if source is not None and source[0] == ASSET:
                given.append((name, source[1]))
            elif source is not None:
                params[name] = source[1]
        return tuple(given)
