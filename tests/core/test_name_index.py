"""Names with their numbers: a mapping like a dict's, which only grows."""

from __future__ import annotations

import copy
import pickle
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml._extension import NameIndex


class Alike(str):
    """A text whose hash is that of many others."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 1


@given(st.lists(st.text(max_size=3)))
def test_it_tells_what_a_dict_tells(texts):
    names, numbers = NameIndex(), {}
    for text in texts:
        assert names.add(text) is (text not in numbers)
        numbers.setdefault(text, len(numbers))
    assert dict(names) == numbers
    assert (len(names), list(names), names.listed) == (len(numbers), list(numbers), list(numbers))
    assert list(names.items()) == list(numbers.items())
    assert [names[text] for text in texts] == [numbers[text] for text in texts]
    assert "four" not in names
    assert names.get("four") is None


def test_many_names_keep_their_numbers_while_it_grows():
    names = NameIndex()
    for number in range(100_000):
        assert names.add(f"step_{number}")
    assert all(names[f"step_{number}"] == number for number in range(100_000))
    assert not any(names.add(f"step_{number}") for number in range(100_000))
    assert len(names) == 100_000


def test_names_with_one_hash_are_told_apart():
    names = NameIndex(map(Alike, "abcdefghijkl"))
    assert [names[Alike(letter)] for letter in "lka"] == [11, 10, 0]
    assert names.get(Alike("m"), "none") == "none"
    assert not names.add(Alike("f"))
    assert names.add(Alike("m"))


def test_what_is_no_name_has_no_number():
    names = NameIndex(["a"])
    assert 1 not in names
    with pytest.raises(KeyError, match="'b'"):
        names["b"]
    with pytest.raises(TypeError):
        names.add(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a is there twice"):
        NameIndex("aa")


@pytest.mark.parametrize("copied", [NameIndex.copy, copy.deepcopy, lambda names: pickle.loads(pickle.dumps(names))])
def test_a_copy_grows_by_itself(copied):
    names = NameIndex(["a", "b"])
    other = copied(names)
    assert other.add("c")
    assert (list(names), list(other), other["b"]) == (["a", "b"], ["a", "b", "c"], 1)


def test_threads_that_add_at_the_same_time_agree_on_names_and_numbers():
    """Number and place of a name are one thing: without the global lock, two steps would cross."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    names, added, start = NameIndex(), [], threading.Barrier(8)

    def add(thread: int) -> None:
        start.wait()
        for k in range(4_000):
            name = f"step_{k if k % 2 else (thread, k)}"  # half of them are added by all threads
            added.append((name, names.add(name), names[name]))

    threads = [threading.Thread(target=add, args=(k,)) for k in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    listed = names.listed
    assert len(listed) == len(set(listed)) == len(names) == 8 * 2_000 + 2_000
    assert all(listed[number] == name for name, _, number in added)
    assert sum(new for _, new, _ in added) == len(names)


def test_the_names_that_are_listed_are_a_list_of_the_callers():
    names = NameIndex(["a", "b"])
    listed, iterator = names.listed, iter(names)
    listed.append("c")
    names.add("d")
    assert (names.listed, listed, list(iterator)) == (["a", "b", "d"], ["a", "b", "c"], ["a", "b"])
    assert "c" not in names
