"""What a DAG shows by name: mappings over a plan that make what they hold when somebody asks for it.

A plan that is not valid has edges, too, but no graph of the core: `links_of` gives either. It knows no pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flowyml.messages.frames import hides_internal_frames
from flowyml.messages.words import counted, listed, nearest

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from typing import Protocol

    from flowyml.planning.connections import Edges
    from flowyml.planning.plan import Plan

    class Links(Protocol):
        """Who waits for whom, by number."""

        def dependencies(self, node: int, /) -> list[int]: ...
        def dependents(self, node: int, /) -> list[int]: ...


T = TypeVar("T")


def links_of(plan: Plan) -> Links:
    """Return who waits for whom in a plan, valid or not."""
    return plan.graph if plan.loose is None else _Loose(plan.loose)


class _Loose:
    """The edges of a graph that is not valid."""

    def __init__(self, edges: Edges) -> None:
        self._before: dict[int, dict[int, None]] = {}
        self._after: dict[int, dict[int, None]] = {}
        for node, before in zip(edges.dependents, edges.dependencies, strict=True):
            self._before.setdefault(node, {})[before] = None
            self._after.setdefault(before, {})[node] = None

    def dependencies(self, node: int) -> list[int]:
        return list(self._before.get(node, ()))

    def dependents(self, node: int) -> list[int]:
        return list(self._after.get(node, ()))


class View(Mapping[str, T], Generic[T]):
    """What is made of a name when it is asked for."""

    __slots__ = ("_make", "_plan")

    def __init__(self, plan: Plan, make: Callable[[Any], T]) -> None:
        self._plan = plan
        self._make = make

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'name')}: {listed(self)}>"


class ByStep(View[T]):
    """Something of each step, by name."""

    __slots__ = ()

    @hides_internal_frames
    def __getitem__(self, name: str) -> T:
        return self._make(number_of(self._plan, name))

    def __contains__(self, name: object) -> bool:
        return name in self._plan.numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.names)

    def __len__(self) -> int:
        return len(self._plan.names)


class Producers(Mapping[str, str]):
    """The step of each asset."""

    __slots__ = ("_plan",)

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @hides_internal_frames
    def __getitem__(self, asset: str) -> str:
        found = self._plan.assets.find(asset)
        if found is None:
            raise KeyError(f"no step produces {asset!r}{nearest(str(asset), self)}")
        return self._plan.names[found[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._plan.all_assets()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<producers of {counted(len(self), 'asset')}>"


class Consumers(View["AbstractSet[str]"]):
    """Those that read each asset."""

    __slots__ = ()

    @hides_internal_frames
    def __getitem__(self, asset: str) -> AbstractSet[str]:
        if asset not in self:
            raise KeyError(f"no step produces or reads {asset!r}{nearest(str(asset), self)}")
        return self._make(asset)

    def __contains__(self, asset: object) -> bool:
        return isinstance(asset, str) and (self._plan.assets.find(asset) is not None or asset in self._plan.undefined)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._plan.all_assets(), *self._plan.undefined]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def number_of(plan: Plan, name: object) -> int:
    """Return the number of a step.

    Raises:
        KeyError: If there is none of that name, with near matches.
    """
    node = plan.numbers.get(name) if isinstance(name, str) else None
    if node is None:
        raise KeyError(f"no step {name!r} in pipeline {plan.name!r}{nearest(str(name), plan.names)}")
    return node
