"""Problems of a pipeline: what is wrong, as data, and the sentences made of it.

```
binder, checks, core ──Problem(kind, node, data)──▶ Problems: the first few of each kind, and counts ──▶ one error
                                                    └─ describe(problem, names, specs) ──▶ a sentence
```

Steps that were added in the same way share a sentence. A wrong loop makes a million problems, each with a name of its
own, so only the first few problems of each kind become sentences; the last of these says how many more there are. The
module does not know how problems are found.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import MAX_PROBLEMS_SHOWN, and_others
from flowyml.errors import CycleError, PipelineValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowyml.planning.step_spec import StepSpec

_MAX_CYCLE_STEPS = 20  # a longer cycle is shown by its first steps
_SHOWN_CYCLE_STEPS = 10
_SHOWN_PRODUCERS = 3  # of an asset that several steps produce

_STEP = "Node {step!r} "
_NOT_BOUND = "Node {step!r} is not wired: "


class ProblemKind(NamedTuple):
    """A kind of problem.

    Attributes:
        text: The message, with the names of the problem's data in braces.
        subject: What precedes the message in a sentence; empty if the problem is not about one step.
    """

    text: str
    subject: str = ""


# Problems of one step: its arguments, and the steps it waits for.
UNDEFINED_ASSET = ProblemKind("requires undefined asset {asset!r}{hint}", _STEP)
GLOB_WITHOUT_MATCH = ProblemKind("requires undefined asset {asset!r}: the glob matches nothing{hint}", _STEP)
DEFAULT_NEEDED = ProblemKind(
    "requires a default for parameter {parameter!r}, or a list: inputs={{{parameter!r}: [...]}}; "
    'with run_if="any" what it reads may have no value',
    _STEP,
)
MISSING_PARAMETERS = ProblemKind("Missing required parameters: {parameters}{hint}", _NOT_BOUND)
UNKNOWN_PARAMETER = ProblemKind("unknown parameter {parameter!r} in {argument}{hint}", _NOT_BOUND)
GIVEN_TWICE = ProblemKind("parameter {parameter!r} is given by params, and by over", _NOT_BOUND)
NO_PARAMETER_FOR_INPUT = ProblemKind("no parameter is left for input {asset!r}", _NOT_BOUND)
NO_PARAMETER_FOR_ITEMS = ProblemKind("no parameter is left for the items of {source}", _NOT_BOUND)
NO_SIGNATURE = ProblemKind("the function does not tell its parameters: {remedy}", _NOT_BOUND)
NO_ITEMS = ProblemKind("runs over {name!r}, which must be a list of items, and is {found}", _NOT_BOUND)
DIFFERENT_LENGTHS = ProblemKind("cannot zip lists of different lengths: {lengths}", _NOT_BOUND)
TOO_MANY_ITEMS = ProblemKind("is mapped over {count:,} items, more than {limit:,}", _NOT_BOUND)
JOIN_OVER_WHOLE_LIST = ProblemKind(
    'runs over whole lists, which does not go with run_if="any": map item by item', _NOT_BOUND
)
UNKNOWN_STEP = ProblemKind("after={name!r} is no step{hint}", _NOT_BOUND)
SINGLE_USE_VALUE = ProblemKind("{message}", _NOT_BOUND)
RESOURCE_LIMIT = ProblemKind("{message}", _STEP)

# Problems of the whole pipeline, of its sub-pipelines and of edges.
CYCLE = ProblemKind("Pipeline contains cycles! {path}: {places}")
INVALID_GRAPH = ProblemKind("the graph is not valid: {reason} {details}")
SEVERAL_PRODUCERS = ProblemKind(
    "Multiple nodes produce asset {asset!r}: {places}{others}; give one of them another name, or other outputs="
)
ASSET_NAMED_AS_STEP = ProblemKind(
    "asset {asset!r} has the name of another step, whose outputs are {outputs}: {places}{others}; "
    "give one of them another name, or other outputs="
)
STEP_NAMED_AS_SUB_PIPELINE = ProblemKind(
    "step {name!r} ({step_place}) has the name of sub-pipeline {name!r} ({place}); give one of them another name="
)
UNDEFINED_IN_SUB_PIPELINE = ProblemKind(
    "sub-pipeline {name!r} requires undefined asset {asset!r}{given}{hint} ({place})"
)
UNKNOWN_EXPORT = ProblemKind("sub-pipeline {name!r} produces no asset {asset!r} to export{hint} ({place})")
EXPORT_TAKEN = ProblemKind(
    "Multiple nodes produce asset {asset!r}: {places}, sub-pipeline {name!r} exports it ({place}); "
    "export it under another name: outputs={{..., {asset!r}: ...}}"
)
UNUSED_INPUT = ProblemKind("sub-pipeline {name!r} does not need input {asset!r}, {reason}{hint} ({place})")
UNKNOWN_OUTPUT = ProblemKind(
    "dynamic step {name!r} declares output {asset!r}, which the pipeline that it returned does not produce"
    "{hint} ({place})"
)
UNUSED_RUN_INPUT = ProblemKind(
    "run(inputs=) gives {name!r}, which step {step!r} produces ({place}); "
    "run(given={{{name!r}: ...}}) takes the value instead of running the step"
)
RUN_INPUT_AND_GIVEN = ProblemKind("run(inputs=) and run(given=) both give {name!r}; leave it out of inputs")
TYPE_MISMATCH = ProblemKind("Type mismatch on {name!r}: {found} → {expected}")


class Problem:
    """Something that is wrong with a pipeline.

    Args:
        kind: What is wrong.
        node: The step that has the problem; `None` for the steps of one spec, or for the whole pipeline.
        data: The names, steps and values that the message of the kind mentions. Steps are ids, under `nodes`.
    """

    __slots__ = ("data", "kind", "node")

    def __init__(self, kind: ProblemKind, node: int | None = None, /, **data: Any) -> None:
        self.kind, self.node, self.data = kind, node, data

    def __str__(self) -> str:
        """Return the message without the step that has the problem."""
        return self.kind.text.format(**self.data)


def describe(problem: Problem, names: Sequence[str], specs: Sequence[StepSpec]) -> str:
    """Return a problem as a sentence.

    Args:
        problem: The problem.
        names: The names of all steps.
        specs: The specs of all steps.
    """
    kind, node, data = problem.kind, problem.node, problem.data
    if "nodes" in data:
        nodes = data["nodes"]
        if kind is CYCLE:
            data = {"path": _cycle_path([names[each] for each in nodes]), "nodes": nodes[:-1][:_SHOWN_CYCLE_STEPS]}
        else:
            more = len(nodes) - _SHOWN_PRODUCERS
            data = {**data, "nodes": nodes[:_SHOWN_PRODUCERS], "others": f" and {more} more" if more > 0 else ""}
        data["places"] = ", ".join(f"{names[each]!r} ({specs[each].place})" for each in data["nodes"])
    if node is None:
        return kind.text.format(**data)
    return f"{kind.subject.format(step=names[node])}{kind.text.format(**data)} ({specs[node].place})"


def _cycle_path(names: list[str]) -> str:
    if len(names) > _MAX_CYCLE_STEPS:
        names = [*names[:_SHOWN_CYCLE_STEPS], f"({len(names) - _SHOWN_CYCLE_STEPS - 1} more)", names[-1]]
    return " → ".join(names)


class Problems:
    """Everything that is wrong with a pipeline.

    Args:
        names: The names of all steps.
        specs: The specs of all steps.
        problems: Problems that are known already.

    Attributes:
        cycles: The names of the steps along each cycle, the first repeated last.
        add_rest: Adds problems that are reported only if there are others; called before the report.
    """

    def __init__(self, names: Sequence[str], specs: Sequence[StepSpec], problems: Iterable[Problem] = ()) -> None:
        self.names, self.specs = names, specs
        self.cycles: list[list[str]] = []
        self.add_rest: Callable[[], None] | None = None
        self._sentences: list[str] = []
        self._positions: dict[Any, int] = {}  # by key: the position of the sentence
        self._others: dict[int, int] = {}  # by position: how many more steps the sentence is about
        self._by_kind: dict[ProblemKind, list[int]] = {}  # the positions of the sentences of a kind
        self._uncounted: dict[ProblemKind, int] = {}  # how many more there are of a kind
        self._missing: list[tuple[int, int, list[str]]] = []  # step, position, parameters
        self._unused: list[Problem] = []
        for problem in problems:
            self.add(problem)

    def __bool__(self) -> bool:
        """Return True if anything is wrong."""
        return bool(self._sentences)

    def add(self, problem: Problem) -> None:
        """Add a problem that is not about one step."""
        self.count(problem, problem.kind, lambda: problem)

    def add_of_step(self, node: int, problems: Iterable[Problem]) -> None:
        """Add the problems of a step; steps that were added in the same way share a sentence."""
        spec = id(self.specs[node])
        for problem in problems:
            kind = problem.kind
            if not kind.subject:  # found by each step of a sub-pipeline, reported once
                if str(problem) not in self._positions:
                    self.count(str(problem), kind, lambda found=problem: found)  # type: ignore[misc]
                continue
            position = self.count((spec, str(problem)), kind, partial(Problem, kind, node, **problem.data))
            if position is not None and kind is MISSING_PARAMETERS:
                self._missing.append((node, position, problem.data["parameters"]))

    def count(self, key: Any, kind: ProblemKind, make: Callable[[], Problem]) -> int | None:
        """Add a problem, or only count it.

        Args:
            key: What identifies the sentence: a problem whose key is known adds one to the steps of that sentence.
            kind: The kind; if there are enough of it, the problem is pluralize only.
            make: Returns the problem; called only if it becomes a sentence.

        Returns:
            The position of the sentence; `None` if the problem was pluralize without one.
        """
        position = self._positions.get(key)
        if position is not None:
            self._others[position] = self._others.get(position, 0) + 1
            return position
        if self.count_more(kind, 1):
            return None
        self._positions[key] = position = len(self._sentences)
        self._by_kind.setdefault(kind, []).append(position)
        self._sentences.append(describe(make(), self.names, self.specs))
        return position

    def count_more(self, kind: ProblemKind, count: int) -> bool:
        """Count further problems of a kind if no more of them become sentences; return whether that is so."""
        is_full = len(self._by_kind.get(kind, ())) >= MAX_PROBLEMS_SHOWN
        if is_full:
            self._uncounted[kind] = self._uncounted.get(kind, 0) + count
        return is_full

    def add_unused_inputs(self, problems: Iterable[Problem]) -> None:
        """Add inputs of sub-pipelines that no step reads; parameters that are missing because of them are excused."""
        for problem in problems:
            self.add(problem)
            self._unused.append(problem)

    def _excused(self) -> set[int]:
        """Return the positions of missing parameters that a sub-pipeline gets under a wrong name."""
        return {
            position
            for unused in self._unused
            for node, position, parameters in self._missing
            if node in unused.data["steps"] and set(parameters) <= set(unused.data["meant"])
        }

    def add_graph(self, problems: list[tuple[Any, ...]]) -> None:
        """Add what the core found."""
        for kind, *data in problems:
            if kind not in {"cycle", "self"}:
                self.add(Problem(INVALID_GRAPH, reason=kind, details=data))
                continue
            path = data[0] if kind == "cycle" else [data[0], data[0]]
            self.cycles.append([self.names[node] for node in path])
            self.add(Problem(CYCLE, nodes=path))

    def cycles_of(self, name: str) -> list[str]:
        """Return a message for each cycle that a step is in."""
        return [f"is in a cycle: {' → '.join(path)}" for path in self.cycles if name in path]

    def cycle_error(self, pipeline: str) -> CycleError:
        """Return the error about the cycles alone."""
        sentences = self._counted(set())
        return CycleError([sentences[position] for position in self._by_kind[CYCLE]], pipeline, self.cycles[0])

    def raise_all(self, pipeline: str) -> None:
        """Raise all problems in one error, if there are any."""
        if not self:
            return
        sentences = self.sentences()
        if len(self._by_kind.get(CYCLE, ())) == len(sentences):
            raise self.cycle_error(pipeline)
        raise PipelineValidationError(sentences, pipeline)

    def sentences(self) -> list[str]:
        """Return all sentences, each with the number of further steps that it is about."""
        if self and self.add_rest is not None:
            self.add_rest()
            self.add_rest = None
        excused = self._excused()
        return [sentence for position, sentence in enumerate(self._counted(excused)) if position not in excused]

    def _counted(self, excused: set[int]) -> list[str]:
        others = dict(self._others)
        for kind, count in self._uncounted.items():
            positions = self._by_kind[kind]
            last = next((each for each in reversed(positions) if each not in excused), positions[-1])
            others[last] = others.get(last, 0) + count
        return [f"{text}{and_others(others.get(at, 0))}" for at, text in enumerate(self._sentences)]
