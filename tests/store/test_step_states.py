"""What steps put aside: damaged files are named and never served, and a disk that does not take them says so."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

import pytest

from flowyml import StoreError
from flowyml.store.step_state_files import FORMAT, StepStateFiles, states_of_step

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def states(tmp_path: Path) -> StepStateFiles:
    states = states_of_step(tmp_path, "p", "train")
    states.save("model", [1, 2, 3])
    return states


def test_wherever_a_file_is_torn_it_is_never_served(states: StepStateFiles) -> None:
    path = states._path("model")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"model is damaged: its content is not what was saved"):
            states.load("model")


def test_whichever_bit_flips_it_is_never_served(states: StepStateFiles) -> None:
    path = states._path("model")
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(StoreError, match=r"is damaged|has format"):
            states.load("model")


@pytest.mark.parametrize("other", [FORMAT - 1, FORMAT + 1, 0xFFFF])
def test_a_file_of_another_format_is_named_and_left_alone(states: StepStateFiles, other: int) -> None:
    path = states._path("model")
    written = b"flowyml state\n" + other.to_bytes(2, "little") + b"whatever comes then"
    path.write_bytes(written)
    with pytest.raises(
        StoreError, match=f"model has format {other} of .* version of flowyml, .* reads format {FORMAT}: delete it"
    ):
        states.load("model")
    assert path.read_bytes() == written


def test_something_else_is_never_served(states: StepStateFiles) -> None:
    """Not even a pickle: it would be run."""
    path = states._path("model")
    path.write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(StoreError, match="is damaged"):
        states.load("model")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(states: StepStateFiles) -> None:
    os.chown(states._path("model"), 64_321, -1)
    with pytest.raises(StoreError, match="belongs to"):
        states.load("model")


def test_a_full_disk_and_one_that_cannot_be_written_to(on_disk) -> None:
    """The step hears of it, and what was saved before is still there."""
    told = on_disk(
        """
from pathlib import Path
from flowyml.store.step_state_files import states_of_step

states = states_of_step(Path(disk), "p", "train")
states.save("model", 1)
for size in (2_000_000, 5):
    try:
        states.save("model", bytes(size))
        print("saved")
    except OSError as error:
        print(error.strerror, states.load("model"), states.names())
    remount("ro")
"""
    )
    assert told == "No space left on device 1 ['model']\nRead-only file system 1 ['model']\n"
