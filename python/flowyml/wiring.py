"""Wiring: where each parameter of a step gets its value from.

The rules, first match wins: `params`, an asset (declared, or undeclared by a step's output of that name),
`run(inputs=)`, `run(context=)`, the pipeline's context, the Python default; a parameter called `context` takes the
whole context.

```
Form (what add_step was told) + Signature + Assets ──wire()──▶ Wired: Template (how to call) + references + problems
```

Steps that were added in the same way share one `Form` and so one `Template`: a fan-out of a million is wired once.
The module decides about one step at a time and knows nothing of graphs, runs or workers.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from flowyml._coroutines import blocking
from flowyml._words import listed, nearest
from flowyml.store.values import Gather, Items, Output, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import CodeType

    from flowyml.steps import Inputs, Signature, Step

# Where an argument comes from; the second half of a source says which.
PARAM, ITEM, ASSET, VALUE, SPREAD = range(5)


class Place(NamedTuple):
    """Where a step was added: resolved to file and line only when a message needs it."""

    code: CodeType
    instruction: int

    @property
    def line(self) -> int:
        """The line number."""
        for start, end, line in self.code.co_lines():
            if start <= self.instruction < end and line is not None:
                return line
        return self.code.co_firstlineno

    def __str__(self) -> str:
        """Return "file:line"."""
        return f"{self.code.co_filename}:{self.line}"


@dataclass(slots=True, eq=False)
class Form:
    """What one way of adding a step says; shared by all steps added in that way."""

    step: Step[..., Any]
    keys: tuple[str, ...]
    place: Place
    inputs: Inputs | None = None
    outputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    items: Sequence[Any] | None = None


@dataclass(slots=True, eq=False)
class Template:
    """How the steps of one form call their function.

    Attributes:
        function: What is called.
        sources: `(kind, which)` of each argument in call order; the last `len(keywords)` are passed by keyword.
        keywords: Names of the arguments that are passed by keyword.
        outputs: Declared outputs, if there are two or more.
        direct: The parameters, as given, are the positional arguments: nothing has to be assembled.
        single: The item of a mapped step is the only argument.
    """

    function: Callable[..., Any]
    sources: tuple[tuple[int, Any], ...]
    keywords: tuple[str, ...]
    outputs: tuple[str, ...]
    items: Sequence[Any] | None
    direct: bool = field(init=False)
    single: bool = field(init=False)

    def __post_init__(self) -> None:
        """See which short cut applies."""
        plain = not self.keywords and not self.outputs
        self.direct = plain and all(s == (PARAM, k) for k, s in enumerate(self.sources)) and self.items is None
        self.single = plain and self.sources == ((ITEM, None),)

    def assemble(self, row: tuple[Any, ...], item: Any, references: Sequence[Reference], read: Any) -> list[Any]:
        """Return the arguments in call order; `read` turns a reference into a value."""
        arguments: list[Any] = []
        for kind, which in self.sources:
            if kind == PARAM:
                arguments.append(row[which])
            elif kind == ASSET:
                arguments.append(read(references[which]))
            elif kind == VALUE:
                arguments.append(which)
            elif kind == ITEM:
                arguments.append(item)
            else:
                arguments.extend(read(references[which]))
        return arguments

    def call(self, arguments: Sequence[Any]) -> Any:
        """Call the function with assembled arguments."""
        count = len(self.keywords)
        if not count:
            return self.function(*arguments)
        return self.function(*arguments[:-count], **dict(zip(self.keywords, arguments[-count:], strict=True)))


@dataclass(slots=True)
class Wired:
    """The outcome of wiring one form."""

    template: Template | None
    references: tuple[Reference, ...]
    producers: list[int]
    own_risk: frozenset[int]
    problems: list[str]
    used: set[str]


@dataclass(slots=True)
class Scope:
    """The named values beside steps: of `run(inputs=)`, `run(context=)` and the pipeline, in that order."""

    inputs: Mapping[str, Any]
    context: Mapping[str, Any]
    complete: bool

    def find(self, name: str) -> tuple[int, Any] | None:
        """Return a value source for a parameter, or `None`."""
        for values in (self.inputs, self.context):
            if name in values:
                return VALUE, values[name]
        return None


class Assets:
    """Which step produces which asset.

    A step without declared outputs produces one asset of its own name, so those need no entry of their own.

    Args:
        names: Step names with their numbers, in add order.
        forms: The form of each step.
    """

    def __init__(self, names: Mapping[str, int], forms: Sequence[Form]) -> None:
        """Enter the declared outputs."""
        self.names = names
        self.forms = forms
        self.problems: list[str] = []
        self.firsts: Sequence[int] = range(len(forms))
        self._declared: dict[str, tuple[int, int | None]] = {}
        self._globs: dict[str, list[tuple[int, int | None]]] = {}
        self._plain: dict[int, bool] = {}
        declaring = {id(form) for form in set(forms) if form.outputs}
        if declaring:
            for node in names.values():
                if id(forms[node]) in declaring:
                    self._declare(node)

    def _declare(self, node: int) -> None:
        outputs = self.forms[node].outputs
        for index, asset in enumerate(outputs):
            if asset in self._declared:
                self._clash(asset, self._declared[asset][0], node)
            elif self.names.get(asset, node) != node:
                self._clash(asset, self.names[asset], node)
            else:
                self._declared[asset] = (node, index if len(outputs) > 1 else None)

    def _clash(self, asset: str, first: int, second: int) -> None:
        names = list(self.names)
        if self.forms[first].outputs and asset in self.forms[first].outputs:
            sentence = f"Multiple nodes produce asset {asset!r}"
        elif self.forms[first].outputs:
            sentence = f"asset {asset!r} has the name of another step"
        else:
            sentence = f"Multiple nodes produce asset {asset!r}"
        pair = ", ".join(f"{names[node]!r} ({self.forms[node].place})" for node in (first, second))
        self.problems.append(f"{sentence}: {pair}")

    def find(self, asset: str) -> tuple[int, int | None] | None:
        """Return `(node, output)` of an asset; the output is `None` for a whole return value."""
        found = self._declared.get(asset)
        if found is None and asset in self.names:
            node = self.names[asset]
            found = None if self.forms[node].outputs else (node, None)
        return found

    def match(self, pattern: str) -> list[tuple[int, int | None]]:
        """Return all assets that fit a glob, in add order."""
        if pattern not in self._globs:
            fits = re.compile(fnmatch.translate(pattern)).match
            self._globs[pattern] = [found for asset, found in self._all() if fits(asset)]
        return self._globs[pattern]

    def _all(self) -> Iterator[tuple[str, tuple[int, int | None]]]:
        for name, node in self.names.items():
            outputs = self.forms[node].outputs
            for index, asset in enumerate(outputs or (name,)):
                yield asset, (node, index if len(outputs) > 1 else None)

    def reference(self, found: tuple[int, int | None]) -> Reference:
        """Return the reference to an asset's value."""
        node, output = found
        first, items = self.firsts[node], self.forms[node].items
        if items is not None:
            return Items(first, len(items))
        return first if output is None else Output(first, output)

    def hint(self, asset: str) -> str:
        """Say what could be meant by an asset that does not exist."""
        node = self.names.get(asset)
        if node is not None:
            return f"; {asset!r} is a step, its outputs are {listed(self.forms[node].outputs)}"
        return nearest(asset, [*self._declared, *self.names])


def wire(form: Form, assets: Assets, scope: Scope, without: int | None = None) -> Wired:
    """Decide where each parameter of a form gets its value from.

    Args:
        form: What `add_step` was told.
        assets: Who produces what.
        scope: Values of the run's inputs and the contexts.
        without: A step that must not be read without being named: the step itself.
    """
    return _Wiring(form, assets, scope, without).wire()


def is_glob(name: str) -> bool:
    """Tell whether an input is a pattern rather than a name."""
    return any(sign in name for sign in "*?[")


class _Wiring:
    """The wiring of one form, source by source."""

    def __init__(self, form: Form, assets: Assets, scope: Scope, without: int | None) -> None:
        self.form, self.assets, self.scope, self.without = form, assets, scope, without
        self.signature: Signature = form.step.signature
        self.sources: dict[str, tuple[int, Any]] = {}
        self.spread: list[tuple[int, Any]] = []
        self.references: list[Reference] = []
        self.producers: list[int] = []
        self.own_risk: set[int] = set()
        self.problems: list[str] = []
        self.used: set[str] = set()

    def wire(self) -> Wired:
        self._take_params()
        if self.signature.readable:
            self._take_item()
            self._take_inputs()
            self._take_the_rest()
        else:
            self._take_by_position()
        self._take_after()
        template = None if self.problems else self._template()
        return Wired(
            template, tuple(self.references), self.producers, frozenset(self.own_risk), self.problems, self.used
        )

    # -- the sources, in order of precedence

    def _take_params(self) -> None:
        signature = self.signature
        for index, key in enumerate(self.form.keys):
            if not signature.readable or signature.var_keyword or key in signature.names:
                self.sources[key] = (PARAM, index)
            else:
                hint = signature.near(key) or f"; it takes {listed(signature.names) or 'no parameters'}"
                self.problems.append(f"unknown parameter {key!r} in params{hint}")

    def _take_item(self) -> None:
        if self.form.items is None:
            return
        named = self._named_inputs()
        free = [name for name in self.signature.positional if name not in self.sources and name not in named]
        if free:
            self.sources[free[0]] = (ITEM, None)
        elif self.signature.var_positional:
            self.spread.append((ITEM, None))
        else:
            self.problems.append("no parameter is left for the items of the map")

    def _named_inputs(self) -> set[str]:
        inputs = self.form.inputs
        if inputs is None:
            return set()
        return {inputs} if isinstance(inputs, str) else set(inputs)

    def _take_inputs(self) -> None:
        inputs = self.form.inputs
        if isinstance(inputs, Mapping):
            for parameter, wanted in inputs.items():
                self._take_named(parameter, wanted)
        elif inputs is not None:
            self._place((inputs,) if isinstance(inputs, str) else tuple(inputs))

    def _take_named(self, parameter: str, wanted: Any) -> None:
        signature = self.signature
        if parameter == signature.var_positional:
            for name in (wanted,) if isinstance(wanted, str) else wanted:
                self._take_spread(name)
        elif parameter not in signature.names and not signature.var_keyword:
            self.problems.append(f"unknown parameter {parameter!r} in inputs{signature.near(parameter)}")
        elif parameter in self.sources:
            self.problems.append(f"parameter {parameter!r} stands in params and in inputs")
        else:
            self._fill(parameter, wanted)

    def _place(self, names: tuple[str, ...]) -> None:
        """Names first, then the remaining inputs fill the remaining parameters left to right."""
        remaining = []
        for name in names:
            if name in self.signature.names and name not in self.sources:
                self._fill(name, name)
            else:
                remaining.append(name)
        free = [name for name in self.signature.names if name not in self.sources]
        for parameter, name in zip(free, remaining, strict=False):
            self._fill(parameter, name)
        for name in remaining[len(free) :]:
            self._take_left_over(name)

    def _take_left_over(self, name: str) -> None:
        if self.signature.var_positional:
            self._take_spread(name)
        elif self.signature.var_keyword and not is_glob(name):
            self._fill(name, name)
        else:
            self.problems.append(f"no parameter is left for input {name!r}")

    def _take_spread(self, name: str) -> None:
        source = self._source(name)
        if source is None:
            return
        kind, which = source
        many = kind == ASSET and not isinstance(self.references[which], (int, Output))
        self.spread.append((SPREAD if many else kind, which))

    def _take_the_rest(self) -> None:
        missing = []
        for name in self.signature.names:
            if name in self.sources:
                continue
            source = self._implicit(name) or self._from_scope(name)
            if source is not None:
                self.sources[name] = source
            elif name == "context" and name not in self.signature.defaults:
                self.sources[name] = (VALUE, self.scope.context)
            elif name not in self.signature.defaults:
                missing.append(name)
        if missing and self.scope.complete:
            self._report_missing(missing)

    def _report_missing(self, missing: list[str]) -> None:
        hints = [nearest(name, [*self.scope.inputs, *self.scope.context, *self.assets.names]) for name in missing]
        hint = next((hint for hint in hints if hint), "; give params, inputs, run(inputs=) or a context value")
        self.problems.append(f"Missing required parameters: {missing}{hint}")

    def _implicit(self, name: str) -> tuple[int, Any] | None:
        found = self.assets.find(name)
        if found is None or found[0] == self.without:
            return None
        self.own_risk.add(found[0])
        return self._asset(self.assets.reference(found), [found[0]])

    def _from_scope(self, name: str) -> tuple[int, Any] | None:
        source = self.scope.find(name)
        if source is not None:
            self.used.add(name)
        return source

    def _take_by_position(self) -> None:
        """Without a signature all is passed by position: parameters, then the item, then the inputs."""
        self.spread = [(PARAM, index) for index in range(len(self.form.keys))]
        self.sources = {}
        if self.form.items is not None:
            self.spread.append((ITEM, None))
        inputs = self.form.inputs
        if isinstance(inputs, Mapping):
            self.problems.append("the function does not tell its parameters: give inputs as a list, in order")
        elif inputs is not None:
            for name in (inputs,) if isinstance(inputs, str) else inputs:
                self._take_spread(name)

    def _take_after(self) -> None:
        for name in self.form.after:
            if name in self.assets.names:
                self.producers.append(self.assets.names[name])
            else:
                self.problems.append(f"after={name!r} is no step{nearest(name, self.assets.names)}")

    # -- assets

    def _fill(self, parameter: str, wanted: Any) -> None:
        source = self._source(wanted)
        if source is not None:
            self.sources[parameter] = source

    def _source(self, wanted: Any) -> tuple[int, Any] | None:
        """Return the source of a declared input: an asset, a run input, a glob, or a list of them."""
        if isinstance(wanted, str):
            return self._glob(wanted) if is_glob(wanted) else self._single(wanted)
        found: list[tuple[int, int | None]] = []
        for name in wanted:
            found.extend(self._found(name))
        return self._gather(found)

    def _single(self, asset: str) -> tuple[int, Any] | None:
        found = self.assets.find(asset)
        if found is not None:
            return self._asset(self.assets.reference(found), [found[0]])
        if asset in self.scope.inputs:
            self.used.add(asset)
            return VALUE, self.scope.inputs[asset]
        self.problems.append(f"requires undefined asset {asset!r}{self.assets.hint(asset)}")
        return None

    def _glob(self, pattern: str) -> tuple[int, Any] | None:
        found = self._found(pattern)
        return self._gather(found) if found else None

    def _found(self, name: str) -> list[tuple[int, int | None]]:
        if is_glob(name) and self.assets.find(name) is None:
            found = [each for each in self.assets.match(name) if each[0] != self.without]
            self.own_risk.update(node for node, _ in found)
        else:
            one = self.assets.find(name)
            found = [one] if one is not None else []
        if not found:
            self.problems.append(f"requires undefined asset {name!r}{self.assets.hint(name)}")
        return found

    def _gather(self, found: list[tuple[int, int | None]]) -> tuple[int, Any]:
        references = tuple(self.assets.reference(each) for each in found)
        if len(references) == 1 and isinstance(references[0], Items):
            return self._asset(references[0], [found[0][0]])
        return self._asset(Gather(references), [node for node, _ in found])

    def _asset(self, reference: Reference, producers: Iterable[int]) -> tuple[int, Any]:
        self.references.append(reference)
        self.producers.extend(producers)
        return ASSET, len(self.references) - 1

    # -- the call

    def _template(self) -> Template:
        sources, keywords = self._in_call_order()
        return Template(blocking(self.form.step.func), sources, keywords, self._several_outputs(), self.form.items)

    def _several_outputs(self) -> tuple[str, ...]:
        return self.form.outputs if len(self.form.outputs) > 1 else ()

    def _in_call_order(self) -> tuple[tuple[tuple[int, Any], ...], tuple[str, ...]]:
        """Pass by position as far as it goes, the rest by keyword."""
        signature = self.signature
        by_position: list[tuple[int, Any]] = []
        by_keyword = dict(self.sources)
        for index, name in enumerate(signature.positional):
            if not self._goes_by_position(index):
                break
            default = (VALUE, signature.defaults.get(name))
            by_position.append(by_keyword.pop(name, default))
        return (*by_position, *self.spread, *by_keyword.values()), tuple(by_keyword)

    def _goes_by_position(self, index: int) -> bool:
        """A parameter goes by position if it is filled, or if something after it can go in no other way."""
        signature = self.signature
        later = signature.positional[index + 1 : signature.positional_only]
        forced = bool(self.spread) or any(name in self.sources for name in later)
        return signature.positional[index] in self.sources or forced
