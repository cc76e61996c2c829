"""Steps: what can be one, what it keeps of its function, how it is called, bound, declared and pickled."""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import pickle
from typing import Any

import cloudpickle
import pytest
from pipelines import typed_keywords

from flowyml import Pipeline, Step, step
from flowyml.steps import options
from flowyml.steps.options import OPTION_NAMES
from flowyml.steps.signature import StepSignature


@step
def double(number: int, *, extra: int = 0) -> int:
    """Return twice the number."""
    return 2 * number + extra


@step(name="half", inputs=["whole"], outputs=["halved"])
def halve(whole: int) -> float:
    return whole / 2


class Scale:
    """A callable object whose attributes have the names that a step uses, too."""

    def __init__(self) -> None:
        self.func = self.name = self.inputs = self.outputs = self.signature = "the object's own"

    def __call__(self, number: int) -> int:
        return 10 * number


class Account:
    def __init__(self, rate: int) -> None:
        self.rate = rate

    @step
    def interest(self, amount: int) -> int:
        return amount * self.rate

    @staticmethod
    @step
    def fee(amount: int) -> int:
        return amount // 100

    @classmethod
    def opened(cls, rate: int) -> Account:
        return cls(rate)

    class Inner:
        """A class in a class."""

        @step
        def deep(self) -> str:
            return "deep"


# ---- the decorator -------------------------------------------------------------------------------------------------


def test_calling_a_step_calls_the_function() -> None:
    assert double(4, extra=1) == 9


def test_a_step_keeps_name_doc_module_and_signature() -> None:
    assert (double.__name__, double.__doc__, double.__module__) == ("double", "Return twice the number.", __name__)
    assert list(inspect.signature(double).parameters) == ["number", "extra"]
    assert double.__wrapped__ is double.func


def test_a_step_keeps_the_attributes_of_a_function() -> None:
    def tagged() -> None: ...

    tagged.owner = "us"
    assert step(tagged).owner == "us"


def test_a_bare_decorator_names_the_step_after_the_function() -> None:
    assert (double.name, double.inputs, double.outputs) == ("double", None, ())


def test_a_decorator_with_arguments_keeps_what_was_declared() -> None:
    assert (halve.name, halve.inputs, halve.outputs) == ("half", ("whole",), ("halved",))


def test_an_empty_decorator_call_is_the_bare_decorator() -> None:
    assert step()(len).name == "len"


def test_a_single_output_may_be_a_string() -> None:
    assert step(outputs="one")(len).outputs == ("one",)


def test_declared_inputs_do_not_follow_later_changes_of_the_list() -> None:
    declared = ["a"]
    made = step(inputs=declared)(lambda a: a)
    declared.append("b")
    assert made.inputs == ("a",)


def test_declared_inputs_by_parameter_are_copied_too() -> None:
    declared = {"a": ["x", "y"]}
    made = step(inputs=declared)(lambda a: a)
    declared["a"].append("z")
    assert made.inputs == {"a": ("x", "y")}


def test_names_may_come_from_any_ordered_iterable() -> None:
    made = Step(len, inputs=(f"part_{k}" for k in range(2)), outputs=dict.fromkeys("ab").keys())
    assert (made.inputs, made.outputs) == (("part_0", "part_1"), ("a", "b"))


def test_the_repr_names_step_and_function() -> None:
    assert repr(halve) == "<Step 'half' of halve>"


# ---- what can be a step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (len, "len"),
        (Account, "Account"),
        (Account(1).opened, "opened"),
        (lambda: 1, "lambda"),
        (functools.partial(len), ""),
        (operator.itemgetter(0), ""),
        (Scale(), ""),
    ],
)
def test_the_name_is_the_functions_own_or_none(func: Any, name: str) -> None:
    assert Step(func).name == name


def test_a_callable_object_keeps_its_attributes_to_itself() -> None:
    scale = Scale()
    made = Step(scale, name="scale")
    assert (made.func, made.name, made.inputs, made.outputs) == (scale, "scale", None, ())
    assert Pipeline("one").add_step(made, params={"number": 2}).run()["scale"] == 20


def test_a_function_with_an_attribute_called_signature_is_wired_by_its_own() -> None:
    def func(number: int) -> int:
        return number

    func.signature = "an attribute"
    assert Pipeline("one").add_step(func, params={"number": 3}).run()["func"] == 3


def test_a_decorated_function_has_the_signature_that_it_wears() -> None:
    def logged(func: Any) -> Any:
        @functools.wraps(func)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **kwargs)

        return inner

    @step
    @logged
    def add(left: int, right: int) -> int:
        return left + right

    assert Pipeline("one").add_step(add, params={"left": 1, "right": 2}).run()["add"] == 3


def test_a_static_method_is_a_step_below_or_above_the_decorator() -> None:
    assert Account.fee(200) == 2
    assert step(staticmethod(len))([1, 2]) == 2


# ---- methods -------------------------------------------------------------------------------------------------------


def test_a_step_binds_as_a_method_does() -> None:
    assert Account(3).interest(5) == 15


def test_a_step_on_its_class_is_the_step_itself() -> None:
    assert Account.interest is Account.__dict__["interest"]


def test_a_bound_step_runs_in_a_pipeline_without_self() -> None:
    assert Pipeline("one").add_step(Account(3).interest, params={"amount": 2}).run()["interest"] == 6


def test_binding_keeps_what_was_declared() -> None:
    class Reader:
        @step(name="reading", inputs=["raw"], outputs=["read"])
        def read(self, raw: str) -> str:
            return raw

    bound = Reader().read
    assert (bound.name, bound.inputs, bound.outputs) == ("reading", ("raw",), ("read",))


# ---- copies and pickles --------------------------------------------------------------------------------------------


def test_a_step_of_a_module_pickles_by_name() -> None:
    assert pickle.loads(pickle.dumps(double)) is double
    assert b"twice" not in pickle.dumps(double)


def test_a_step_of_a_nested_class_pickles_by_qualified_name() -> None:
    assert pickle.loads(pickle.dumps(Account.Inner.deep)) is Account.Inner.deep


def test_a_local_step_pickles_by_its_parts() -> None:
    offset = 7

    @step(name="moved", inputs={"number": "raw"}, outputs=["out"])
    def move(number: int) -> int:
        return number + offset

    copied = cloudpickle.loads(cloudpickle.dumps(move))
    assert copied is not move
    assert (copied(1), copied.name, copied.inputs, copied.outputs) == (8, "moved", {"number": "raw"}, ("out",))


def test_a_copy_of_a_step_works() -> None:
    assert copy.copy(double)(2) == 4
    assert copy.deepcopy(halve)(2) == 1.0


# ---- signatures ----------------------------------------------------------------------------------------------------


def plain(a: int, b: int = 2, /, c: int = 3, *rest: int, d: int, e: int = 5, **more: int) -> int:
    for local in rest:
        a += local
    return a


FUNCTIONS: list[Any] = [
    plain,
    lambda: None,
    lambda a, b: (a, b),
    lambda a, b=1, *, c=2: (a, b, c),
    lambda *, a: a,
    lambda *rest: rest,
    lambda **more: more,
    lambda a=None, /: a,
    Account(1).opened,
    Account(1).__init__,
]


@pytest.mark.parametrize("func", FUNCTIONS)
def test_a_signature_read_from_the_code_is_that_of_inspect(func: Any) -> None:
    through_inspect = functools.partial(func)
    assert StepSignature.of(func) == StepSignature.of(through_inspect)


def test_a_bound_method_has_no_self() -> None:
    class Method:
        def named(self, a: int, /, b: int = 1) -> None: ...

        def nameless(*args: int) -> None: ...  # noqa: N805, RUF100

        def default_self(self: Any = None, b: int = 1) -> None: ...

    assert StepSignature.of(Method().named) == StepSignature(("a", "b"), (), 1, {"b": 1})
    assert StepSignature.of(Method().nameless) == StepSignature(var_positional="args")
    assert StepSignature.of(Method().default_self) == StepSignature(("b",), defaults={"b": 1})


def test_a_builtin_that_does_not_tell_has_no_readable_signature() -> None:
    assert not StepSignature.of(range).readable


def test_what_the_decorator_takes_is_taken_where_a_step_is_added() -> None:
    """All but what concerns the registry, in which only decorated functions are."""
    said = set(inspect.signature(step).parameters) - {"func", "unknown", "pipeline", "register"}
    assert said == {"name", "inputs", "outputs", *OPTION_NAMES}
    assert typed_keywords(options, "StepKeywords") == [*OPTION_NAMES]


@pytest.mark.parametrize("way", ["add_step", "map"])
@pytest.mark.parametrize("option", OPTION_NAMES)
def test_every_option_of_the_decorator_is_checked_where_a_step_is_added(way: str, option: str) -> None:
    pipeline = Pipeline("p")
    added = functools.partial(getattr(pipeline, way), abs, *([1],) * (way == "map"))
    with pytest.raises((TypeError, ValueError), match=option if option != "resources" else "resources of step"):
        added(**{option: object()})
    assert len(added(**{option: None})) == 1
