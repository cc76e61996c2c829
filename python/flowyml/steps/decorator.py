"""`step`: makes a `Step` of a function and registers it for `Pipeline(auto_discover=True)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, overload

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
    from flowyml.steps.options import DecoratorKeywords
    from flowyml.steps.resources import Resources
    from flowyml.steps.retry import RetryConfig

KEYWORDS = ("name", "inputs", "outputs", *OPTION_NAMES, "pipeline", "register")

P = ParamSpec("P")
R = TypeVar("R")


@overload
def step(func: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(**options: Unpack[DecoratorKeywords]) -> Callable[[Callable[P, R]], Step[P, R]]: ...
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
    run_if: Literal["all", "any"] | None = None,
    timeout: float | timedelta | None = None,
    fallback: Callable[..., Any] | None = None,
    fallback_on: Iterable[type[BaseException]] | type[BaseException] | None = None,
    on_failure: Callable[..., Any] | None = None,
    circuit_breaker: CircuitBreaker | None = None,
    tags: Tags | None = None,
    cache: bool | str | Callable[..., str] | None = None,
    cache_ttl: float | timedelta | None = None,
    resources: Resources | None = None,
    pipeline: str | None = None,
    register: bool = True,
    **unknown: object,
) -> Any:
    """Make a step of a function: `@step` or `@step(name=, inputs=, outputs=, retry=, condition=, ...)`.

    Args:
        func: The function, if the decorator is used without parentheses.
        name: Name of the step; the function's own name by default.
        inputs: Assets that the step reads; see `Step`.
        outputs: Assets that the step produces; see `Step`.
        retry: Number of attempts after the first failure, or a `RetryConfig`; a delay before one occupies no worker.
        condition: A function of the step's arguments: the step is skipped if it returns a false value (see `when`).
        skip_if: The opposite: the step is skipped if it returns a true value.
        run_if: "all", the default: every dependency needs a value. "any": the step is a join, which waits for all of
            its dependencies and runs if any has a value. Lists then hold the values that exist, and a parameter whose
            asset does not exist gets its Python default.
        timeout: Seconds (or a `timedelta`) that an attempt may take, counted from its own start; after that the step
            has timed out. Infinite: no limit, whatever the executor's default is.
        fallback: A function that is called, where the step would run, once all attempts have failed; its value becomes
            the step's. It gets those of the step's arguments that it has parameters for.
        fallback_on: The exception classes for which the fallback is called; all by default.
        on_failure: A function that is called with the exception, or with the exception and the `StepResult`, in the
            thread that called `run()`, once all attempts have failed, also if there is a fallback.
        circuit_breaker: A `CircuitBreaker`: the step fails at once while the called function keeps failing.
        tags: Words by which `run(targets=["tag:..."])` selects steps; a mapping gives them values.
        cache: `True` or "code_hash": the value is stored, and used again as long as the step's code and everything that
            it reads are the same; "input_hash": whatever its code is; a function `(step, inputs, context) -> str`: as
            long as that returns the same string. Off by default.
        cache_ttl: Seconds (or a `timedelta`) for which a stored value may be used; alone it means `cache=True`, too.
        resources: What the step occupies of a `ParallelExecutor`'s resources while it runs:
            {"cpu": 2, "memory": "4GiB", "api": 1}.
        pipeline: The pipeline that finds the step with `Pipeline(auto_discover=True)`; by default all do.
        register: Whether such pipelines find it at all.
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
    arguments = locals()
    options: Any = {option: arguments[option] for option in OPTION_NAMES if arguments[option] is not None}

    def decorate(func: Callable[..., Any]) -> Step[..., Any]:
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
