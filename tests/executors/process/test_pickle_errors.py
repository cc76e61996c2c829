"""What does not pickle is named: a global, a closure, a value, a result; what is large is warned of."""

import functools
import io
import os
import pickle
import sys
import threading
import warnings

import pytest

from flowyml import ParallelExecutor, Pipeline
from flowyml.errors import SerializationError
from flowyml.executors.process.protocol.function_payload import build_payload
from flowyml.executors.process.protocol.value_pickle import dump_result, dump_value, load_value

LOCK = threading.Lock()


def test_a_global_that_does_not_pickle_is_named_with_its_owner(by_hand):
    module = by_hand(
        "made_with_lock",
        "import threading\nLOCK = threading.Lock()\ndef helper():\n    with LOCK: pass\ndef step(): helper()\n",
    )
    with pytest.raises(SerializationError) as caught:
        build_payload([len, module.helper, module.step], ["a", "b", "c"])
    message = str(caught.value)
    assert message.startswith("b cannot be pickled")
    assert "global variable 'LOCK' of helper()" in message
    assert "_thread.lock" in message


def test_a_global_reached_through_a_helper_is_named(by_hand):
    text = "import socket\nCONF = {'s': [socket.socket()]}\ndef helper(): return CONF\ndef step(): helper()\n"
    module = by_hand("made_with_socket", text)
    try:
        with pytest.raises(
            SerializationError, match=r"'helper' of step\(\) > .*'CONF' of helper\(\) > \['s'\] > \[0\]"
        ):
            build_payload([module.step], ["a"])
    finally:
        module.CONF["s"][0].close()


def test_a_closure_variable_that_does_not_pickle_is_named():
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="closure variable 'lock'") as caught:
        build_payload([lambda: lock], ["a"])
    assert str(caught.value).count("cannot pickle '_thread.lock' object") == 1


def test_a_part_of_a_partial_that_does_not_pickle_is_named():
    with pytest.raises(SerializationError, match="argument 'key'"):
        build_payload([functools.partial(sorted, key=threading.Lock())], ["a"])


class Shy:
    """Does not want to be looked at."""

    def __repr__(self) -> str:
        raise ValueError("not now")


def test_a_value_that_cannot_be_looked_at_is_an_error_without_a_name():
    """Its parts may raise, or another thread may change it meanwhile: that it does not pickle is told all the same."""
    with pytest.raises(SerializationError, match=r"the result cannot be pickled: .*lock"):
        dump_result({Shy(): threading.Lock()})


def test_a_value_that_does_not_pickle_is_named():
    with pytest.raises(SerializationError, match=r"argument 'x' of step 'a' cannot be pickled: \['b'\]: .*lock"):
        dump_value({"b": threading.Lock()}, "argument 'x' of step 'a'")


@pytest.mark.parametrize("mode", ["r", "w", "r+"])
def test_an_open_file_is_refused_as_a_value_and_in_a_function(tmp_path, mode):
    file = tmp_path / "file.txt"
    file.write_text("line\n")
    with file.open(mode) as opened:
        for dump in (dump_value, dump_result, lambda value: build_payload([lambda: value], ["a"])):
            with pytest.raises(SerializationError, match=r"cannot pickle an open file \('.*file.txt'\)"):
                dump([opened])


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr", "__stdout__"])
def test_a_stream_of_sys_goes_by_name(name, tmp_path, monkeypatch):
    with (tmp_path / "stream").open("w") as stream:
        monkeypatch.setattr(sys, name, stream)
        assert load_value(dump_value([stream])) == [stream]


def test_a_stream_that_a_worker_has_goes_by_name():
    """It is the driver's own that comes out, and that of another worker further on."""

    def step():
        return [sys.stdout, sys.stderr]

    with ParallelExecutor(1) as executor:
        assert Pipeline("p").add_step(step).run(executor=executor)["step"] == [sys.stdout, sys.stderr]


def test_a_function_that_closes_over_a_stream_of_a_worker_writes_to_the_stream_of_its_own():
    def outer():
        stream, sys.stdout = sys.stdout, io.StringIO()
        return lambda: stream is sys.stdout

    with ParallelExecutor(1) as executor:
        assert Pipeline("p").add_step(outer, "step").run(executor=executor)["step"]()


@pytest.mark.parametrize("make", ["threading.Lock()", "open(os.devnull)"])
def test_a_result_that_does_not_pickle_gets_its_own_advice(make):
    def step():
        return eval(make, {"os": os, "threading": threading})

    with ParallelExecutor(1) as executor:
        error = Pipeline("p").add_step(step).run(executor=executor).step_results["step"].exception
    assert isinstance(error, SerializationError)
    assert str(error).startswith("the result of step 'step' cannot be pickled: cannot pickle ")
    assert str(error).endswith(
        "; return plain data (no open file or connection, no lock, no iterator), or use backend='thread'"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error).count("cannot pickle ") == 1


def keep(a, b=None, *rest, c=None):
    return a


ARGUMENTS = {
    "a parameter": (lambda lock: Pipeline("p").add_step(keep, params={"a": 1, "b": [lock]}), "'b' of step 'keep'"),
    "one by keyword": (lambda lock: Pipeline("p").add_step(keep, params={"a": 1, "c": lock}), "'c' of step 'keep'"),
    "the same for all items": (
        lambda lock: Pipeline("p").map(keep, range(99), params={"b": lock}),
        "'b' of step 'keep'",
    ),
    "a context value": (lambda lock: Pipeline("p", context={"b": lock}).map(keep, range(99)), "'b' of step 'keep'"),
    "the whole context": (
        lambda lock: Pipeline("p", context={"x": lock}).add_step(lambda context: 1, "reads"),
        "'context' of step 'reads'",
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_parameter_or_context_value_is_named_before_anything_runs(name, tmp_path):
    make, words = ARGUMENTS[name]
    pipeline = make(threading.Lock()).add_step(tmp_path.joinpath("ran").touch, "first")
    with ParallelExecutor(1) as executor, pytest.raises(SerializationError) as caught:
        pipeline.run(executor=executor)
    assert str(caught.value).startswith(f"argument {words} cannot be pickled: ")
    assert "once in each worker with ParallelExecutor(initializer=...), or use backend='thread'" in str(caught.value)
    assert not tmp_path.joinpath("ran").exists()


def test_an_input_of_the_run_is_named_before_anything_runs():
    with ParallelExecutor(1) as executor, pytest.raises(SerializationError, match="argument 'a' of step 'keep'"):
        Pipeline("p").add_step(keep).run({"a": threading.Lock()}, executor=executor)


def test_an_item_that_does_not_pickle_fails_alone_and_names_the_parameter():
    with ParallelExecutor(1) as executor:
        result = Pipeline("p").map(keep, [1, threading.Lock(), 3], params={"b": [1]}).run(executor=executor)
    assert [each.success for each in result.step_results["keep"].items] == [True, False, True]
    assert str(result.failed[0].exception).startswith("argument 'a' of step 'keep' cannot be pickled: cannot pickle")


def test_an_argument_without_a_name_is_an_argument():
    with ParallelExecutor(1) as executor, pytest.raises(SerializationError, match=r"^an argument of step 'max'"):
        Pipeline("p").add_step(max, params={"x": [threading.Lock()]}).run(executor=executor)


def test_a_large_global_is_warned_of_once_and_by_name(by_hand):
    module = by_hand("made_large", "TABLE = bytes(11 * 2**20)\nSMALL = b'1'\ndef step(): return TABLE, SMALL\n")
    with pytest.warns(UserWarning, match=r"11\.0 MiB.*'TABLE' of step\(\) \(11\.0 MiB\)") as caught:
        build_payload([module.step], ["a"])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_payload([module.step], ["a"])
