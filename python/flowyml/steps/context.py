"""Context: named values that steps take by parameter name, and `get_context()`, what a step knows about itself.

```
worker ──step_context_provider(self)──▶ context variable ◀── get_context() ──▶ provider.step_context() ──▶ StepContext
```

A worker registers itself once for a run, not once for a step: the provider finds out which step is running when a step
asks, so a step that does not ask pays nothing. Which parameter gets which value is decided in `planning/binding.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import did_you_mean
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.errors import FlowymlError
from flowyml.steps.conditions import GuardedFunction
from flowyml.steps.current_step import current_provider
from flowyml.steps.fallback import Fallback
from flowyml.steps.signature import StepSignature

if TYPE_CHECKING:
    import logging
    import random
    from collections.abc import Callable, Sequence


class Context(Mapping[str, Any]):
    """Named values for the steps of a pipeline; `context` is the same by a shorter name.

    Args:
        **values: The values by name.

    >>> ctx = Context(epochs=3, rate=0.1)
    >>> ctx.epochs, ctx["rate"], "rate" in ctx, ctx.get("seed", 0)
    (3, 0.1, True, 0)
    """

    __slots__ = ("_values",)

    def __init__(self, /, **values: Any) -> None:
        self._values = values

    @hides_internal_frames
    def __getitem__(self, name: str) -> Any:
        """Return a value.

        Raises:
            KeyError: If there is none of that name, with near matches.
        """
        try:
            return self._values[name]
        except KeyError:
            raise KeyError(self._missing(name)) from None

    @hides_internal_frames
    def __getattr__(self, name: str) -> Any:
        """Return a value as an attribute."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(self._missing(name)) from None

    def _missing(self, name: str) -> str:
        return f"the context has no value {name!r}{did_you_mean(name, self._values)}"

    def __contains__(self, name: object) -> bool:
        """Return True if there is a value of that name."""
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order in which they were given."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the values."""
        return _rebuild, (self._values,)

    def __repr__(self) -> str:
        """Show the values."""
        return f"Context({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as a plain dict."""
        return dict(self._values)

    def update(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set values in this context."""
        self._values.update(values or {}, **more)

    def inherit(self, /, **values: Any) -> Context:
        """Return a new context with these values over the present ones.

        >>> Context(a=1, b=2).inherit(b=3).to_dict()
        {'a': 1, 'b': 3}
        """
        return Context(**{**self._values, **values})


def _rebuild(values: dict[str, Any]) -> Context:
    return Context(**values)


def context(**values: Any) -> Context:
    """Make a `Context` of named values.

    >>> context(batch_size=32)["batch_size"]
    32
    """
    return Context(**values)


CHECKPOINTS = ".flowyml/checkpoints"
"""Where journals and what steps put aside are, unless a pipeline says where."""


@dataclass(frozen=True)
class StepContext:
    """The step that is running, as `get_context()` tells it.

    Attributes:
        run_id: Name of the run.
        pipeline_name: Name of the pipeline.
        step_name: Name of the step; of an item of a mapped step, "name[index]".
        index: Which item of a mapped step this is; `None` for a step.
        attempt: 1 for the first attempt, 2 for the first retry, ...
        params: The arguments that the step was called with, by parameter name, read-only; those of `*args` as a tuple.
            What is left to its Python default is not among them.
        worker: Number of the worker that runs it, as in `StepResult.worker`.
        seed: Under `run(seed=)` a number of 64 bits that belongs to this step or item, the same for each attempt;
            `None` without. `numpy.random.default_rng(seed)` takes either.
        checkpoint_dir: Where `PipelineCheckpoint` puts what this step saves.
        gpus: Under which numbers libraries find, in this process, the devices that the step has taken by
            `resources={"gpu": ...}`. A worker process sees no others, so they begin with 0 there; steps in threads and
            of the local executor share a process, which sees all.
        devices: What the same devices are called in `CUDA_VISIBLE_DEVICES` of the process that began the run: numbers
            as strings, or names like "GPU-8f3e...".
    """

    run_id: str
    pipeline_name: str
    step_name: str
    index: int | None
    attempt: int
    params: Mapping[str, Any] = field(hash=False)
    worker: int
    seed: int | None
    checkpoint_dir: str = ""
    gpus: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()

    @property
    def gpu(self) -> int | None:
        """The first of `gpus`, as in `torch.device("cuda", get_context().gpu)`; `None` for a step that has none."""
        return self.gpus[0] if self.gpus else None

    @cached_property
    def rng(self) -> random.Random:
        """A random generator of this step's own, seeded with `seed`."""
        import random

        return random.Random(self.seed)  # noqa: S311  steps that want secrets do not ask for a seed

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger `flowyml.step`; its records have `step_name`, `run_id` and `attempt` as attributes."""
        import logging

        extra = {"step_name": self.step_name, "run_id": self.run_id, "attempt": self.attempt}
        return logging.LoggerAdapter(logging.getLogger("flowyml.step"), extra)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with a copy of the parameters."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return _rebuild_step_context, (values | {"params": dict(self.params)},)


def _rebuild_step_context(values: dict[str, Any]) -> StepContext:
    return StepContext(**values | {"params": MappingProxyType(values["params"])})


@hides_internal_frames
def get_context() -> StepContext:
    """Return what is known about the step that calls this: run, step, attempt, parameters, a logger.

    Works on every backend, also in coroutines and in `asyncio.to_thread`. A thread that the step starts by itself does
    not belong to a step, unless Python hands context variables on to threads (`-X thread_inherit_context`, which is
    what free-threaded builds do).

    Raises:
        FlowymlError: If no step is running here.

    >>> from flowyml import Pipeline, get_context
    >>> def who(x):
    ...     here = get_context()
    ...     return here.step_name, here.attempt, dict(here.params)
    >>> Pipeline("whoami").add_step(who, params={"x": 1}).run()["who"]
    ('who', 1, {'x': 1})
    """
    teller = current_provider()
    found = None if teller is None else teller.step_context()
    if found is None:
        raise FlowymlError(
            "get_context() was called outside a step: it works in the function of a step while a run calls it, not in "
            "the script around it, in a step called as a plain function, or in a thread that a step started"
        )
    return found


def by_name(function: Callable[..., Any], keywords: Sequence[str], arguments: Sequence[Any]) -> Mapping[str, Any]:
    """Return the arguments of a call by parameter name, read-only.

    Args:
        function: What is called.
        keywords: Names of the last arguments.
        arguments: The arguments in call order.
    """
    private: frozenset[str] = frozenset()
    if isinstance(function, Fallback):
        function = function.instead
    if isinstance(function, GuardedFunction):
        private, function = function.private, function.func
    signature, count = StepSignature.of(function), len(arguments) - len(keywords)
    named = dict(zip(signature.positional, arguments[:count], strict=False))
    rest = tuple(arguments[len(signature.positional) : count])
    if rest:
        named[signature.var_positional or "args"] = rest
    by_keyword = zip(keywords, arguments[count:], strict=True)
    named.update((name, value) for name, value in by_keyword if name not in private)
    return MappingProxyType(named)
