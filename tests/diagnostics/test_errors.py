"""`flowyml.errors`: one tree, drawn at the top of the module; every class keeps its data, also when pickled."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

from flowyml import errors

CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BaseException)]
OUTSIDE = {"RemoteTraceback", "RunInterrupted"}
SAMPLES: dict[str, Any] = {
    "problems": ["one", "two"],
    "cycle": ["a", "b", "a"],
    "outputs": ["left", "right"],
    "timeout": 1.5,
    "limit": 1 << 30,
    "used": 2 << 30,
    "size": 3 << 20,
    "successes": 1,
    "total": 3,
    "min_success_ratio": 0.5,
    "exitcode": -9,
    "failures": 3,
    "retry_after": 2.5,
    "others": 2,
    "last_error": None,
    "result": None,
}


def made(kind: type[BaseException]) -> BaseException:
    if kind in {errors.FlowymlError, errors.ExecutorError}:
        return kind("a message")
    names = inspect.signature(kind).parameters
    return kind(**{name: SAMPLES.get(name, f"the {name}") for name in names})


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_pickles_with_its_data(kind: type[BaseException]) -> None:
    error = made(kind)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, vars(again), str(again)) == (kind, error.args, vars(error), str(error))
    assert str(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_has_its_arguments_as_attributes(kind: type[BaseException]) -> None:
    if kind not in {errors.FlowymlError, errors.ExecutorError}:
        names = inspect.signature(kind).parameters
        assert {name: getattr(made(kind), name) for name in names} == {
            name: SAMPLES.get(name, f"the {name}") for name in names
        }


def test_the_tree_at_the_top_has_every_class_once_and_the_bases_that_it_draws() -> None:
    drawn = re.findall(r"^([│├└─ ]*)(\w+)(?: \((\w+)\))?(?:  .*)?$", str(errors.__doc__).split("```")[1], re.MULTILINE)
    assert sorted(name for _, name, _ in drawn) == sorted(each.__name__ for each in CLASSES)
    for indent, name, other in drawn:
        bases = [each.__name__ for each in getattr(errors, name).__bases__]
        own = {0: "Exception", 4: "FlowymlError", 8: "PipelineValidationError"}[len(indent)]
        assert bases == ([other] if name in OUTSIDE else [own, other] if other else [own])


def test_every_class_is_public_and_names_its_module() -> None:
    assert {each.__name__ for each in CLASSES} | {"describe_exit"} == set(errors.__all__)
    assert {each.__module__ for each in CLASSES} == {"flowyml.errors"}
