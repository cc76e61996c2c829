"""A worker sees the driver as it is at `run()`."""

import logging
import os
import pickle
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from payload_child import Worker, run_script

from flowyml.executors.process.protocol.driver_environment import capture, start_variables


@pytest.fixture
def worker():
    with Worker() as child:
        yield child


def seen(worker, function):
    """Apply the frame of now; return what a function sees in the worker."""
    frame = capture()
    worker.ask("load", _payload(function))
    worker.ask("apply", pickle.loads(pickle.dumps(frame)))
    return worker.call(0)


def _payload(function):
    from flowyml.executors.process.protocol.function_payload import build_payload

    return build_payload([function], ["step"]).data


def test_directory_and_path(worker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    directory, path = seen(worker, lambda: (str(Path.cwd()), sys.path))
    assert directory == str(tmp_path)
    assert path == [str(tmp_path), *sys.path[1:]]


def test_the_directory_of_a_step_does_not_leak_into_the_next(worker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert seen(worker, lambda: os.chdir("/")) is None
    worker.ask("restore_cwd")
    worker.load(os.getcwd)
    assert worker.call(0) == str(tmp_path)


def test_entering_survives_a_step_that_closes_everything(worker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen(worker, lambda: os.closerange(5, 200))
    worker.ask("restore_cwd")
    worker.load(os.getcwd)
    assert worker.call(0) == str(tmp_path)


def test_a_directory_that_is_gone_is_no_error(worker, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert capture().directory is None
    assert seen(worker, lambda: 1) == 1


def test_argv(worker, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py", "--fast"])
    assert seen(worker, lambda: sys.argv) == ["script.py", "--fast"]


def test_environment_is_added_to_changed_and_removed_from(worker, monkeypatch):
    monkeypatch.setenv("ADDED", "1")
    assert seen(worker, lambda: os.environ.get("ADDED")) == "1"
    monkeypatch.setenv("ADDED", "2")
    assert seen(worker, lambda: os.environ.get("ADDED")) == "2"
    monkeypatch.delenv("ADDED")
    assert seen(worker, lambda: os.environ.get("ADDED")) is None


def test_a_variable_reaches_the_processes_that_a_step_starts(worker, monkeypatch):
    monkeypatch.setenv("ADDED", "1")
    assert seen(worker, lambda: __import__("subprocess").getoutput("echo $ADDED")) == "1"


def test_caps_and_tag_of_the_worker_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("FLOWYML_WORKER", "tag")
    with Worker() as worker:
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setenv("FLOWYML_WORKER", "other")
        sees = seen(worker, lambda: (os.environ.get("OMP_NUM_THREADS"), os.environ.get("FLOWYML_WORKER")))
        assert sees == ("1", "tag")


def test_the_time_zone_is_the_drivers(worker, monkeypatch):
    monkeypatch.setenv("TZ", "UTC-5")
    assert seen(worker, lambda: time.localtime(0).tm_hour) == 5


def filters_here():
    """Return the warning filters of this thread; free-threaded builds keep those of `catch_warnings` apart."""
    return list(getattr(warnings, "_get_filters", lambda: warnings.filters)())


def test_warning_filters(worker):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        warnings.filterwarnings("ignore", message="a.*b", module="c$")
        assert seen(worker, lambda: list(warnings.filters)) == filters_here()


def test_a_filter_that_does_not_pickle_is_left_out(worker):
    class Local(UserWarning):
        pass

    with warnings.catch_warnings():
        expected = filters_here()
        warnings.simplefilter("ignore", Local)
        assert seen(worker, lambda: list(warnings.filters)) == expected


def test_a_warning_is_an_error_in_a_worker_as_in_the_driver(worker):
    def step():
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert seen(worker, step) is None
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match="old"):
            seen(worker, step)


@pytest.fixture
def logger():
    made = logging.getLogger("frame.made")
    yield made
    made.setLevel(logging.NOTSET)
    made.disabled = False


def test_levels_of_loggers(worker, logger):
    def levels():
        return logging.root.level, logging.getLogger("frame.made").level, logging.getLogger("frame.made").disabled

    logger.setLevel(logging.DEBUG)
    logger.disabled = True
    assert seen(worker, levels) == (logging.root.level, logging.DEBUG, True)
    logger.setLevel(logging.NOTSET)
    logger.disabled = False
    assert seen(worker, levels) == (logging.root.level, logging.NOTSET, False)


def test_logging_as_a_whole_can_be_disabled(worker):
    logging.disable(logging.ERROR)
    try:
        assert seen(worker, lambda: logging.root.manager.disable) == logging.ERROR
    finally:
        logging.disable(logging.NOTSET)
    assert seen(worker, lambda: logging.root.manager.disable) == logging.NOTSET


def test_levels_that_a_module_sets_on_import_are_the_drivers_again_after_settling(worker, logger):
    logger.setLevel(logging.ERROR)
    assert seen(worker, lambda: logging.getLogger("frame.made").setLevel(1)) is None
    worker.ask("reapply_logging_config")
    worker.load(lambda: logging.getLogger("frame.made").level)
    assert worker.call(0) == logging.ERROR


def test_recursion_limit(worker):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 77)
    try:
        assert seen(worker, sys.getrecursionlimit) == before + 77
    finally:
        sys.setrecursionlimit(before)


def test_umask(worker):
    before = os.umask(0o027)
    try:
        assert capture().umask == 0o027
        assert seen(worker, lambda: os.umask(0)) == 0o027
    finally:
        os.umask(before)


def test_the_start_method_that_the_user_chose():
    run_script(
        """
        import multiprocessing
        from flowyml.executors.process.protocol.driver_environment import capture
        def step(): import multiprocessing; return multiprocessing.get_start_method()
        multiprocessing.set_start_method("spawn")
        with Worker() as w:
            w.load(step)
            w.ask("apply", capture())
            assert w.call(0) == "spawn"
            multiprocessing.set_start_method(None, force=True)
            w.ask("apply", capture())
            assert w.call(0) == "fork"
        """,
        how="c",
    )


def test_the_digest_changes_with_the_frame_and_only_then(monkeypatch):
    first = capture()
    assert capture() == first
    assert capture().digest == first.digest
    monkeypatch.setenv("ADDED", "1")
    assert capture().digest != first.digest


def test_variables_read_at_start_are_no_part_of_the_digest(monkeypatch):
    first = capture()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    second = capture()
    assert second.digest == first.digest
    assert second.start != first.start
    assert second.start["OMP_NUM_THREADS"] == "7"


def test_what_is_read_at_start():
    names = [
        "PYTHONPATH",
        "MKL_NUM_THREADS",
        "LD_PRELOAD",
        "CUDA_VISIBLE_DEVICES",
        "MALLOC_ARENA_MAX",
        "LC_ALL",
        "LANG",
    ]
    environment = dict.fromkeys([*names, "HOME", "PATH", "NUM_THREADS_MAX", "PYTEST_CURRENT_TEST"], "1")
    assert start_variables(environment) == dict.fromkeys(names, "1")


def test_capturing_from_many_threads_sees_one_umask():
    masks = []
    threads = [threading.Thread(target=lambda: masks.append(capture().umask)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(masks)) == 1
