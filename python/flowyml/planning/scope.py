"""Scope: the named values beside steps, which parameters may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowyml.planning.over import as_items
from flowyml.planning.templates import VALUE
from flowyml.steps.contexts import Context

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from flowyml.planning.namespaces import Namespace


@dataclass(slots=True)
class Scope:
    """The named values beside steps: of `run(inputs=)`, `run(context=)` and the pipeline, in that order.

    Attributes:
        inputs: Of `run(inputs=)`.
        context: Of the contexts, those of `run(context=)` over the pipeline's.
        complete: Whether these are all, so that what is missing is missing.
        overlay: Names of those of `run(context=)`, for those who explain.
    """

    inputs: Mapping[str, Any]
    context: Mapping[str, Any]
    complete: bool
    overlay: Collection[str] = ()
    _listed: dict[int, tuple[Any, Sequence[Any]]] = field(default_factory=dict)
    _inner: dict[Namespace, Scope] = field(default_factory=dict)

    def inside(self, namespace: Namespace | None) -> Scope:
        """Return the values beside the steps of a sub-pipeline, whose own context goes before those around it."""
        if namespace is None:
            return self
        if namespace not in self._inner:
            around = self.inside(namespace.outer).context
            overlay = {name: self.context[name] for name in self.overlay}
            context = Context(**{**around, **namespace.context, **overlay})
            self._inner[namespace] = Scope(self.inputs, context, self.complete, self.overlay)
        return self._inner[namespace]

    def items(self, value: Any) -> Sequence[Any]:
        """Return a value as the items of a map, read once.

        Raises:
            TypeError: If it is no list of items.
        """
        known = self._listed.get(id(value))
        if known is None:
            known = self._listed[id(value)] = (value, as_items(value))
        return known[1]

    def find(self, name: str) -> tuple[int, Any] | None:
        """Return a value source for a parameter, or `None`."""
        for values in (self.inputs, self.context):
            if name in values:
                return VALUE, values[name]
        return None

    def origin(self, name: str) -> str:
        """Say who has a value of that name."""
        where = "run(inputs=)" if name in self.inputs else "run(context=)" if name in self.overlay else "the context"
        return f"{where} has {name!r}"
