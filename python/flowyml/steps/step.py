"""Steps: plain functions with a name, declared inputs and declared outputs.

A `Step` holds the function, its declarations and its options; it knows nothing of pipelines, graphs or workers. Calling
a step calls the function, so steps are tested like functions.
"""

from __future__ import annotations

import functools
import inspect
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, overload

from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.steps.circuit_breaker import unwrap_breaker
from flowyml.steps.conditions import MARK
from flowyml.steps.declarations import checked_inputs, checked_outputs, checked_text, only_asset
from flowyml.steps.fallback import MARK as FALLBACK
from flowyml.steps.options import NO_OPTIONS, StepOptions, given_options
from flowyml.steps.outcomes import generator_kind
from flowyml.steps.resources import in_units
from flowyml.steps.signature import StepSignature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowyml.steps.circuit_breaker import CircuitBreaker
    from flowyml.steps.conditions import Guard
    from flowyml.steps.declarations import Inputs, Reads
    from flowyml.steps.map_task import MapTaskPolicy
    from flowyml.steps.options import StepKeywords
    from flowyml.steps.retry import RetryConfig

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)


class Step(Generic[P, R_co]):
    """A function as a step of a pipeline; made by `step`.

    Args:
        func: The function. Anything callable but a generator function.
        name: Name of the step; the function's own name by default.
        inputs: Assets that the step reads: names that equal a parameter go there, the others fill the remaining
            parameters left to right; a mapping says it parameter by parameter. A name with `*`, `?` or `[` is a glob.
        outputs: Assets that the step produces. None declared: one asset of the step's own name. Two or more: the
            function returns a tuple or list of that length, or a dict with these keys.
        **options: Retries, conditions, time limits and so on; see `step`.

    Raises:
        TypeError: If `func` cannot be a step, or an argument is not what it should be.

    >>> from flowyml import step
    >>> @step
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double(21), double.name
    (42, 'double')
    """

    func: Callable[P, R_co]
    name: str
    inputs: Inputs | None
    outputs: tuple[str, ...]
    options: StepOptions
    terms: MapTaskPolicy | None = None  # of a map task

    @hides_internal_frames
    def __init__(
        self,
        func: Callable[P, R_co],
        *,
        name: str | None = None,
        inputs: Reads | None = None,
        outputs: str | Sequence[str] | None = None,
        **options: Unpack[StepKeywords],
    ) -> None:
        func = checked_function(func)
        made = NO_OPTIONS
        if options or getattr(func, "__dict__", None):
            made = _options_of(func, name, options)
            func, _ = unwrap_breaker(func)
        _wear(self, func)
        self.func = func
        self.name = default_name(func) if name is None else checked_text("the name of a step", name)
        self.inputs = checked_inputs(inputs, self.name)
        self.outputs = checked_outputs(outputs, self.name)
        self.options = made
        self._signature: StepSignature | None = None
        if made.fallback is not None:
            made.check_fallback(self.signature, self.name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the plain function."""
        return self.func(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Step[P, R_co]: ...
    @overload
    def __get__(self: Step[Concatenate[S, Q], R], instance: S, owner: type | None = None) -> Step[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Step[Any, Any]:
        """Bind as a method does: `obj.step` is a step without `self`."""
        if instance is None:
            return self
        binds = getattr(self.func, "__get__", None)
        func = binds(instance, owner) if binds else self.func
        return self._remade(func, self.options)

    def _remade(self, func: Callable[..., Any], options: StepOptions) -> Step[Any, Any]:
        return _rebuild(func, self.name, self.inputs, self.outputs, options)

    def _parts(self) -> tuple[Any, ...]:
        """Return the function and the arguments that rebuild the step."""
        return _rebuild, (self.func, self.name, self.inputs, self.outputs, self.options)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by module and qualified name if a worker can import it, else by its parts."""
        if self._is_importable():
            return str(self.__dict__["__qualname__"])
        return self._parts()

    def _with_guard(self, guard: Guard) -> Step[..., Any]:
        """Return this step with one more condition, for `@when` and `@unless` above `@step`."""
        return self._remade(self.func, self.options.with_guard(guard))

    def _with_options(self, **given: Any) -> Step[..., Any]:
        """Return this step with other options, for decorators above `@step`."""
        options = self.options.replace(self.name, given)
        options.check_fallback(self.signature, self.name)
        return self._remade(self.func, options)

    def _is_importable(self) -> bool:
        module, qualname = self.__dict__.get("__module__"), self.__dict__.get("__qualname__", "")
        if module in {None, "__main__"} or module in _modules_by_value():
            return False
        found: object = sys.modules.get(str(module))
        try:
            return functools.reduce(getattr, qualname.split("."), found) is self
        except AttributeError:
            return False

    def _as_asset(self) -> str:
        """Return the asset that the step stands for as an input."""
        return only_asset(self.name, self.outputs or (self.name,))

    def _as_step(self) -> str:
        return self.name

    @property
    def retry(self) -> RetryConfig | None:
        """The retry policy."""
        return self.options.retry

    @property
    def condition(self) -> Callable[..., Any] | None:
        """The predicate of `condition=`."""
        guard = self.options.condition
        return None if guard is None else guard.predicate

    @property
    def skip_if(self) -> Callable[..., Any] | None:
        """The predicate of `skip_if=`."""
        guard = self.options.skip_if
        return None if guard is None else guard.predicate

    @property
    def run_if(self) -> str:
        """Which of its dependencies the step needs."""
        return self.options.run_if

    @property
    def timeout(self) -> float | None:
        """Seconds that an attempt may take; `None` for the executor's default."""
        return self.options.timeout

    @property
    def fallback(self) -> Callable[..., Any] | None:
        """The function that replaces the step once all attempts have failed."""
        return self.options.fallback

    @property
    def on_failure(self) -> Callable[..., object] | None:
        """The function that is called once all attempts have failed."""
        return self.options.on_failure

    @property
    def circuit_breaker(self) -> CircuitBreaker | None:
        """The breaker that refuses calls while the step keeps failing."""
        return self.options.circuit_breaker

    @property
    def tags(self) -> dict[str, Any]:
        """The tags, each with its value or ""."""
        return dict(self.options.tags or {})

    @property
    def resources(self) -> dict[str, float]:
        """What the step occupies of an executor's resources while it runs: amounts by name, of "memory" in bytes."""
        return in_units(self.options.resources)

    @property
    def source_code(self) -> str:
        """The source of its function; "" if it cannot be read."""
        func = self.func.func if isinstance(self.func, functools.partial) else self.func
        try:
            return inspect.getsource(func)
        except (TypeError, OSError):
            return ""

    @property
    def cache(self) -> bool | str | Callable[..., str]:
        """What the key of its stored value is made of: "code_hash", "input_hash", a function, or `False`."""
        mode = self.options.caching
        return False if mode is None else mode.function or mode.name

    def get_code_hash(self) -> str:
        """Return a hash of what its function does, with its closure and defaults; comments do not count.

        Raises:
            TypeError: If something that belongs to it cannot be hashed.
        """
        from flowyml.hashing.fingerprint import fingerprint

        return fingerprint(self.func).digest.hex()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the function's parameters, and of those that only its conditions have."""
        return self.options.parameters(self.signature)

    @property
    def signature(self) -> StepSignature:
        """The function's signature, read once."""
        if self._signature is None:
            self._signature = StepSignature.of(self.func)
        return self._signature

    def __repr__(self) -> str:
        """Name the step and where its function comes from."""
        return f"<Step {self.name!r} of {getattr(self.func, '__qualname__', self.func)!s}>"


def _options_of(func: Any, name: Any, keywords: Mapping[str, Any]) -> StepOptions:
    """Return the options of a step: those that are given, else those that decorators have stored on its function."""
    given = given_options("Step()", keywords, ("name", "inputs", "outputs"))
    _, breaker = unwrap_breaker(func)
    marks = {"retry": getattr(func, "__flowyml_retry__", None), "fallback": getattr(func, FALLBACK, None)}
    step = default_name(func) if name is None else str(name)
    options = NO_OPTIONS.replace(step, {**marks, "circuit_breaker": breaker, **given})
    decorated = getattr(func, MARK, ())
    return replace(options, decorated=decorated) if decorated else options


def _wear(step: Step[..., Any], func: Any) -> None:
    """Give a step name, doc and signature of its function, and a plain function's attributes."""
    functools.update_wrapper(step, func, updated=("__dict__",) if inspect.isfunction(func) else ())


def _rebuild(
    func: Callable[..., Any], name: str, inputs: Inputs | None, outputs: tuple[str, ...], options: StepOptions
) -> Step[..., Any]:
    step = Step(func, name=name, inputs=inputs, outputs=outputs or None)
    step.options = options
    return step


def _modules_by_value() -> set[str]:
    """Return the modules that are being pickled by value, without importing cloudpickle for it."""
    registry = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", None)
    return registry() if registry else set()


def added_step(
    step: Step[P, R], name: str, inputs: Inputs | None, outputs: tuple[str, ...], options: StepOptions
) -> Step[P, R]:
    """Return a step with the name, declarations and options that it has in a pipeline."""
    copy: Step[P, R] = object.__new__(type(step))
    copy.__dict__.update(step.__dict__, name=name, inputs=inputs, outputs=outputs, options=options)
    return copy


def step_calling(step: Step[..., Any], func: Callable[..., Any]) -> Step[..., Any]:
    """Return a step of the same name that calls another function."""
    copy: Step[..., Any] = object.__new__(type(step))
    copy.__dict__.update(step.__dict__, func=func, _signature=None)
    return copy


def as_step(candidate: object) -> Step[..., Any]:
    """Return a step as it is, and anything else callable as a new step."""
    return candidate if isinstance(candidate, Step) else Step(candidate)  # type: ignore[arg-type]


def checked_function(func: Any) -> Any:
    """Return what can be called as a step, or say why it cannot."""
    if isinstance(func, Step):
        raise TypeError(f"{func!r} is a step already")
    if not callable(func):
        hint = "pass the function, not its result"
        if callable(getattr(func, "add_sub_pipeline", None)):
            hint = "a pipeline becomes part of another by add_sub_pipeline(pipeline)"
        if isinstance(func, classmethod):
            hint = "put @classmethod above @step"
        raise TypeError(f"a step must be callable, got {type(func).__name__} {func!r:.60}; {hint}")
    inner = func.func if isinstance(func, functools.partial) else func
    called = inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner).__call__
    if generator_kind(called):
        raise TypeError(f"step {default_name(func)!r} is {generator_kind(called)}")
    return func


def default_name(func: Any) -> str:
    """Return the function's own name; a lambda's is "lambda"; "" if it has none."""
    name = getattr(func, "__name__", "")
    if not isinstance(name, str):
        return ""
    return "lambda" if name == "<lambda>" else name
