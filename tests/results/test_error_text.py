"""Errors as text: message and traceback, without flowyml's own frames, bounded."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from awkward_exceptions import raised

from flowyml.errors import SerializationError, WorkerLostError
from flowyml.results.error_text import MAX_MESSAGE, MAX_TRACEBACK, error_text, shortened

if TYPE_CHECKING:
    from collections.abc import Callable


def missing_attribute() -> Any:
    return object().absent  # type: ignore[attr-defined]


def test_the_text_is_message_and_traceback() -> None:
    lines = error_text(raised(lambda: int("x"))).splitlines()

    message = "invalid literal for int() with base 10: 'x'"
    assert lines[:2] == [message, "Traceback (most recent call last):"]
    assert lines[-1] == f"ValueError: {message}"


@pytest.mark.parametrize("error", [AssertionError(), SerializationError("a", "b\nc"), WorkerLostError("a", 3)])
def test_an_error_without_a_traceback_is_its_message_once(error: BaseException) -> None:
    assert error_text(error) == (str(error) or "AssertionError")


def test_the_type_of_an_error_without_a_traceback_is_named() -> None:
    assert error_text(ValueError("a\nb")) == "a\nb\nValueError: a\nb\n"


def called_by_flowyml(function: Callable[[], Any]) -> BaseException:
    """Call a function below a frame whose file is one of flowyml's."""
    import flowyml

    assert flowyml.__file__ is not None
    code = compile("def call(function): function()\n", flowyml.__file__, "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    try:
        names["call"](function)
    except BaseException as error:
        return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    raise AssertionError("nothing was raised")


def test_frames_of_flowyml_that_led_to_the_step_are_cut() -> None:
    def nested() -> None:
        raise called_by_flowyml(missing_attribute)

    outer = error_text(called_by_flowyml(nested))

    assert "in call" in "".join(traceback.format_exception(called_by_flowyml(missing_attribute)))
    assert "in call" not in error_text(called_by_flowyml(missing_attribute))
    assert outer.index("in nested") < outer.index("in call"), "only those at the top are cut"


def test_an_error_with_frames_of_flowyml_only_keeps_the_last_unless_it_is_ours() -> None:
    assert error_text(called_by_flowyml(5)).count("in call") == 1  # type: ignore[arg-type]
    ours = WorkerLostError("a", 3)
    ours.__traceback__ = called_by_flowyml(5).__traceback__  # type: ignore[arg-type]
    assert "Traceback" not in error_text(ours)


def recurse(n: int) -> int:
    return odd(n + 1)


def odd(n: int) -> int:
    return recurse(n + 1) + 1


@pytest.mark.usefixtures("uncollected")
def test_frames_beyond_thousands_are_left_out() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    try:
        error = raised(lambda: recurse(0))
        assert len(error_text(error)) < MAX_TRACEBACK + MAX_MESSAGE
    finally:
        sys.setrecursionlimit(limit)


def test_a_short_text_stays() -> None:
    assert shortened("abc", 4) == "abc"
