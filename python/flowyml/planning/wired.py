"""Wired: the outcome of wiring one form, and how steps that differ only in what they read take it over.

It knows nothing of the rules that led to it (`wiring.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowyml.planning.forms import Assets
from flowyml.planning.namespaces import reached

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from flowyml.planning.namespaces import Names
    from flowyml.planning.templates import Template
    from flowyml.store.values import Reference


class Lacking(str):
    """That a step lacks parameters; it may be that its sub-pipeline is given them under wrong names."""

    __slots__ = ("names",)
    names: tuple[str, ...]

    def __new__(cls, text: str, names: Sequence[str]) -> Self:
        """Keep the names beside the text."""
        self = super().__new__(cls, text)
        self.names = tuple(names)
        return self


@dataclass(slots=True)
class Wired:
    """The outcome of wiring one form.

    Attributes:
        assets: Where its names are looked up.
        template: How the function is called; `None` if something is wrong.
        references: What the arguments that are read from assets refer to.
        producers: The steps to wait for.
        followed: Mapped steps whose items those of this one are made of, if nothing else is read of them.
        own_risk: Steps that this wiring reads without naming them: one that is among them must not read itself.
        slots: The positions of each declared input in `references` and in `producers`, in the order of the inputs.
            Empty if some input is not one value of one step: then steps with other inputs have to be wired themselves.
        borders: The steps of each enclosing sub-pipeline with `after=`: a step waits for that unless it waits for a
            step inside.
        problems: What is wrong.
        undefined: Declared inputs that nothing gives.
        used: Names of run inputs and context values that are taken.
        notes: What is right, and may be meant otherwise.
        defaulted: Parameters that keep their defaults, if the step is in no sub-pipeline.
        lacks: Whether parameters have no value, which is a problem now or may become one.
        waits: Whether it reads anything or waits for anything.
        plain: The numbers of all steps by name, where each name is one step, and its value its only item; else `None`.
        links: The same, for steps that read one other step each and nothing else is to be said of; else `None`.
    """

    assets: Names
    template: Template | None
    references: tuple[Reference, ...]
    producers: Sequence[int]
    followed: list[int]
    own_risk: frozenset[int]
    slots: tuple[tuple[int, int], ...]
    borders: tuple[range, ...]
    problems: list[str]
    undefined: list[str]
    used: set[str]
    notes: list[str]
    lacks: bool
    defaulted: tuple[str, ...]
    waits: bool = field(init=False)
    plain: Mapping[str, int] | None = field(init=False)
    links: Mapping[str, int] | None = field(init=False)

    def __post_init__(self) -> None:
        """See whether it stands alone, and whether others like it are wired by looking up names."""
        self.waits = bool(self.references or self.producers or self.followed)
        self.plain = self.assets.plain if isinstance(self.assets, Assets) else None
        one = len(self.references) == len(self.producers) == len(self.slots) == 1 and self.template is not None
        self.links = self.plain if one and not (self.own_risk or self.followed or self.problems) else None

    @property
    def is_all_followed(self) -> bool:
        """Whether all that the items are made of are items of other steps."""
        over = None if self.template is None else self.template.over
        return over is not None and len(over.parts) == len(self.followed)

    def with_reads(self, reads: tuple[str, ...]) -> tuple[tuple[Reference, ...], Sequence[int]] | None:
        """Return references and producers of a step that has these inputs instead; `None` if it differs in more."""
        assets = self.assets
        if self.template is None or not self.slots:
            return None
        if self.plain is not None:
            return self._looked_up(self.plain, reads)
        references, producers = list(self.references), list(self.producers)
        for position, asset in enumerate(reads):
            found = assets.find(asset) or reached(assets, asset)
            if found is None or assets.forms[found[0]].over is not None:
                return None
            at, producer = self.slots[position]
            if self.borders and self._is_across(found[0], producers[producer]):
                return None
            references[at] = assets.reference(found)
            producers[producer] = found[0]
        return tuple(references), producers

    def _is_across(self, one: int, other: int) -> bool:
        """Return whether a border lies between two steps."""
        return any((one in border) is not (other in border) for border in self.borders)

    def _looked_up(
        self, numbers: Mapping[str, int], reads: tuple[str, ...]
    ) -> tuple[tuple[Reference, ...], Sequence[int]] | None:
        """Do the same where a name is a step."""
        references, producers = list(self.references), list(self.producers)
        for position, asset in enumerate(reads):
            node = numbers.get(asset)
            if node is None:
                return None
            at, producer = self.slots[position]
            references[at] = producers[producer] = node
        return tuple(references), producers
