"""Batches as frames: which function each step of a batch calls, with which arguments.

```
batch ──▶ groups of steps that call alike ──▶ [function, keywords, outputs, names, index, attempts, flat, calls]
          all groups ──▶ CALLS frame
```

Values of steps before are kept encoded and go on as they are: the driver never unpickles what it only passes on. All
else is pickled here, value by value, so that steps share no object. A large value is written to an arena: for the one
message that needs it, or for the whole run when it is seen a second time. Where there are no arenas it becomes a shared
value then, sent to each worker once.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from flowyml._containers import NamedTuple
from flowyml.errors import FlowymlError, SerializationError, StepNotRunError
from flowyml.executors.process.driver.arena_owner import LARGE
from flowyml.executors.process.driver.batching import items_of, stretches
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
    """What goes to a worker for one batch.

    Attributes:
        groups: The body, without the slot.
        segments: Large values beside it.
        shared: Numbers of the shared values that it refers to.
        refused: Arguments that do not pickle or are not there, by position in the batch.
        stored: Large arguments that lie in an arena for this message alone.
    """

    groups: list[Any]
    segments: list[bytes]
    shared: set[int]
    refused: dict[int, FlowymlError]
    stored: list[ArenaValue]


class CallEncoder:
    """Writes the messages of one run.

    Args:
        run: The run.
        lending: Where large arguments lie.
        initializer: Called in each worker before its first step.

    Raises:
        SerializationError: If a function of the run does not pickle.

    Attributes:
        payload: The functions of the run.
        initializer: Which of them is called first of all, and whether only once; `None` if none is.
        shared: The large values that several steps read, by number.
        further: The functions of steps that came during the run, and how many they are.
    """

    def __init__(self, run: Run, lending: ArenaOwner, initializer: Callable[[], object] | None = None) -> None:
        self._run = run
        self._lending = lending
        self._apart = OutOfBandBuffers(LARGE)
        self._dumper = ValueDumper(self._apart)
        self._plan = run.plan
        self.shared: list[bytes] = []
        self._shared_numbers: dict[int, int] = {}
        self._seen_large: set[int] = set()
        self._stored: dict[int, ArenaValue] = {}
        self._stored_once: WeakValueDictionary[int, ArenaValue] = WeakValueDictionary()
        self._batch: Batch | None = None  # what is being written
        self._has_chains = False
        self._functions: dict[int, int] = {}
        self._checked: dict[int, bytes] = {}  # pickles of large arguments that were made to see whether they pickle
        self._held: list[Any] = []  # what is known by its id must live
        firsts = (first for first, _ in rows_alike(self._plan.templates))
        self.payload = self._collect(firsts, initializer, check=set())
        self.initializer: tuple[int, bool] | None = None
        if initializer is not None:
            self.initializer = self._functions[id(initializer)], goes_by_name(initializer)
        self.function_count = len(self._functions)
        self.further: list[tuple[FunctionPayload, int]] = []
        run.on_plan_change(self._extend)

    @property
    def hashed(self) -> list[int]:
        """The functions whose values take part in keys, so that workers return the contents beside them."""
        nodes = () if self._run.lookup is None else self._run.lookup.read
        return list({self._functions[id(self._plan.function_of(node))] for node in nodes})

    def write(self, batch: Batch, count: int) -> CallMessage:
        """Return the message for the first steps of a batch."""
        message = CallMessage([], [], set(), {}, [])
        self._batch, self._has_chains = batch, batch.heads < len(batch)
        try:
            message.groups.extend(self._group(message, stretch) for stretch in stretches(self._run, batch, count))
        finally:
            self._dumper.close()
        return message

    def _collect(
        self,
        nodes: Iterable[int],
        initializer: Callable[[], object] | None = None,
        *,
        check: set[int] | None = None,
    ) -> FunctionPayload:
        """Number the functions of some steps that have no number yet, and pickle them.

        Args:
            nodes: The steps.
            initializer: What is called in each worker first.
            check: The ids of arguments that are known to pickle, if those of these steps are to be checked.
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
        """Send workers the functions of steps that came during the run, before they get such steps."""
        known = len(self._functions)
        payload = self._collect(nodes)
        if len(self._functions) > known:
            self.further.append((payload, len(self._functions) - known))

    def _callables(self, node: int) -> Iterator[Any]:
        """Go through all that workers may call for a step."""
        yield self._plan.function_of(node)
        if self._plan.specs[node].options.fallback is not None and not self._plan.is_expanded(node):
            yield self._run.calls.fallback_of(node).function

    def _function(self, template: CallTemplate, node: int) -> Any:
        is_fallback = isinstance(template.function, Fallback)
        return template.function if is_fallback else self._plan.function_of(node)

    def _group(self, message: CallMessage, stretch: CallGroup) -> tuple[Any, ...]:
        template = stretch.template
        item_index, calls = wire.SINGLE, self._flat(stretch)
        if type(calls) is range:
            item_index, calls = wire.RANGE, (calls.start, calls.stop, calls.step)
        elif calls is None:
            item_index, calls = wire.LISTS, [self._call(message, stretch, k) for k in range(stretch.length)]
        group = wire.EncodedGroup(
            function=self._functions[id(self._function(template, stretch.node))],
            keywords=template.keywords if item_index == wire.LISTS else (),
            outputs=self._outputs(stretch),
            names=self._names(stretch),
            first_index=stretch.first,
            attempts=self._attempts(stretch),
            item_index=item_index,
            calls=calls,
        )
        return tuple(group)

    def _names(self, stretch: CallGroup) -> str | list[str]:
        """Return the steps' names: as one text where that can be taken apart, which costs next to nothing."""
        if stretch.first is not None:
            return self._plan.names[stretch.node]
        names = _column(self._plan.names, stretch.nodes)
        joined = wire.SEPARATOR.join(names)
        alone = joined.count(wire.SEPARATOR) == stretch.length - 1
        return joined if alone and not stretch.template.several else names

    def _outputs(self, stretch: CallGroup) -> list[tuple[str, ...]] | None:
        """Return the declared outputs of each step, if there are several."""
        if not stretch.template.several:
            return None
        specs = _column(self._plan.specs, stretch.nodes)
        return [spec.outputs if spec.within is None else spec.several for spec in specs]

    def _attempts(self, stretch: CallGroup) -> list[int] | None:
        """Return which attempt of each step this is; `None` where it is the first of all."""
        retries = self._run.retries
        if self._plan.specs[stretch.node].options.retry is None or retries is None or not retries.some_failed:
            return None
        return list(map(retries.current, items_of(self._run, stretch)))

    def _flat(self, stretch: CallGroup) -> Any:
        """Return the only arguments of a stretch in one list, if they are numbers and such: the common fan-out."""
        template, first = stretch.template, stretch.first
        if first is not None and (template.single or template.kept):
            values = self._run.map_inputs[stretch.node][first : first + stretch.length]
            if type(values) is range and not template.kept:
                return values
            values = list(map(self._run.values.argument, values)) if template.kept else list(values)
        elif template.has_single_param and (template.direct or (template.several and template.sources == _ONE_PARAM)):
            values = _column(self._plan.rows, stretch.nodes)
        elif template.sources == _ONE_ASSET and not template.keywords:
            run, batch = self._run, self._batch
            references, raw = self._plan.references, run.values.raw
            return None if batch is None else batch.first_read(stretch.position, stretch.length, references, raw)
        else:
            return None
        return values if wire.ATOMS.issuperset(map(type, values)) else None

    def _call(self, message: CallMessage, stretch: CallGroup, k: int) -> list[Any] | None:
        """Return the encoded arguments of one step, or `None` if one does not pickle."""
        node = stretch.node_at(k)
        try:
            before = self._before(stretch.position + k) if self._has_chains else None
            return self._arguments(message, stretch.template, node, (stretch.first or 0) + k, before)
        except (SerializationError, StepNotRunError) as error:
            message.refused[stretch.position + k] = error
            return None

    def _before(self, position: int) -> int | None:
        """Return the item before a step of the batch, if it is chained to that."""
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
                arguments.append(wire.slim(value, message.segments))
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
                arguments.append(wire.slim(data, message.segments))
            elif kind == SPREAD:
                values = run.values.argument(references[which])
                values = list(encoded_values(values)) if isinstance(values, MapTaskResult) else values
                if values is not MISSING:
                    arguments.extend(wire.slim(values, message.segments))
            else:
                arguments.append(self._encoded(message, which, node))
        return arguments

    def _asset(self, message: CallMessage, reference: Reference, value: Any) -> Any:
        if isinstance(reference, IteratorRef):
            return (wire.slim(list(value), message.segments),)
        if self._run.map_tasks is not None:
            value = _encoded_results(value)
        return wire.slim(value, message.segments)

    def _encoded(self, message: CallMessage, value: Any, node: int) -> Any:
        if type(value) in wire.ATOMS:
            return value
        stored = self._stored.get(id(value))
        if stored is not None:
            return stored.block
        number = self._shared_numbers.get(id(value))
        if number is None:
            apart = self._apart
            apart.take()
            data = self._checked.pop(id(value), None) or self._dumped(value, node)
            if len(data) < LARGE and not apart.buffers:
                return data
            again = id(value) in self._seen_large
            self._seen_large.add(id(value))
            stored = self._store(message, value, PickledValue(data, apart.take()), again=again)
            if stored is not None:
                return stored.block
            data = dump_value(value)
            if not again:
                return wire.slim(data, message.segments)
            number = self._share(value, data)
        message.shared.add(number)
        return (number, True)

    def _dumped(self, value: Any, node: int) -> bytes:
        """Return the pickle of an argument that is not the value of another step.

        Raises:
            SerializationError: If it does not pickle; names the argument.
        """
        try:
            return self._dumper.dump(value, "an argument")
        except SerializationError as error:
            what = f"{self._argument(node, value)} of step {self._plan.names[node]!r}"
            raise SerializationError(what, error.reason, _ADVICE) from error.__cause__

    def _argument(self, node: int, value: Any) -> str:
        """Return the name of an argument in words, found by its value."""
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
        """Return the parameter that an argument goes to; `None` for one of `*args`, and if it is not known."""
        by_position = len(template.sources) - len(template.keywords)
        if position >= by_position:
            return template.keywords[position - by_position]
        positional = self._plan.specs[node].step.signature.positional
        return positional[position] if position < len(positional) else None

    def _check_arguments(self, node: int, checked: set[int]) -> None:
        """Pickle what `params` and contexts give to a step, before anything runs; of steps added alike, to the first.

        Raises:
            SerializationError: If some value does not pickle.
        """
        template, row = self._plan.templates[node], self._plan.row(node)
        for kind, which in () if template is None else template.sources:
            value = row[which] if kind == PARAM else which
            if kind in {PARAM, VALUE} and type(value) not in wire.ATOMS and id(value) not in checked:
                checked.add(id(value))
                try:
                    data = self._dumped(value, node)
                    if len(data) >= LARGE and not self._apart.buffers:  # it takes long; the first step needs it soon
                        self._checked[id(value)] = data
                finally:
                    self._dumper.close()
                    self._apart.take()

    def _store(self, message: CallMessage, value: Any, pickled: PickledValue, *, again: bool) -> ArenaValue | None:
        """Write a large argument to an arena: for a message, or for the run once it is seen again.

        The plan holds the value as long as the run lasts, so its id stays its own.
        """
        stored = self._stored_once.get(id(value)) or self._lending.put(pickled)
        if stored is None:
            return None
        if again:
            self._stored[id(value)] = stored
        else:
            self._stored_once[id(value)] = stored
            message.stored.append(stored)
        return stored

    def _share(self, value: Any, data: bytes) -> int:
        """Have a value sent to each worker once, where there are no arenas."""
        number = self._shared_numbers[id(value)] = len(self.shared)
        self.shared.append(data)
        return number


def _column(values: list[Any], nodes: Sequence[int]) -> list[Any]:
    """Return what some steps have of a column."""
    return values[nodes.start : nodes.stop] if isinstance(nodes, range) else [values[node] for node in nodes]


def _encoded_results(value: Any) -> Any:
    """Encode what map tasks have for a value, also in a list of several; the values in it are encoded already."""
    if type(value) is list:
        return list(map(_encoded_results, value))
    return dump_value(value, "the result of a map task") if isinstance(value, MapTaskResult) else value
