"""Pipeline: where steps are added and a run begins.

```
Authoring ◀── Planning ◀── Runnable ◀── Pipeline
 add_step      build        run          Pipeline(...)
 map ...       dag ...      rerun ...    from_steps
```

A pipeline is written, planned and run, and each class knows the ones to its left: `authoring/builder.py` keeps what it
was told in columns, `authoring/preparation.py` makes plans and runs of them, `_runnable.py` executes the runs, and this
module is the door that users come in by.
"""

from __future__ import annotations

import sys
import warnings
from types import FunctionType
from typing import TYPE_CHECKING, Any

from flowyml.authoring.builder import PipelineBuilder
from flowyml.authoring.preparation import Preparation
from flowyml.authoring.validation import (
    as_context,
    checked_cache_store,
    checked_executor,
    checked_journals,
    checked_mode,
)
from flowyml.diagnostics.text import pluralize
from flowyml.diagnostics.tracebacks import hides_internal_frames, warn_out_of_scope
from flowyml.launch import Launcher
from flowyml.planning.step_spec import SourceLocation
from flowyml.planning.sub_pipelines import SubPipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike
    from typing import Literal, Self

    from flowyml.executors.executor import Executor
    from flowyml.steps.context import Context
    from flowyml.steps.control_flow import ControlFlow, If, Switch
    from flowyml.steps.step import Step
    from flowyml.store.cache_store import CacheStore

_PIPELINE_KEYWORDS = (
    *("name", "context", "executor", "validate_types", "auto_discover"),
    *("enable_cache", "cache_dir", "enable_checkpointing", "checkpoint_dir", "durability"),
)


class Pipeline(Launcher):
    """A graph of steps: add them in any order, then run.

    Args:
        name: Name of the pipeline, for messages and results.
        context: Named values that any step may take by parameter name.
        executor: Where it runs by default; a `LocalExecutor` if none is given here or to `run`.
        validate_types: Compare type hints before anything runs: what a step returns with what the next one takes,
            values with parameters. `True` or "error": what does not fit is a `PipelineValidationError`; "warn": one
            `UserWarning`. Off by default.
        auto_discover: If no step is added, take all that `@step` has made for this pipeline (`@step(pipeline=name)`) or
            for any, in the order in which they were defined.
        enable_cache: Whether steps with `cache=` are cached; `False` turns them all off.
        cache_dir: Where their values are: a folder, or a `CacheStore`; ".flowyml/cache" in the working directory by
            default, made when the first value is stored.
        enable_checkpointing: Keep a journal of each run, so that one that was killed or has failed is continued by the
            next `run()`: what is finished is not run again. Off by default.
        checkpoint_dir: Where journals are; ".flowyml/checkpoints" in the working directory by default.
        durability: "batch": what is finished survives the process after 20 ms on worker processes, after 50 ms at the
            latest in this process, and a power cut 50 ms later. "always": each batch waits for the disk.

    Raises:
        TypeError: For a wrong argument. Keywords of the 2.2.1 documentation that are out of scope (`stack`, `project`,
            ...) are accepted with one `UserWarning`.
        ImportError: For `validate_types=` if beartype is not installed (the extra `types`).

    >>> from flowyml import Pipeline, step
    >>> @step
    ... def square(x):
    ...     return x * x
    >>> pipeline = Pipeline("squares")
    >>> for i in range(3):
    ...     pipeline = pipeline.add_step(square, name=f"square_{i}", params={"x": i})
    >>> dict(pipeline.run().outputs)
    {'square_0': 0, 'square_1': 1, 'square_2': 4}
    """

    @hides_internal_frames
    def __init__(
        self,
        name: str,
        context: Context | Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        *,
        validate_types: bool | Literal["warn", "error"] | None = None,
        auto_discover: bool = False,
        enable_cache: bool = True,
        cache_dir: str | PathLike[str] | CacheStore | None = None,
        enable_checkpointing: bool = False,
        checkpoint_dir: str | PathLike[str] | None = None,
        durability: Literal["batch", "always"] = "batch",
        **unknown: object,
    ) -> None:
        warn_out_of_scope("Pipeline()", unknown, _PIPELINE_KEYWORDS)
        super().__init__(
            name,
            as_context(context),
            discovers=auto_discover,
            types=checked_mode(validate_types),
            cache=checked_cache_store(cache_dir, enabled=enable_cache),
            journals=checked_journals(enable_checkpointing, checkpoint_dir, durability),
        )
        self.executor = checked_executor(executor)

    @classmethod
    @hides_internal_frames
    def from_steps(
        cls,
        *steps: Step[..., Any] | Callable[..., Any] | If | Switch | SubPipeline,
        name: str = "pipeline",
        context: Context | Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        validate_types: bool | Literal["warn", "error"] | None = None,
        enable_cache: bool = True,
        cache_dir: str | PathLike[str] | CacheStore | None = None,
        enable_checkpointing: bool = False,
        checkpoint_dir: str | PathLike[str] | None = None,
        durability: Literal["batch", "always"] = "batch",
        **unknown: object,
    ) -> Pipeline:
        """Make a pipeline of steps under their own names.

        Args:
            *steps: Steps or functions.
            name: As for `Pipeline`, like the other arguments.
            context: Named values.
            executor: Where it runs by default.
            validate_types: Whether type hints are compared.
            enable_cache: Whether steps with `cache=` are cached.
            cache_dir: Where their values are.
            enable_checkpointing: Whether runs keep a journal.
            checkpoint_dir: Where journals are.
            durability: When they are on the disk.
            **unknown: As for `Pipeline`.

        >>> Pipeline.from_steps(min, max, name="two").name
        'two'
        """
        warn_out_of_scope("from_steps()", unknown, _PIPELINE_KEYWORDS)
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        options: dict[str, Any] = {"enable_cache": enable_cache, "cache_dir": cache_dir, "durability": durability}
        options |= {"enable_checkpointing": enable_checkpointing, "checkpoint_dir": checkpoint_dir}
        pipeline = cls(name, context, executor, validate_types=validate_types, **options)
        return pipeline._add_all(steps, SourceLocation(frame.f_code, frame.f_lasti))

    def _add_part(self, part: ControlFlow | SubPipeline, place: SourceLocation, *rest: Any) -> Self:
        """Add it, and say what of a sub-pipeline counts only where it is run itself."""
        super()._add_part(part, place, *rest)
        inner = part.pipeline if isinstance(part, SubPipeline) else None
        unused = _only_of_its_own_runs(inner, self) if isinstance(inner, Pipeline) else []
        if inner is not None and unused:
            only = f"{', '.join(unused)} of pipeline {inner.name!r} count only where it is run itself"
            message = f"{only}; where it is part of pipeline {self.name!r} give them to that"
            warnings.warn_explicit(message, UserWarning, place.code.co_filename, place.line)
        return self

    def __repr__(self) -> str:
        """Show name and size."""
        return f"<Pipeline {self.name!r} of {pluralize(len(self), 'step')}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name alone: a global of a script travels with its functions, its steps do not."""
        return _named_only, (self.name,)


def _of_pipeline(*kinds: type) -> None:
    """Let Python's own errors about arguments name methods by the class that users know."""
    for name, method in [pair for kind in kinds for pair in vars(kind).items()]:
        for each in (method, getattr(method, "__wrapped__", None)):
            if isinstance(each, FunctionType):
                each.__module__, each.__qualname__ = __name__, f"Pipeline.{name}"


_of_pipeline(PipelineBuilder, Preparation, Launcher)


def _named_only(name: str) -> Pipeline:
    """Return what arrives of a pipeline that was pickled: it must not look like one without steps."""
    pipeline = Pipeline(name)
    pipeline._named_only = True  # noqa: SLF001  of this class
    return pipeline


def _only_of_its_own_runs(inner: Pipeline, around: Pipeline) -> list[str]:
    """Return what a pipeline asks for that the one which it becomes part of has not."""
    stores = [None if each._cache is None else each._cache.cache_dir for each in (inner, around)]  # noqa: SLF001
    cached = None not in stores and any(form.options.caching for form in set(inner._added.forms))  # noqa: SLF001
    asked = {
        "hooks": inner.hooks.any,
        "enable_checkpointing": inner._journals.kept and not around._journals.kept,  # noqa: SLF001
        "cache_dir": cached and stores[0] != stores[1],
    }
    return [name for name, is_asked in asked.items() if is_asked]
