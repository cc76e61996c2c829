"""Decision binding: what decisions, and conditions that ask for `ctx`, see of other steps.

```
If(lambda ctx: ...)         ──▶ the steps in its after=, the context, the run's inputs   ──▶ (VIEW, DecisionInput)
skip_if=lambda ctx: ...     ──▶ the steps that the step waits for, and the same
```

The steps' values are references like those of arguments; a `DecisionInput` says which step each belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.planning.call_template import ASSET, VIEW, DecisionInput
from flowyml.planning.namespaces import NamespaceView, names_of
from flowyml.steps.decision_context import VisibleStep
from flowyml.store.value_store import OptionalRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowyml.planning.name_resolution import NameResolver, Source
    from flowyml.planning.step_spec import StepSpec


class DecisionBinder:
    """What a decision, or a condition that asks for `ctx`, sees of the steps that it waits for.

    Args:
        names: What names stand for; gets the references to the values.
        spec: How the decision, or the step with the condition, was added.
    """

    def __init__(self, names: NameResolver, spec: StepSpec) -> None:
        self._names, self._spec = names, spec

    def bind_decision(self, awaited: Sequence[int]) -> Source:
        """Return the source of a decision's `context`: the steps in its `after=`."""
        names = self._names
        before = self._bind_steps(awaited)
        params = {**names.scope.context, **names.scope.inputs}
        given = self._given(names.assets, params) if isinstance(names.assets, NamespaceView) else ()
        return VIEW, DecisionInput(before, params, given)

    def bind_condition(self) -> Source:
        """Return the source of a condition's `ctx`: the steps that its step waits for anyway."""
        names = self._names
        first = len(names.references)
        before = self._bind_steps(dict.fromkeys(names.producers))
        names.used.update(names.scope.context, names.scope.inputs)  # it may ask for any of them
        return VIEW, DecisionInput(before, {**names.scope.context, **names.scope.inputs}, first=first)

    def _bind_steps(self, nodes: Iterable[int]) -> tuple[VisibleStep, ...]:
        """Read the return values of some steps; decisions that see the same steps share the description of each."""
        root = self._names.root
        known = root.seen.setdefault(self._spec.within, {})
        pairs = []
        for node in nodes:
            pair = known.get(node)
            if pair is None:
                pair = known[node] = self._visible_step(node), OptionalRef(root.whole(node))
            pairs.append(pair)
        self._names.references.extend([reference for _, reference in pairs])
        return tuple([step for step, _ in pairs])

    def _visible_step(self, node: int) -> VisibleStep:
        root, within = self._names.root, self._spec.within
        name, spec = root.name_of(node), root.specs[node]
        mapped = spec.map_input is not None
        if spec.within is None:
            return VisibleStep(name, spec.outputs or (name,), mapped=mapped)
        names = names_of(root, node, within)
        aliases = tuple((other, index) for index, known in enumerate(names) for other in known[1:-1])
        visible_name = name if within is None else name.removeprefix(within.prefix)
        firsts, lasts = tuple(known[0] for known in names), tuple(known[-1] for known in names)
        return VisibleStep(visible_name, firsts, aliases, lasts, mapped)

    def _given(self, view: NamespaceView, params: dict[str, Any]) -> tuple[tuple[str, int], ...]:
        """What the pipeline around gives to the sub-pipeline of a decision is for the decision, too."""
        given = []
        for name in view.handed():
            source = self._names.outside(name, declared=False)
            if source is not None and source[0] == ASSET:
                given.append((name, source[1]))
            elif source is not None:
                params[name] = source[1]
        return tuple(given)
