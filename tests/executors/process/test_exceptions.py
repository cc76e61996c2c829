"""Exceptions on their way from a worker to the driver, and errors as text."""

from __future__ import annotations

import linecache
import pickle
import subprocess
import sys
import threading
import traceback
from typing import Any

import cloudpickle
import pytest
from awkward_exceptions import (
    TABLE,
    ExitsWhenPrinted,
    Fragile,
    NoLinks,
    NoText,
    OwnConstructor,
    OwnGroup,
    OwnOS,
    Reduces,
    Wild,
    WildAtLoad,
    missing_attribute,
    raised,
    unpicklable_class,
)

from flowyml.errors import RemoteError, RemoteTraceback, WorkerLostError
from flowyml.executors.process.protocol.exceptions import ExceptionInfo, pack_exception, unpack_exception, unpack_info
from flowyml.results.error_text import MAX_MESSAGE, MAX_TRACEBACK, error_text


def thrown(error: BaseException) -> BaseException:
    def throw() -> None:
        raise error

    return raised(throw)


def sent(error: BaseException) -> BaseException:
    """Bring an exception through the transport."""
    return unpack_exception(pack_exception(error, cloudpickle.dumps, pickle.loads), pickle.loads)[0]


# ---- arriving as themselves --------------------------------------------------------------------------------------


FIELDS = (
    "errno", "strerror", "filename", "filename2", "characters_written", "encoding", "object", "start", "end", "reason",
    "msg", "lineno", "offset", "text", "end_lineno", "end_offset", "name", "path", "code", "value", "axis",
)  # fmt: skip


def told(error: BaseException) -> tuple[Any, ...]:
    """Everything that can be asked of an exception."""
    fields = {name: getattr(error, name) for name in FIELDS if hasattr(error, name)}
    kind = type(error)
    return kind.__module__, kind.__qualname__, error.args, vars(error), fields, str(error), repr(error)


@pytest.mark.parametrize("name", TABLE)
def test_an_exception_arrives_as_itself(name: str) -> None:
    error = TABLE[name]

    arrived = sent(thrown(error))

    assert told(arrived) == told(error)
    assert name == "local class" or type(arrived) is type(error)


@pytest.mark.parametrize("name", TABLE)
def test_the_traceback_of_the_worker_is_the_cause(name: str) -> None:
    error = thrown(TABLE[name])

    cause = sent(error).__cause__

    assert isinstance(cause, RemoteTraceback)
    assert "raise error" in cause.text
    assert str(cause) == f'\n"""\n{cause.text.rstrip()}\n"""'


def test_the_object_is_whole_where_the_text_is_short() -> None:
    error = thrown(ValueError("x" * 1_000_000))

    data = pack_exception(error, pickle.dumps, pickle.loads)
    arrived, info = unpack_exception(data, pickle.loads)

    assert arrived.args == error.args
    assert len(info.text) < MAX_MESSAGE + 100
    assert len(info.traceback) < MAX_TRACEBACK + 100


# ---- what does not pickle ----------------------------------------------------------------------------------------


def test_an_attribute_that_does_not_pickle_leaves_its_look() -> None:
    error = ValueError("locked", threading.Lock())
    error.lock, error.n = threading.Lock(), 5  # type: ignore[attr-defined]

    arrived: Any = sent(error)

    assert (type(arrived), str(arrived), arrived.n) == (ValueError, str(error), 5)
    assert repr(arrived.lock) == repr(error.lock)  # type: ignore[attr-defined]


def test_values_that_exit_when_they_pickle_load_or_print_stay_behind() -> None:
    error = ValueError("x", Wild())
    error.wild = WildAtLoad()  # type: ignore[attr-defined]

    arrived: Any = sent(error)

    assert repr(arrived.args) == "('x', <Wild>)"
    assert repr(arrived.wild) == "<wild>"


@pytest.mark.parametrize(
    ("error", "name", "text"),
    [
        (Fragile(), "awkward_exceptions.Fragile", "locked: False"),
        (unpicklable_class()("psst"), "m.Secret", "psst"),
    ],
    ids=["text needs what stayed behind", "class"],
)
def test_what_cannot_be_rebuilt_arrives_as_a_stand_in(error: Exception, name: str, text: str) -> None:
    arrived = sent(thrown(error))

    assert isinstance(arrived, RemoteError)
    assert (arrived.type_name, arrived.text, str(arrived)) == (name, text, f"{name}: {text}")
    assert "raise error" in arrived.traceback
    assert isinstance(arrived.__cause__, RemoteTraceback)
    assert told(pickle.loads(pickle.dumps(arrived))) == told(arrived)


def test_a_class_that_only_the_worker_knows_arrives_as_a_stand_in() -> None:
    def load(data: bytes) -> Any:
        raise ModuleNotFoundError("No module named 'theirs'")

    data = pack_exception(thrown(OwnConstructor(1, 2)), pickle.dumps, pickle.loads)
    arrived, info = unpack_exception(data, load)

    assert isinstance(arrived, RemoteError)
    assert (arrived.text, info.text) == ("1 and 2", "1 and 2")


@pytest.mark.parametrize("kind", [NoText, ExitsWhenPrinted])
def test_an_exception_that_cannot_be_printed_arrives(kind: type[Exception]) -> None:
    data = pack_exception(thrown(kind()), pickle.dumps, pickle.loads)
    arrived, info = unpack_exception(data, pickle.loads)

    assert type(arrived) is kind
    assert info.text.startswith(f"<str() of this {kind.__name__} raised ")
    assert kind.__name__ in error_text(arrived)


def test_an_exception_that_hides_its_links_arrives_as_a_stand_in() -> None:
    assert isinstance(sent(NoLinks("x")), RemoteError)


# ---- links -------------------------------------------------------------------------------------------------------


def chained() -> BaseException:
    try:
        try:
            {}["k"]
        except KeyError as error:
            raise OwnConstructor(1, 2) from error
    except OwnConstructor as error:
        error.add_note("a note")
        raise ValueError("last")  # noqa: B904  the context is what the test is about


def test_causes_contexts_and_notes_arrive() -> None:
    arrived = sent(raised(chained))

    context = arrived.__context__
    assert isinstance(context, OwnConstructor)
    assert (context.a, context.__notes__) == (1, ["a note"])
    assert isinstance(context.__cause__, KeyError)
    assert context.__cause__ is context.__context__
    assert (arrived.__suppress_context__, context.__suppress_context__) == (False, True)
    assert isinstance(arrived.__cause__, RemoteTraceback)


def test_the_traceback_is_the_last_cause_of_an_exception_that_has_one() -> None:
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")

    arrived = sent(thrown(error))

    assert isinstance(arrived.__cause__, KeyError)
    assert isinstance(arrived.__cause__.__cause__, RemoteTraceback)
    assert "".join(traceback.format_exception(arrived)).startswith("flowyml.errors.RemoteTraceback: ")


def test_raise_from_none_keeps_the_context_hidden() -> None:
    error = ValueError("x")
    error.__context__ = KeyError("hidden")
    error.__suppress_context__ = True

    arrived = sent(error)

    assert (repr(arrived.__context__), arrived.__suppress_context__) == ("KeyError('hidden')", True)
    assert "hidden" not in error_text(arrived)


def test_notes_arrive_also_when_a_class_pickles_itself() -> None:
    error = Reduces(3)
    error.add_note("n")

    assert sent(error).__notes__ == ["n"]


def test_a_circle_of_causes_arrives() -> None:
    one, two = ValueError(1), KeyError(2)
    one.__cause__, two.__cause__ = two, one

    arrived = sent(one)

    assert arrived.__cause__ is not None
    assert arrived.__cause__.__cause__ is arrived


def test_a_chain_of_thousands_arrives_in_part() -> None:
    first = last = ValueError(0)
    for n in range(1, 5000):
        last.__context__ = ValueError(n)
        last = last.__context__

    arrived: BaseException | None = sent(first)

    count = 0
    while arrived is not None:
        count, arrived = count + 1, arrived.__context__
    assert count == 1000


def test_groups_arrive_with_their_members() -> None:
    inner = ExceptionGroup("inner", [OwnConstructor(1, 2), ValueError(threading.Lock())])
    error = BaseExceptionGroup("outer", [inner, SystemExit(3), thrown(OwnGroup([KeyError("k")], 5))])

    arrived: Any = sent(error)

    assert type(arrived) is BaseExceptionGroup
    first, exits, own = arrived.exceptions
    assert (type(first), first.message, first.exceptions[0].b) == (ExceptionGroup, "inner", 2)
    assert exits.code == 3
    assert (type(own), own.message, own.code, own.exceptions[0].args) == (OwnGroup, "code 5", 5, ("k",))
    assert "| SystemExit: 3" in error_text(arrived)


def test_a_member_that_cannot_be_rebuilt_is_a_stand_in_in_its_group() -> None:
    arrived: Any = sent(ExceptionGroup("g", [ValueError(1), Fragile()]))

    assert [type(member) for member in arrived.exceptions] == [ValueError, RemoteError]


def test_an_exception_that_came_from_another_worker_is_passed_on() -> None:
    """The traceback of the second contains that of the first, so there is one."""
    inner = sent(thrown(KeyError("inner")))

    def fail() -> None:
        raise ValueError("outer") from inner

    arrived = sent(raised(fail))

    assert isinstance(arrived.__cause__, KeyError)
    cause = arrived.__cause__.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert cause.text.index("raise error") < cause.text.index('raise ValueError("outer") from inner')
    assert cause.__cause__ is None


# ---- what is known without loading -------------------------------------------------------------------------------


def test_the_names_of_all_classes_travel() -> None:
    info = unpack_info(pack_exception(OwnOS("x"), pickle.dumps, pickle.loads))

    assert info == ExceptionInfo(
        ("awkward_exceptions.OwnOS", "builtins.OSError", "builtins.Exception", "builtins.BaseException"),
        "[Errno 2] not here: 'x'",
        "awkward_exceptions.OwnOS: [Errno 2] not here: 'x'\n",
    )


def test_the_driver_loads_nothing_to_know_it() -> None:
    data = pack_exception(thrown(WorkerLostError("a", 1)), pickle.dumps, pickle.loads)

    assert unpack_info(data).type_names[0] == "flowyml.errors.WorkerLostError"
    assert b"describe" not in data


# ---- text --------------------------------------------------------------------------------------------------------


def test_the_text_is_the_same_on_both_sides() -> None:
    error = raised(chained)

    assert error_text(sent(error)) == error_text(error)


def test_an_exception_that_was_raised_again_shows_both_tracebacks() -> None:
    text = error_text(thrown(sent(raised(missing_attribute))))

    assert text.index("return object().absent") < text.index("raise error")


def recurse(n: int) -> int:
    return recurse(n + 1) + 1


@pytest.mark.usefixtures("uncollected")
def test_a_recursion_error_has_a_bounded_text() -> None:
    error = raised(lambda: recurse(0))

    data = pack_exception(error, pickle.dumps, pickle.loads)
    arrived, info = unpack_exception(data, pickle.loads)

    assert type(arrived) is RecursionError
    assert len(info.traceback) < MAX_TRACEBACK + 100
    assert info.traceback.endswith("RecursionError: maximum recursion depth exceeded\n")


def test_source_lines_that_only_the_driver_knows_are_filled_in() -> None:
    """The worker has never seen the notebook's cell; its frames are in a chain and in a group."""
    source = "def fail():\n    raise ValueError('in a cell')\n"
    script = f"""
import pickle, sys
from flowyml.executors.process.protocol.exceptions import pack_exception
names = {{}}
exec(compile({source!r}, "<cell 1>", "exec"), names)
try:
    try: names["fail"]()
    except ValueError as error: raise ExceptionGroup("g", [error]) from error
except ExceptionGroup as error:
    sys.stdout.buffer.write(pack_exception(error, pickle.dumps, pickle.loads))
"""
    data = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    linecache.cache["<cell 1>"] = len(source), None, source.splitlines(keepends=True), "<cell 1>"
    try:
        text = error_text(unpack_exception(data, pickle.loads)[0])
    finally:
        del linecache.cache["<cell 1>"]

    assert "  File \"<cell 1>\", line 2, in fail\n    raise ValueError('in a cell')\n" in text
    assert "    |   File \"<cell 1>\", line 2, in fail\n    |     raise ValueError('in a cell')\n" in text
