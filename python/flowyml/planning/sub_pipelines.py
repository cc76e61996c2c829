"""Sub-pipelines: a pipeline with what it reads from the one around it and what it exports to that.

```
add_sub_pipeline(child, inputs, outputs, ...) ──▶ SubPipeline: the child's columns, a name, names across the border
                                                  └─▶ Added.include: its steps behind a prefix, one Namespace
```

The module checks the arguments only. Names that exist on neither side are reported when the pipeline is built,
together with all other problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.steps.declarations import checked_after, checked_inputs, checked_names, checked_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, Protocol

    from flowyml.planning.namespaces import Namespace, Wanted
    from flowyml.planning.step_spec import SourceLocation, StepColumns
    from flowyml.steps.context import Context
    from flowyml.steps.declarations import Named

    class HasColumns(Protocol):
        """What of a `Pipeline` becomes part of another."""

        @property
        def name(self) -> str:
            """The name of the pipeline."""

        @property
        def context(self) -> Context:
            """The context of the pipeline."""

        @property
        def _types(self) -> Literal["warn", "error"] | None: ...

        def _inner_columns(self) -> StepColumns: ...


_OWNER = "sub-pipeline"


class SubPipeline:
    """A pipeline that is to become part of another; made by `sub_pipeline`.

    A plain class: it is imported with the package, and a dataclass takes a millisecond to make.

    Attributes:
        pipeline: The pipeline.
        name: What its names stand behind.
        given: By its own name what it takes from the pipeline around it; `None`: whatever it lacks.
        exports: By its own name the name that an asset has in the pipeline around it.
        after: Steps around it that its first steps wait for.
    """

    __slots__ = ("after", "exports", "given", "name", "pipeline")

    def __init__(
        self,
        pipeline: HasColumns,
        name: str,
        given: Mapping[str, Wanted] | None,
        exports: Mapping[str, str],
        after: tuple[str, ...],
    ) -> None:
        self.pipeline, self.name, self.given, self.exports, self.after = pipeline, name, given, exports, after

    def called(self, name: Any) -> SubPipeline:
        """Return it under another name."""
        own = checked_text("the name of a sub-pipeline", name)
        return SubPipeline(self.pipeline, own, self.given, self.exports, self.after)

    def columns(self) -> StepColumns:
        """Return the steps of the pipeline as they are now."""
        return self.pipeline._inner_columns()  # noqa: SLF001  the one who may see them

    def namespace(self, steps: range, place: SourceLocation) -> Namespace:
        """Return the namespace of its steps, once they have ids."""
        from flowyml.planning.namespaces import Namespace

        context, types = self.pipeline.context.to_dict(), self.pipeline._types  # noqa: SLF001
        return Namespace(self.name, steps, None, self.given, self.exports, self.after, context, place, types=types)


@hides_internal_frames
def sub_pipeline(
    pipeline: HasColumns,
    inputs: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    outputs: str | Sequence[str] | Mapping[str, str] | None = None,
    *,
    name: str | None = None,
    input_mapping: Mapping[str, str] | None = None,
    output_mapping: Mapping[str, str] | None = None,
    after: Named | Sequence[Named] | None = None,
) -> SubPipeline:
    """Say how a pipeline is part of another, for `add_step` or `add_steps`; `add_sub_pipeline` does it at once.

    Args:
        pipeline: See `Pipeline.add_sub_pipeline`, like the other arguments.
        inputs: What it takes from the pipeline around it.
        outputs: Those of its assets that are to be had there by their own names.
        name: What its names stand behind.
        input_mapping: By an asset of the pipeline around it, its own name.
        output_mapping: By its own name, the name around it.
        after: Steps around it that its first steps wait for.

    Raises:
        TypeError: For a wrong argument.
        ValueError: For a name twice.

    >>> from flowyml import Pipeline, sub_pipeline
    >>> words = Pipeline("words").add_step(str.upper, "loud", inputs=["word"])
    >>> both = [sub_pipeline(words, {"word": name}, name=f"of_{name}") for name in ("a", "b")]
    >>> dict(Pipeline("both").add_steps(both).run({"a": "yes", "b": "no"}).outputs)
    {'of_a.loud': 'YES', 'of_b.loud': 'NO'}
    """
    if not callable(getattr(pipeline, "add_sub_pipeline", None)) or isinstance(pipeline, type):
        raise TypeError(f"a sub-pipeline must be a Pipeline, got {type(pipeline).__name__} {pipeline!r:.60}")
    name = checked_text("the name of a sub-pipeline", pipeline.name if name is None else name)
    return SubPipeline(
        pipeline,
        name,
        _given(name, inputs, input_mapping),
        _exports(name, outputs, output_mapping),
        checked_after(after, name, _OWNER),
    )


def _given(name: str, inputs: Any, around: Any) -> Mapping[str, Wanted] | None:
    """Return what each of its own names stands for; names of `inputs` are renamed by the mapping, if it has them."""
    if inputs is None and around is None:
        return None
    renamed = _mapping("input_mapping", around, name)
    if isinstance(inputs, Mapping):
        given: dict[str, Wanted] = dict(checked_inputs(inputs, name, _OWNER))
    else:
        names = () if inputs is None else checked_names("inputs", inputs, name, owner=_OWNER)
        given = {renamed.get(each, each): each for each in names}
    for asset, own in renamed.items():
        if given.setdefault(own, asset) != asset:
            raise ValueError(f"sub-pipeline {name!r} gets input {own!r} twice: from {given[own]!r} and {asset!r}")
    return given


def _exports(name: str, outputs: Any, renamed: Any) -> Mapping[str, str]:
    exports = {**_mapping("output_mapping", renamed, name)}
    if isinstance(outputs, Mapping):
        exports.update(_mapping("outputs", outputs, name))
    elif outputs is not None:
        known = set(exports.values())
        names = checked_names("outputs", outputs, name, owner=_OWNER)
        exports.update((asset, asset) for asset in names if asset not in known)
    for own, asset in exports.items():
        if asset.startswith(f"{name}."):
            raise ValueError(f"sub-pipeline {name!r} cannot export {own!r} as {asset!r}, which is among its own names")
    return exports


def _mapping(what: str, mapping: Any, name: str) -> dict[str, str]:
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{what} of sub-pipeline {name!r} must be a mapping of names to names, got {mapping!r:.60}")
    for pair in mapping.items():
        for each in pair:
            if not isinstance(each, str) or not each:
                raise TypeError(f"{what} of sub-pipeline {name!r} must have names on both sides, got {each!r:.60}")
    return dict(mapping)
