"""Options of the benches, and each measurement as one test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cases import catalogue
from harness import jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    options = parser.getgroup("benches")
    options.addoption("--quick", action="store_true", help="small sizes, to see that everything works")
    options.addoption("--peers", action="store_true", help="what one could take instead, not the bars of our own")
    options.addoption("--rounds", type=int, help="how often each case is measured, instead of each group's own number")
    options.addoption("--tries", type=int, default=1, help="measure again while others use the machine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    config = metafunc.config
    options = {name: config.getoption(name) for name in ("quick", "rounds", "peers")}
    planned = list(jobs(**options))
    metafunc.parametrize("job", planned, ids=map(str, planned))


@pytest.fixture(scope="session")
def data_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Return the folder with the data of a group and size, filled once."""
    folders: dict[tuple[str, int], Path] = {}

    def folder(group: str, size: int) -> Path:
        if (group, size) not in folders:
            folders[group, size] = tmp_path_factory.mktemp(group)
            prepare = catalogue.group(group).prepare
            if prepare is not None:
                prepare(folders[group, size], size)
        return folders[group, size]

    return folder
