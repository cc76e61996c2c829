"""The examples in docstrings run, in whatever package is installed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest

import flowyml

if TYPE_CHECKING:
    from types import ModuleType

MODULES = sorted(["flowyml", *(found.name for found in pkgutil.walk_packages(flowyml.__path__, "flowyml."))])
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    """Return the docstrings of a module that hold examples; they run as if typed into a script of their own."""
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"__name__": "__main__"})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in examples_of(importlib.import_module(name)):
        runner.run(test)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"flowyml._core"}))
def test_every_module_has_a_header(name: str) -> None:
    assert importlib.import_module(name).__doc__
