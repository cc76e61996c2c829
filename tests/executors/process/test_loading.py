"""A pipeline cannot run while a worker loads."""

import threading

import pytest

from flowyml.errors import FlowymlError
from flowyml.import_guard import loading, refuse_if_loading


def test_outside_of_loading_everything_may_run():
    refuse_if_loading()
    with loading():
        pass
    refuse_if_loading()


def test_the_module_that_is_imported_is_named():
    with loading(), pytest.raises(FlowymlError, match=r"^module 'daily' runs a pipeline when it is imported; put it "):
        exec("refuse_if_loading()", {"__name__": "daily", "refuse_if_loading": refuse_if_loading})


def test_the_module_is_named_through_its_functions():
    names = {"__name__": "daily", "refuse_if_loading": refuse_if_loading}
    with loading(), pytest.raises(FlowymlError, match="module 'daily'"):
        exec("def main():\n    refuse_if_loading()\nmain()", names)


def test_without_a_module_on_the_way_nobody_is_named():
    with loading(), pytest.raises(FlowymlError, match=r"^a pipeline is run while a step loads"):
        refuse_if_loading()


def test_loading_nests_and_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), loading(), loading():
        1 / 0  # noqa: B018
    refuse_if_loading()


def test_another_thread_may_run():
    done = []

    def run():
        refuse_if_loading()
        done.append(True)

    with loading():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert done
