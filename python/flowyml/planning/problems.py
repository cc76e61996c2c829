"""Problems: all that is wrong with a pipeline, in words.

```
what wirings, checks and the core find ──▶ Problems: the first few sentences of each kind, and counts ──▶ one error
```

Steps that were added in the same way share a sentence. A wrong loop makes a million of them, each about a name of its
own, so of a kind of problem only the first few are put into words; the last of these tells how many there are besides.
It knows nothing of how problems are found.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import MAX_PROBLEMS_SHOWN, and_others
from flowyml.errors import CycleError, PipelineValidationError
from flowyml.planning.binding import MissingParameter
from flowyml.planning.name_resolution import SubPipelineProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from flowyml.planning.namespaces import UnusedInput
    from flowyml.planning.step_spec import StepSpec

# A cycle of more steps than this is told by the first few of them.
_LONG = 20
_SHOWN = 10
_CYCLES = "Pipeline contains cycles!"
# What sentences of one kind differ in: names, numbers, and from the first hint or place on everything.
_NAMES = r"""'[^']*'|"[^"]*"|\d+"""
_REST = r"[;(]"


class Problems:
    """Everything that is wrong with a pipeline, in words.

    Attributes:
        cycles: The steps along each cycle, the first repeated last.
        add_rest: Adds what is a problem only if there are others; called before the report.
    """

    def __init__(self, names: Sequence[str], forms: Sequence[StepSpec], first: Iterable[str]) -> None:
        self.names, self.forms = names, forms
        self.cycles: list[list[str]] = []
        self._sentences: list[str] = []
        self._at: dict[tuple[int, str], int] = {}  # by form and problem: which sentence
        self._others: dict[int, int] = {}  # by sentence: how many more steps it is about
        self._told: dict[str, list[int]] = {}  # by kind: its sentences
        self._more: dict[str, int] = {}  # by kind: how many more there would be
        self._lacking: list[tuple[int, int, tuple[str, ...]]] = []
        self._unneeded: list[UnusedInput] = []
        self.add_rest: Callable[[], None] | None = None
        self.add_sentences(first)

    def __bool__(self) -> bool:
        """Tell whether anything is wrong."""
        return bool(self._sentences)

    def add(self, node: int, problems: list[str]) -> None:
        """Enter a step's problems; steps that were added in the same way share a line."""
        for problem in problems:
            key = (0 if isinstance(problem, SubPipelineProblem) else id(self.forms[node]), problem)
            at = self._at.get(key)
            if at is None:
                at = self._tell(_kind(problem), partial(self._sentence, node, problem))
                if at is None:
                    continue
                self._at[key] = at
            elif key[0]:
                self._others[at] = self._others.get(at, 0) + 1
            if isinstance(problem, MissingParameter):
                self._lacking.append((node, at, problem.names))

    def add_sentences(self, sentences: Iterable[str]) -> None:
        """Enter problems that are in words already."""
        for sentence in sentences:
            self._tell(_kind(sentence), partial(str, sentence))

    def add_more(self, problem: str, count: int) -> bool:
        """Count further problems like one, if no more of its kind are put into words; tell whether that is so."""
        kind = _kind(problem)
        full = len(self._told.get(kind, ())) >= MAX_PROBLEMS_SHOWN
        if full:
            self._more[kind] = self._more.get(kind, 0) + count
        return full

    def _tell(self, kind: str, sentence: Callable[[], str]) -> int | None:
        """Say something, or count it where enough of its kind has been said; return which sentence it is."""
        told = self._told.setdefault(kind, [])
        if len(told) >= MAX_PROBLEMS_SHOWN:
            self._more[kind] = self._more.get(kind, 0) + 1
            return None
        told.append(len(self._sentences))
        self._sentences.append(sentence())
        return told[-1]

    def _sentence(self, node: int, problem: str) -> str:
        if isinstance(problem, SubPipelineProblem):
            return problem
        return f"Node {self.names[node]!r} {_as_clause(problem)} ({self.forms[node].place})"

    def add_unneeded(self, found: Iterable[UnusedInput]) -> None:
        """Enter names that sub-pipelines are given and do not need; what steps lack because of that is not reported."""
        for each in found:
            self.add_sentences([each.sentence])
            self._unneeded.append(each)

    def _excused(self) -> set[int]:
        """Return the sentences about values that steps lack because a sub-pipeline gets them under a wrong name."""
        return {
            at
            for _, steps, meant in self._unneeded
            for node, at, names in self._lacking
            if node in steps and set(names) <= set(meant)
        }

    def add_graph(self, problems: list[tuple[Any, ...]]) -> None:
        """Put the core's findings into words."""
        for kind, *data in problems:
            if kind == "cycle":
                self._add_cycle(data[0])
            elif kind == "self":
                self._add_cycle([data[0], data[0]])
            else:
                self.add_sentences([f"the graph is not valid: {kind} {data}"])

    def _add_cycle(self, path: list[int]) -> None:
        names = [self.names[node] for node in path]
        self.cycles.append(names)
        self._tell(_CYCLES, partial(self._cycle, path, names))

    def _cycle(self, path: list[int], names: list[str]) -> str:
        shown = names if len(names) <= _LONG else [*names[:_SHOWN], f"({len(names) - _SHOWN - 1} more)", names[-1]]
        places = ", ".join(f"{self.names[node]!r} ({self.forms[node].place})" for node in path[:-1][:_SHOWN])
        return f"{_CYCLES} {' → '.join(shown)}: {places}"

    def cycles_of(self, name: str) -> list[str]:
        """Say in which cycles a step is."""
        return [f"is in a cycle: {' → '.join(path)}" for path in self.cycles if name in path]

    def cycle_error(self, pipeline: str) -> CycleError:
        """Return the error that tells the cycles alone."""
        told = self._told_all()
        return CycleError([told[at] for at in self._told[_CYCLES]], pipeline, self.cycles[0])

    def raise_all(self, pipeline: str) -> None:
        """Raise everything in one error, if there is anything."""
        if not self:
            return
        sentences = self.told()
        if len(self._told.get(_CYCLES, ())) == len(sentences):
            raise self.cycle_error(pipeline)
        raise PipelineValidationError(sentences, pipeline)

    def told(self) -> list[str]:
        """Return all sentences, each with the number of steps that it is about beside the one it names."""
        if self and self.add_rest is not None:
            self.add_rest()
            self.add_rest = None
        excused = self._excused()
        return [sentence for at, sentence in enumerate(self._told_all(excused)) if at not in excused]

    def _told_all(self, excused: Collection[int] = ()) -> list[str]:
        others = dict(self._others)
        for kind, more in self._more.items():
            last = next((at for at in reversed(self._told[kind]) if at not in excused), self._told[kind][-1])
            others[last] = others.get(last, 0) + more
        return [f"{sentence}{and_others(others.get(at, 0))}" for at, sentence in enumerate(self._sentences)]


@lru_cache(maxsize=8)  # of many steps that are wrong in one way, one is asked about again and again
def _kind(sentence: str) -> str:
    """Return what sentences have in common that say the same of different names."""
    return re.split(_REST, re.sub(_NAMES, "", sentence), maxsplit=1)[0]


def _as_clause(problem: str) -> str:
    return problem if problem.startswith("requires") else f"is not wired: {problem}"
