"""`step`: makes a `Step` of a function, and lets pipelines that look for steps find it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from flowyml import registry
from flowyml.diagnostics.tracebacks import hides_internal_frames, warn_out_of_scope
from flowyml.steps.declarations import checked_text
from flowyml.steps.options import OPTION_NAMES
from flowyml.steps.step import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

    from flowyml.steps.circuit_breaker import CircuitBreaker
    from flowyml.steps.declarations import Reads, Tags
    from flowyml.steps.resources import Resources
    from flowyml.steps.retry import RetryConfig

KEYWORDS = ("name", "inputs", "outputs", *OPTION_NAMES, "pipeline", "register")

P = ParamSpec("P")
R = TypeVar("R")


@overload
def step(func: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    inputs: Reads | None = None,
    outputs: str | Sequence[str] | None = None,
    retry: int | RetryConfig | None = None,
    condition: Callable[..., Any] | None = None,
    skip_if: Callable[..., Any] | None = None,
    run_if: Literal["all", "any"] = "all",
    timeout: float | timedelta | None = None,
    fallback: Callable[..., Any] | None = None,
    fallback_on: Iterable[type[BaseException]] | type[BaseException] | None = None,
    on_failure: Callable[..., Any] | None = None,
    circuit_breaker: CircuitBreaker | None = None,
    tags: Tags | None = None,
    resources: Resources | None = None,
    pipeline: str | None = None,
    register: bool = True,
    cache: bool | str | Callable[..., str] | None = None,
    cache_ttl: float | timedelta | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
@hides_internal_frames
def step(
    func: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    inputs: Reads | None = None,
    outputs: str | Sequence[str] | None = None,
    retry: int | RetryConfig | None = None,
    condition: Callable[..., Any] | None = None,
    skip_if: Callable[..., Any] | None = None,
    run_if: Literal["all", "any"] = "all",
    timeout: float | timedelta | None = None,
    fallback: Callable[..., Any] | None = None,
    fallback_on: Iterable[type[BaseException]] | type[BaseException] | None = None,
    on_failure: Callable[..., Any] | None = None,
    circuit_breaker: CircuitBreaker | None = None,
    tags: Tags | None = None,
    resources: Resources | None = None,
    pipeline: str | None = None,
    register: bool = True,
    cache: bool | str | Callable[..., str] | None = None,
    cache_ttl: float | timedelta | None = None,
    **unknown: object,
) -> Any:
    """Make a step of a function: `@step` or `@step(name=, inputs=, outputs=, retry=, condition=, ...)`.

    Args:
        func: The function, where the decorator is used bare.
        name: See `Step`, as for the others.
        inputs: Assets that the step reads.
        outputs: Assets that the step produces.
        retry: Further attempts after a failure.
        condition: What must hold for it to run.
        skip_if: What must not hold for it to run.
        run_if: Which of its dependencies it needs.
        timeout: How many seconds it may take.
        fallback: What stands in for it when it has failed for good.
        fallback_on: For which exceptions.
        on_failure: What is told of its failure.
        circuit_breaker: What refuses it while it keeps failing.
        tags: Words that it can be chosen by.
        resources: What it takes of an executor's resources.
        pipeline: The pipeline that finds the step with `Pipeline(auto_discover=True)`; by default all do.
        register: Whether such pipelines find it at all.
        cache: Whether its value is stored, and what its key is made of.
        cache_ttl: How many seconds a stored value may be used.
        **unknown: Keywords of 2.2.1 that are out of scope get one warning, all others an error with the nearest known
            one.

    Returns:
        A `Step`, or a decorator that makes one.

    Raises:
        TypeError: For an unknown keyword, or something that cannot be a step.

    >>> @step(inputs=["raw"], outputs=["clean"])
    ... def strip(text: str) -> str:
    ...     return text.strip()
    >>> strip(" a "), strip.outputs
    ('a', ('clean',))
    """

    def decorate(func: Callable[..., Any]) -> Step[..., Any]:
        options: dict[str, Any] = {"retry": retry, "condition": condition, "skip_if": skip_if, "run_if": run_if}
        options |= {"fallback": fallback, "fallback_on": fallback_on, "on_failure": on_failure}
        options |= {"circuit_breaker": circuit_breaker, "timeout": timeout, "tags": tags}
        options |= {"cache": cache, "cache_ttl": cache_ttl, "resources": resources}
        made = Step(func, name=name, inputs=inputs, outputs=outputs, **options)
        if register:
            registry.register(made, pipeline)
        return made

    if unknown:
        warn_out_of_scope("step()", unknown, KEYWORDS)
    if isinstance(func, str):
        raise TypeError(f"@step takes a function, not {func!r}; use @step(name={func!r})")
    if pipeline is not None:
        checked_text("step(pipeline=)", pipeline)
    return hides_internal_frames(decorate) if func is None else decorate(func)
