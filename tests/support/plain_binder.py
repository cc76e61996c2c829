"""A plain binder: what each step of a pipeline gets, from the rules of wiring as they are documented.

It looks every name up again for every step and shares nothing between steps. Pipelines are described as data (`Spec`),
which `built` turns into a real one and `Bound` into bindings and values, by code that has nothing in common.
"""

from __future__ import annotations

import fnmatch
import inspect
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowyml import Pipeline, dynamic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Add:
    """A step; `over` makes it a mapped one, `alone` adds it by a line of its own."""

    name: str
    func: Callable[..., Any]
    params: dict[str, Any] | None = None
    inputs: Any = None
    outputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    over: str | list[Any] | None = None
    joins: bool = False
    alone: bool = False


@dataclass
class Sub:
    """A sub-pipeline; a dynamic one is what a step of that name returns, so nothing around it sees its steps."""

    name: str
    spec: Spec
    given: dict[str, Any] | None = None
    exports: dict[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    dynamic: bool = False


@dataclass
class Spec:
    """A pipeline."""

    parts: list[Add | Sub]
    context: dict[str, Any] = field(default_factory=dict)


@dataclass
class Case:
    """A pipeline and what a run gives."""

    spec: Spec
    inputs: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)


# ---- the real pipeline -----------------------------------------------------------------------------------------------


def built(spec: Spec, name: str = "drawn") -> Pipeline:
    """Return the real pipeline; all steps but those `alone` are added by one line."""
    pipeline = Pipeline(name, context=dict(spec.context))
    for part in spec.parts:
        if isinstance(part, Sub):
            child = built(part.spec, part.name)
            if part.dynamic:
                pipeline.add_step(dynamic(lambda child=child: child), part.name)
                continue
            pipeline.add_sub_pipeline(child, inputs=part.given, outputs=part.exports or None, after=part.after or None)
        elif part.over is not None:
            source = {"over": part.over} if isinstance(part.over, str) else {"items": part.over}
            options = _options(part)
            pipeline.map(part.func, name=part.name, params=part.params, inputs=part.inputs, **source, **options)
        elif part.outputs and not part.alone and not _options(part):
            outputs = list(part.outputs)
            pipeline.add_step(part.func, part.name, part.params, inputs=part.inputs, outputs=outputs)
        elif part.alone or _options(part):
            add = eval(compile("lambda add, *given, **more: add(*given, **more)", f"<{part.name}>", "eval"))
            outputs = {"outputs": list(part.outputs)} if part.outputs else {}
            add(pipeline.add_step, part.func, part.name, part.params, inputs=part.inputs, **outputs, **_options(part))
        else:
            pipeline.add_step(part.func, name=part.name, params=part.params, inputs=part.inputs)
    return pipeline


def _options(part: Add) -> dict[str, Any]:
    after = {"after": list(part.after)} if part.after else {}
    return {**after, "run_if": "any"} if part.joins else after


# ---- the rules -------------------------------------------------------------------------------------------------------


class Refused(Exception):  # noqa: N818
    """The pipeline is not valid; the part without which it may be."""

    def __init__(self, why: str, part: Add | Sub | None = None) -> None:
        super().__init__(why)
        self.part = part


@dataclass(eq=False)
class Node:
    """A step where it stands."""

    name: str
    add: Add
    space: Space

    @property
    def parameters(self) -> inspect.Signature:
        return inspect.signature(self.add.func)

    def names(self, *kinds: Any) -> list[str]:
        return [each.name for each in self.parameters.parameters.values() if each.kind in kinds]


@dataclass(frozen=True)
class Asset:
    """What a step produces: its value, or one of its outputs."""

    node: Node
    part: int | None


@dataclass(frozen=True)
class Value:
    """A value that no step produces."""

    value: Any


@dataclass(frozen=True)
class Listed:
    """A list of assets."""

    assets: tuple[Asset, ...]


class Item:
    """The item of a mapped step."""


Source = Asset | Value | Listed | Item
PARAMETER = inspect.Parameter
NAMED = (PARAMETER.POSITIONAL_ONLY, PARAMETER.POSITIONAL_OR_KEYWORD, PARAMETER.KEYWORD_ONLY)
POSITIONAL = NAMED[:2]


@dataclass
class Binding:
    """What one step gets."""

    named: dict[str, Source]
    star: list[Source]
    over: Source | None
    after: list[Node]

    def sources(self) -> list[Source]:
        return [*self.named.values(), *self.star, *([] if self.over is None else [self.over])]

    def waits_for(self) -> set[str]:
        assets = [asset for source in self.sources() for asset in assets_of(source)]
        return {asset.node.name for asset in assets} | {node.name for node in self.after}


def assets_of(source: Source) -> tuple[Asset, ...]:
    return source.assets if isinstance(source, Listed) else (source,) if isinstance(source, Asset) else ()


class Space:
    """Where names are looked up: a pipeline, or a sub-pipeline in one."""

    def __init__(self, spec: Spec, outer: Space | None = None, sub: Sub | None = None) -> None:
        self.spec, self.outer, self.sub = spec, outer, sub
        self.prefix = "" if outer is None or sub is None else f"{outer.prefix}{sub.name}."
        self.nodes: list[Node] = []
        self.assets: dict[str, Asset] = {}  # in add order
        self.steps: dict[str, list[Node]] = {}
        self.spaces: list[Space] = []
        self.labels: dict[Asset, str] = {}
        self.asked: set[str] = set()
        for part in spec.parts:
            self._enter(part)

    def _enter(self, part: Add | Sub) -> None:
        if isinstance(part, Sub):
            child = Space(part.spec, self, part)
            self.spaces.append(child)
            if part.dynamic:
                return
            self.nodes += child.nodes
            self.steps[part.name] = child.nodes
            self.labels.update(child.labels)
            for name, nodes in child.steps.items():
                self.steps[f"{part.name}.{name}"] = nodes
            for name, asset in child.assets.items():
                self._produce(f"{part.name}.{name}", asset)
            for name, exported in part.exports.items():
                if name not in child.assets:
                    raise Refused(name, part)
                self._produce(exported, child.assets[name])
                self.labels[child.assets[name]] = self.prefix + exported
            return
        node = Node(self.prefix + part.name, part, self)
        self.nodes.append(node)
        self.steps[part.name] = [node]
        for number, name in enumerate(part.outputs or (part.name,)):
            asset = Asset(node, number if len(part.outputs) > 1 else None)
            self._produce(name, asset)
            self.labels[asset] = self.prefix + name

    def _produce(self, name: str, asset: Asset) -> None:
        if name in self.assets:
            raise Refused(name)
        self.assets[name] = asset

    @property
    def is_dynamic(self) -> bool:
        return self.sub is not None and self.sub.dynamic

    def fitting(self, pattern: str) -> list[Asset]:
        """Return the assets that fit a glob, each once, in add order."""
        found = {asset for name, asset in self.assets.items() if fnmatch.fnmatchcase(name, pattern)}
        order = {id(node): number for number, node in enumerate(self.nodes)}
        return sorted(found, key=lambda asset: (order[id(asset.node)], asset.part or 0))

    def has(self, name: str, besides: list[Node], *, declared: bool) -> bool:
        """Return whether this pipeline, or one around it, produces a name or something that fits it."""
        asset = self.assets.get(name)
        if asset is not None and asset.node not in besides:
            return True
        if is_glob(name) and any(each.node not in besides for each in self.fitting(name)):
            return True
        return self.wanted(name, declared=declared) is not None

    def wanted(self, name: str, *, declared: bool) -> Any:
        """Return what the pipeline around is to give for a name; `None` if it is not asked."""
        if self.outer is None or self.sub is None:
            return None
        if self.sub.given is not None:
            self.asked.add(name)
            return self.sub.given.get(name)
        if not declared and name in self.spec.context:
            return None
        return name if self.outer.has(name, self.nodes, declared=declared) else None


def is_glob(name: str) -> bool:
    return any(letter in name for letter in "*?[")


class Bound:
    """All steps of a case, bound.

    Raises:
        Refused: If it is not valid.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.whole = Space(case.spec)
        come = [node for space in self.whole.spaces if space.is_dynamic for node in space.nodes]
        self.nodes = {node.name: node for node in [*self.whole.nodes, *come]}
        self.coming = {node.name for node in come}
        if len(self.nodes) < len(self.whole.nodes) + len(come):
            raise Refused("names")
        for name in self.whole.assets:
            if name in self.nodes and self.whole.assets[name].node is not self.nodes[name]:
                raise Refused(name)
        self.bindings: dict[str, Binding] = {}
        for name, node in self.nodes.items():
            try:
                self.bindings[name] = self._binding(node)
            except Refused as refused:
                raise Refused(str(refused), node.add) from None
        self._check_cycles()
        self._check_given(self.whole)

    # -- one step

    def _binding(self, node: Node) -> Binding:
        add, space = node.add, node.space
        params, inputs = add.params or {}, add.inputs
        names, star = node.names(*NAMED), (node.names(PARAMETER.VAR_POSITIONAL) or [None])[0]
        takes_any = bool(node.names(PARAMETER.VAR_KEYWORD))
        bound: dict[str, Source] = {name: Value(value) for name, value in params.items()}
        if not takes_any and not set(params) <= set(names):
            raise Refused("params")
        rest: list[Source] = []
        over = self._over(node, bound, rest) if add.over is not None else None
        if isinstance(inputs, dict):
            for parameter, wanted in inputs.items():
                if parameter == star:
                    rest += [self._declared(node, space, each) for each in listed(wanted)]
                elif parameter not in names and not takes_any:
                    raise Refused("inputs")
                elif parameter not in bound:
                    bound[parameter] = self._declared(node, space, wanted)
        elif inputs is not None:
            self._place(node, listed(inputs), bound, rest)
        for name in names:
            if name not in bound and (found := self._undeclared(node, space, name)) is not None:
                bound[name] = found
        self._check_join(node, bound)
        after = [each for name in add.after for each in self._steps(space, name)]
        return Binding(bound, rest, over, after + self._waits_around(node, bound, rest, over, after))

    def _over(self, node: Node, bound: dict[str, Source], rest: list[Source]) -> Source:
        over, inputs = node.add.over, node.add.inputs
        named = set() if inputs is None else set(listed(inputs)) if not isinstance(inputs, dict) else set(inputs)
        free = [name for name in node.names(*NAMED) if name not in bound and name not in named]
        source = self._list_of(node, over) if isinstance(over, str) else Value(over)
        text = isinstance(source, Value) and isinstance(source.value, str)
        if text or (isinstance(source, Asset) and source.node.add.over is None):
            raise Refused("no list")  # functions here return text
        if over in free and isinstance(over, str):
            bound[over] = Item()
        elif free and (free[0] in node.names(*POSITIONAL) or not node.names(PARAMETER.VAR_POSITIONAL)):
            bound[free[0]] = Item()
        elif node.names(PARAMETER.VAR_POSITIONAL):
            rest.append(Item())
        else:
            raise Refused("items")
        return source

    def _list_of(self, node: Node, name: str) -> Source:
        """A list may come from a context, too, and that of a sub-pipeline goes before what is around it."""
        space = node.space
        if name in self._context(space) and not is_glob(name) and name not in space.assets:
            return self._parameter(None, space, name) or Value("")
        return self._declared(node, space, name)

    def _place(self, node: Node, inputs: list[str], bound: dict[str, Source], rest: list[Source]) -> None:
        """Names first, then the remaining inputs fill the remaining parameters, then `*args`, then `**kwargs`."""
        names = node.names(*NAMED)
        left = []
        for name in inputs:
            if name not in names:
                left.append(name)
            elif name not in bound:
                bound[name] = self._declared(node, node.space, name)
        free = [name for name in names if name not in bound]
        for parameter, name in zip(free, left, strict=False):
            bound[parameter] = self._declared(node, node.space, name)
        for name in left[len(free) :]:
            if node.names(PARAMETER.VAR_POSITIONAL):
                rest.append(self._declared(node, node.space, name))
            elif node.names(PARAMETER.VAR_KEYWORD) and not is_glob(name):
                bound[name] = self._declared(node, node.space, name)
            else:
                raise Refused("left over")

    def _undeclared(self, node: Node, space: Space, name: str) -> Source | None:
        found = self._parameter(node, space, name)
        if found is not None:
            return found
        if node.parameters.parameters[name].default is not PARAMETER.empty:
            return None
        if name == "context":
            return Value(self._context(space))
        raise Refused(f"missing {name}")

    def _check_join(self, node: Node, bound: dict[str, Source]) -> None:
        for name, source in bound.items():
            single = node.add.joins and isinstance(source, Asset)
            known = node.parameters.parameters.get(name)
            if single and (known is None or known.default is PARAMETER.empty):
                raise Refused("a join needs a default")

    # -- names

    def _parameter(self, node: Node | None, space: Space, name: str) -> Source | None:
        """Find what has a parameter's name: an asset of another step, one around, a value of the run, of a context."""
        asset = space.assets.get(name)
        if asset is not None and asset.node is not node:
            return asset
        wanted = space.wanted(name, declared=False)
        if wanted is not None:
            return self._handed(space, wanted)
        return self._value(space, name)

    def _value(self, space: Space, name: str) -> Value | None:
        for values in (self.case.inputs, self._context(space)):
            if name in values:
                return Value(values[name])
        return None

    def _context(self, space: Space) -> dict[str, Any]:
        around = {} if space.outer is None else self._context(space.outer)
        return {**around, **space.spec.context, **self.case.context}

    def _handed(self, space: Space, wanted: Any) -> Source:
        """What is given to a sub-pipeline is looked up around it like a parameter; a list or glob like an input."""
        assert space.outer is not None
        if isinstance(wanted, str) and not (is_glob(wanted) and wanted not in space.outer.assets):
            found = self._parameter(None, space.outer, wanted)
            if found is None:
                raise Refused(wanted)
            return found
        return Listed(tuple(self._assets(None, space.outer, wanted, space.nodes)))

    def _declared(self, node: Node, space: Space, wanted: Any) -> Source:
        if isinstance(wanted, str) and not self._is_pattern(space, wanted):
            if wanted in space.assets:
                return space.assets[wanted]
            around = space.wanted(wanted, declared=True)
            if around is not None:
                return self._handed(space, around)
            if wanted in self.case.inputs:
                return Value(self.case.inputs[wanted])
            raise Refused(wanted)
        names = listed(wanted)
        if names and all(self._is_run_input(space, name) for name in names):
            return Value([self.case.inputs[name] for name in names])
        return Listed(tuple(self._assets(node, space, wanted, [])))

    def _is_run_input(self, space: Space, name: str) -> bool:
        own = name in self.case.inputs and name not in space.assets
        return own and space.wanted(name, declared=True) is None

    def _is_pattern(self, space: Space, name: str) -> bool:
        return is_glob(name) and name not in space.assets and name not in self.case.inputs

    def _assets(self, node: Node | None, space: Space, wanted: Any, besides: list[Node]) -> list[Asset]:
        """Return the assets of names and globs in order; one that reads a glob is not among what fits it."""
        found: list[Asset] = []
        for name in listed(wanted):
            if self._is_pattern(space, name):
                own = [each for each in space.fitting(name) if each.node is not node and each.node not in besides]
            else:
                own = [space.assets[name]] if name in space.assets else []
            if not own:
                around = space.wanted(name, declared=True)
                if around is None or space.outer is None:
                    raise Refused(name)
                own = self._assets(None, space.outer, around, space.nodes)
            found += own
        return found

    def _steps(self, space: Space, name: str) -> list[Node]:
        if name not in space.steps:
            raise Refused(name)
        return space.steps[name]

    def _waits_around(
        self, node: Node, bound: dict[str, Source], rest: list[Source], over: Source | None, after: list[Node]
    ) -> list[Node]:
        """A sub-pipeline with `after=` waits with those of its steps that wait for nothing inside it."""
        more: list[Node] = []
        space = node.space
        while space.outer is not None and space.sub is not None:
            read = Binding(bound, rest, over, [*after, *more]).waits_for()
            if space.sub.after and not any(each.name in read for each in space.nodes):
                more += [each for name in space.sub.after for each in self._steps(space.outer, name)]
            space = space.outer
        return more

    # -- all steps

    def _check_cycles(self) -> None:
        done: dict[str, bool] = {}

        def visit(name: str) -> None:
            if done.get(name) is False:
                raise Refused("cycle", self.nodes[name].add)
            if name not in done:
                done[name] = False
                for other in sorted(self.bindings[name].waits_for()):
                    visit(other)
                done[name] = True

        for name in self.nodes:
            visit(name)

    def _check_given(self, space: Space) -> None:
        """What a sub-pipeline is given, one of its steps has to ask for."""
        for each in space.spaces:
            self._check_given(each)
            if each.sub is not None and each.sub.given is not None and not set(each.sub.given) <= each.asked:
                raise Refused("not needed", each.sub)

    # -- values

    def values(self) -> dict[str, Any]:
        """Return the value of each step."""
        known: dict[str, Any] = {}

        def value(name: str) -> Any:
            if name not in known:
                known[name] = self._called(self.nodes[name], value)
            return known[name]

        return {name: value(name) for name in self.nodes}

    def _called(self, node: Node, value: Callable[[str], Any]) -> Any:
        binding = self.bindings[node.name]

        def read(source: Source, item: Any) -> Any:
            if isinstance(source, Item):
                return item
            if isinstance(source, Value):
                return source.value
            if isinstance(source, Listed):
                return [read(each, item) for each in source.assets]
            whole = value(source.node.name)
            return whole if source.part is None else whole[source.part]

        if binding.over is None:
            return called(node, binding, lambda source: read(source, None))
        return [
            called(node, binding, lambda source, item=item: read(source, item)) for item in read(binding.over, None)
        ]  # type: ignore[misc]

    def explained(self, name: str) -> dict[str, tuple[str, ...]]:
        """Return the assets that each parameter of a step gets, those of `*args` under a star."""
        binding = self.bindings[name]
        label = self.whole.labels
        named = {
            parameter: tuple(label[asset] for asset in assets_of(binding.over if isinstance(source, Item) else source))  # type: ignore[arg-type]
            for parameter, source in binding.named.items()
        }
        items = (binding.over if isinstance(source, Item) else source for source in binding.star)
        star = [label[asset] for source in items for asset in assets_of(source)]  # type: ignore[arg-type]
        return {**{name: assets for name, assets in named.items() if assets}, **({"*": tuple(star)} if star else {})}


def called(node: Node, binding: Binding, read: Callable[[Source], Any]) -> Any:
    named = {name: read(source) for name, source in binding.named.items()}
    parameters = node.parameters.parameters
    positional = [named.pop(name, parameters[name].default) for name in node.names(*POSITIONAL)]
    return node.add.func(*positional, *spread(binding, read), **named)


def spread(binding: Binding, read: Callable[[Source], Any]) -> Iterator[Any]:
    """A list or the list of a mapped step in `*args` is one argument for each value."""
    for source in binding.star:
        many = isinstance(source, Listed) or (isinstance(source, Asset) and source.node.add.over is not None)
        yield from read(source) if many else [read(source)]


def listed(wanted: Any) -> list[str]:
    return [wanted] if isinstance(wanted, str) else list(wanted)


# ---- functions that return their own arguments -----------------------------------------------------------------------


def mark(name: str, *arguments: Any) -> str:
    """Return the arguments as text, of long ones a checksum."""
    text = f"{name}{arguments}"
    return text if len(text) < 80 else f"{name}#{zlib.crc32(text.encode())}"


def none() -> str:
    return mark("none")


def one(a: Any) -> str:
    return mark("one", a)


def two(a: Any, b: Any) -> str:
    return mark("two", a, b)


def optional(a: Any = "default a", b: Any = "default b") -> str:
    return mark("optional", a, b)


def three(a: Any, b: Any = "default b", *, c: Any = "default c") -> str:
    return mark("three", a, b, c)


def starred(a: Any, *rest: Any) -> str:
    return mark("starred", a, *rest)


def only_starred(*rest: Any, c: Any = "default c") -> str:
    return mark("only_starred", *rest, c)


def keywords(a: Any = "default a", **more: Any) -> str:
    return mark("keywords", a, sorted(more.items()))


def positional_only(a: Any, b: Any = "default b", /, c: Any = "default c") -> str:
    return mark("positional_only", a, b, c)


def with_context(a: Any, context: Any) -> str:
    return mark("with_context", a, sorted(context.items()) if hasattr(context, "items") else context)


def pair(a: Any = "default a", b: Any = "default b") -> tuple[str, str]:
    return mark("left", a, b), mark("right", a, b)


FUNCTIONS = [one, two, optional, three, starred, only_starred, keywords, positional_only, with_context]
