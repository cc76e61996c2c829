"""Encodes batches as messages: which function each step calls, with which arguments.

```
batch ──▶ groups of steps that are called alike ──▶ EncodedGroup each ──▶ CALLS
```

Values of earlier steps are kept pickled and passed on unopened. Other arguments are pickled one by one, so that steps
share no object. A large argument is stored in an arena: for one message, or for the whole run once a second step reads
it. Without arenas it then becomes a shared value, which is sent to each worker once.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from flowyml._containers import NamedTuple
from flowyml.errors import FlowymlError, SerializationError, StepNotRunError
from flowyml.executors.process.driver.arena_owner import MIN_ARENA_BYTES
from flowyml.executors.process.driver.batching import call_groups, items_of
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.function_payload import FunctionPayload, build_payload, goes_by_name
from flowyml.executors.process.protocol.value_pickle import OutOfBandBuffers, ValueDumper, dump_value
from flowyml.planning.call_template import ASSET, CHOICE, ITEM, KEPT, PARAM, SPREAD, VALUE, VIEW, rows_alike, there
from flowyml.steps.fallback import Fallback
from flowyml.steps.map_task import MapTaskResult, encoded_values
from flowyml.store.arenas import PickledValue
from flowyml.store.serialization import decoded
from flowyml.store.value_store import MISSING, IteratorRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flowyml._core import Batch
    from flowyml.executors.process.driver.arena_owner import ArenaOwner
    from flowyml.executors.process.driver.batching import CallGroup
    from flowyml.planning.call_template import CallTemplate
    from flowyml.runtime.run import Run
    from flowyml.store.arenas import ArenaValue
    from flowyml.store.value_store import Reference

_ONE_ASSET = ((ASSET, 0),)
_ADVICE = "create it inside the step, or once in each worker with ParallelExecutor(initializer=...)"
_ONE_PARAM = ((PARAM, 0),)


class CallMessage(NamedTuple):
    """What is sent to a worker for one batch.

    Attributes:
        groups: An encoded `EncodedGroup` each.
        segments: Large values outside the body.
        shared: The ids of the shared values that the groups refer to.
        refused: Errors of arguments that cannot be pickled or do not exist, by position in the batch.
        stored: Large arguments that an arena holds for this message.
    """

    groups: list[Any]
    segments: list[bytes]
    shared: set[int]
    refused: dict[int, FlowymlError]
    stored: list[ArenaValue]


class CallEncoder:
    """Encodes the messages of one run.

    Raises:
        SerializationError: A function of the run cannot be pickled.

    Attributes:
        payload: The functions of the run.
        initializer: The index of the initializer, and whether workers import it; `None` if there is none.
        shared: Large values that several steps read.
        extra_payloads: The functions of steps that were added during the run, and how many they are.
    """

    def __init__(self, run: Run, arenas: ArenaOwner, initializer: Callable[[], object] | None = None) -> None:
        self._run = run
        self._arenas = arenas
        self._out_of_band = OutOfBandBuffers(MIN_ARENA_BYTES)
        self._dumper = ValueDumper(self._out_of_band)
        self._plan = run.plan
        self.shared: list[bytes] = []
        self._shared_numbers: dict[int, int] = {}
        self._seen_large: set[int] = set()
        self._stored: dict[int, ArenaValue] = {}
        self._stored_once: WeakValueDictionary[int, ArenaValue] = WeakValueDictionary()
        self._batch: Batch | None = None  # the one that is being encoded
        self._has_chains = False
        self._functions: dict[int, int] = {}
        self._checked: dict[int, bytes] = {}  # pickles of large arguments, from `_check_arguments`
        self._held: list[Any] = []  # objects that are known by their ids
        firsts = (first for first, _ in rows_alike(self._plan.templates))
        self.payload = self._collect(firsts, initializer, check=set())
        self.initializer: tuple[int, bool] | None = None
        if initializer is not None:
            self.initializer = self._functions[id(initializer)], goes_by_name(initializer)
        self.function_count = len(self._functions)
        self.extra_payloads: list[tuple[FunctionPayload, int]] = []
        run.on_plan_change(self._extend)

    @property
    def hashed(self) -> list[int]:
        """The functions whose results workers hash, for the keys of cached steps."""
        nodes = () if self._run.lookup is None else self._run.lookup.read
        return list({self._functions[id(self._plan.function_of(node))] for node in nodes})

    def write(self, batch: Batch, count: int) -> CallMessage:
        """Return the message for the first `count` steps of a batch."""
        message = CallMessage([], [], set(), {}, [])
        self._batch, self._has_chains = batch, batch.heads < len(batch)
        try:
            message.groups.extend(self._group(message, group) for group in call_groups(self._run, batch, count))
        finally:
            self._dumper.close()
        return message

    def _collect(
        self, nodes: Iterable[int], initializer: Callable[[], object] | None = None, *, check: set[int] | None = None
    ) -> FunctionPayload:
        """Index and pickle the functions of steps that are not indexed yet.

        Args:
            nodes: The steps.
            initializer: Called in each worker first.
            check: If given, arguments are pickled as a check, except those whose ids are in it.
        """
        functions: dict[int, Any] = {} if initializer is None else {id(initializer): initializer}
        owners = ["the workers' initializer"] * len(functions)
        seen: set[int] = set()
        for node in nodes:
            template = self._plan.templates[node]
            if id(template) in seen:
                continue
            seen.add(id(template))
            if check is not None and not self._plan.specs[node].options.given:
                self._check_arguments(node, check)
            for function in self._callables(node):
                if id(function) not in self._functions and id(function) not in functions:
                    functions[id(function)] = function
                    owners.append(f"the function of step {self._plan.names[node]!r}")
        payload = build_payload(list(functions.values()), owners)
        self._functions.update(zip(functions, itertools.count(len(self._functions)), strict=False))
        self._held.extend(functions.values())
        return payload

    def _extend(self, nodes: list[int]) -> None:
        known = len(self._functions)
        payload = self._collect(nodes)
        if len(self._functions) > known:
            self.extra_payloads.append((payload, len(self._functions) - known))

    def _callables(self, node: int) -> Iterator[Any]:
        yield self._plan.function_of(node)
        if self._plan.specs[node].options.fallback is not None and not self._plan.is_expanded(node):
            yield self._run.calls.fallback_of(node).function

    def _function(self, template: CallTemplate, node: int) -> Any:
        is_fallback = isinstance(template.function, Fallback)
        return template.function if is_fallback else self._plan.function_of(node)

    def _group(self, message: CallMessage, group: CallGroup) -> tuple[Any, ...]:
        template = group.template
        layout, calls = wire.SINGLE, self._flat(group)
        if type(calls) is range:
            layout, calls = wire.RANGE, (calls.start, calls.stop, calls.step)
        elif calls is None:
            layout, calls = wire.LISTS, [self._call(message, group, k) for k in range(group.length)]
        encoded = wire.EncodedGroup(
            function=self._functions[id(self._function(template, group.node))],
            keywords=template.keywords if layout == wire.LISTS else (),
            outputs=self._outputs(group),
            names=self._names(group),
            first_index=group.first,
            attempts=self._attempts(group),
            layout=layout,
            calls=calls,
        )
        return tuple(encoded)

    def _names(self, group: CallGroup) -> str | list[str]:
        """Return the names of the steps, as one string if it can be split again: that costs next to nothing."""
        if group.first is not None:
            return self._plan.names[group.node]
        names = _column(self._plan.names, group.nodes)
        joined = wire.SEPARATOR.join(names)
        alone = joined.count(wire.SEPARATOR) == group.length - 1
        return joined if alone and not group.template.several else names

    def _outputs(self, group: CallGroup) -> list[tuple[str, ...]] | None:
        if not group.template.several:
            return None
        specs = _column(self._plan.specs, group.nodes)
        return [spec.outputs if spec.within is None else spec.several for spec in specs]

    def _attempts(self, group: CallGroup) -> list[int] | None:
        retries = self._run.retries
        if self._plan.specs[group.node].options.retry is None or retries is None or not retries.some_failed:
            return None
        return list(map(retries.current, items_of(self._run, group)))

    def _flat(self, group: CallGroup) -> Any:
        """Return the only argument of each step, if all are atoms: the common fan-out."""
        template, first = group.template, group.first
        if first is not None and (template.single or template.kept):
            values = self._run.map_inputs[group.node][first : first + group.length]
            if type(values) is range and not template.kept:
                return values
            values = list(map(self._run.values.argument, values)) if template.kept else list(values)
        elif template.has_single_param and (template.direct or (template.several and template.sources == _ONE_PARAM)):
            values = _column(self._plan.rows, group.nodes)
        elif template.sources == _ONE_ASSET and not template.keywords:
            run, batch = self._run, self._batch
            references, raw = self._plan.references, run.values.raw
            return None if batch is None else batch.first_read(group.position, group.length, references, raw)
        else:
            return None
        return values if wire.ATOMS.issuperset(map(type, values)) else None

    def _call(self, message: CallMessage, group: CallGroup, k: int) -> list[Any] | None:
        node = group.node_at(k)
        try:
            before = self._before(group.position + k) if self._has_chains else None
            return self._arguments(message, group.template, node, (group.first or 0) + k, before)
        except (SerializationError, StepNotRunError) as error:
            message.refused[group.position + k] = error
            return None

    def _before(self, position: int) -> int | None:
        batch = self._batch
        return batch.item(position - 1) if batch is not None and batch.is_chained(position) else None

    def _arguments(
        self, message: CallMessage, template: CallTemplate, node: int, index: int, before: int | None
    ) -> list[Any]:
        run, row = self._run, self._plan.row(node)
        references = self._plan.references.get(node, ())
        item: Any = None if template.map_input is None else run.map_inputs[node][index]
        arguments: list[Any] = []
        for kind, which in template.sources:
            if kind == PARAM:
                arguments.append(self._encoded(message, row[which], node))
            elif kind == ITEM:
                arguments.append(self._encoded(message, item if which is None else item[which], node))
            elif kind == KEPT:
                value = there(run.values.argument(item if which is None else item[which]))
                arguments.append(wire.extract_segments(value, message.segments))
            elif kind == ASSET:
                reference = references[which]
                chained = before is not None and reference == before
                arguments.append(... if chained else self._asset(message, reference, run.values.argument(reference)))
            elif kind == CHOICE:
                value = run.values.argument(reference := references[which[0]])
                given = value is not MISSING
                arguments.append(
                    self._asset(message, reference, value) if given else self._encoded(message, which[1], node)
                )
            elif kind == VIEW:
                seen = which.seen(references, run.values.argument, decoded)
                data = dump_value(seen, f"what step {self._plan.names[node]!r} looks at")
                arguments.append(wire.extract_segments(data, message.segments))
            elif kind == SPREAD:
                values = run.values.argument(references[which])
                values = list(encoded_values(values)) if isinstance(values, MapTaskResult) else values
                if values is not MISSING:
                    arguments.extend(wire.extract_segments(values, message.segments))
            else:
                arguments.append(self._encoded(message, which, node))
        return arguments

    def _asset(self, message: CallMessage, reference: Reference, value: Any) -> Any:
        if isinstance(reference, IteratorRef):
            return (wire.extract_segments(list(value), message.segments),)
        if self._run.map_tasks is not None:
            value = _encoded_results(value)
        return wire.extract_segments(value, message.segments)

    def _encoded(self, message: CallMessage, value: Any, node: int) -> Any:
        if type(value) in wire.ATOMS:
            return value
        stored = self._stored.get(id(value))
        if stored is not None:
            return stored.block
        number = self._shared_numbers.get(id(value))
        if number is None:
            out_of_band = self._out_of_band
            out_of_band.take()
            data = self._checked.pop(id(value), None) or self._dumped(value, node)
            if len(data) < MIN_ARENA_BYTES and not out_of_band.buffers:
                return data
            again = id(value) in self._seen_large
            self._seen_large.add(id(value))
            stored = self._store(message, value, PickledValue(data, out_of_band.take()), again=again)
            if stored is not None:
                return stored.block
            data = dump_value(value)
            if not again:
                return wire.extract_segments(data, message.segments)
            number = self._share(value, data)
        message.shared.add(number)
        return (number, True)

    def _dumped(self, value: Any, node: int) -> bytes:
        """Return the pickle of an argument that is not the value of another step; errors name the argument."""
        try:
            return self._dumper.dump(value, "an argument")
        except SerializationError as error:
            what = f"{self._argument(node, value)} of step {self._plan.names[node]!r}"
            raise SerializationError(what, error.reason, _ADVICE) from error.__cause__

    def _argument(self, node: int, value: Any) -> str:
        template, row = self._plan.templates[node], self._plan.row(node)
        sources: Any = () if template is None else template.sources
        items = [position for position, (kind, _) in enumerate(sources) if kind == ITEM]
        found = items[0] if len(items) == 1 else None
        for position, (kind, which) in enumerate(sources):
            given = row[which] if kind == PARAM else which[1] if kind == CHOICE else which if kind == VALUE else None
            found = position if given is value else found
        name = None if found is None or template is None else self._parameter(node, template, found)
        return "an argument" if name is None else f"argument {name!r}"

    def _parameter(self, node: int, template: CallTemplate, position: int) -> str | None:
        """Return the name of the parameter for an argument; `None` for one of `*args`, or if it is not known."""
        by_position = len(template.sources) - len(template.keywords)
        if position >= by_position:
            return template.keywords[position - by_position]
        positional = self._plan.specs[node].step.signature.positional
        return positional[position] if position < len(positional) else None

    def _check_arguments(self, node: int, checked: set[int]) -> None:
        """Pickle arguments of `params` and contexts before any step runs; of steps added alike, those of the first."""
        template, row = self._plan.templates[node], self._plan.row(node)
        for kind, which in () if template is None else template.sources:
            value = row[which] if kind == PARAM else which
            if kind in {PARAM, VALUE} and type(value) not in wire.ATOMS and id(value) not in checked:
                checked.add(id(value))
                try:
                    data = self._dumped(value, node)
                    is_large = len(data) >= MIN_ARENA_BYTES and not self._out_of_band.buffers
                    if is_large:  # pickling took long, and the first step needs it soon
                        self._checked[id(value)] = data
                finally:
                    self._dumper.close()
                    self._out_of_band.take()

    def _store(self, message: CallMessage, value: Any, pickled: PickledValue, *, again: bool) -> ArenaValue | None:
        """Store a large argument in an arena: for one message, or for the run if it has been seen before.

        The plan keeps the value alive during the run, so its id is not reused.
        """
        stored = self._stored_once.get(id(value)) or self._arenas.put(pickled)
        if stored is None:
            return None
        if again:
            self._stored[id(value)] = stored
        else:
            self._stored_once[id(value)] = stored
            message.stored.append(stored)
        return stored

    def _share(self, value: Any, data: bytes) -> int:
        number = self._shared_numbers[id(value)] = len(self.shared)
        self.shared.append(data)
        return number


def _column(values: list[Any], nodes: Sequence[int]) -> list[Any]:
    return values[nodes.start : nodes.stop] if isinstance(nodes, range) else [values[node] for node in nodes]


def _encoded_results(value: Any) -> Any:
    """Pickle the results of map tasks, also those in a list; the values in them are pickled already."""
    if type(value) is list:
        return list(map(_encoded_results, value))
    return dump_value(value, "the result of a map task") if isinstance(value, MapTaskResult) else value
