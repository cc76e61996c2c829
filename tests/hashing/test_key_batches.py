"""Keys in batches and keys one by one are the same keys: the fast paths against the plain one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from pipelines import planned

from flowyml import Pipeline, get_context
from flowyml.caching.journal_keys import JournalKeys
from flowyml.caching.keys import CacheKeys, CallHasher
from flowyml.caching.step_cache import ValueHashes
from flowyml.hashing.code_graph import CodeGraph
from flowyml.hashing.content import content, contents_of_atoms
from flowyml.runtime.run import Run
from flowyml.steps.cache_policy import CODE

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.hashing.content import UnhashableError


class Point:
    """A class of the user's among the values."""

    def __init__(self, x: object) -> None:
        self.x = x


def plain(x: object) -> object:
    return x


def two(x: object, y: object = 0) -> object:
    return x, y


def asking(x: object) -> object:
    return get_context().index


def joining(*rest: object) -> object:
    return rest


FUNCTIONS: list[Callable[..., Any]] = [plain, two, asking, lambda x: x]
atoms = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
values = st.one_of(
    atoms,
    st.binary(),
    st.lists(atoms, max_size=3),
    st.dictionaries(st.text(max_size=3), atoms, max_size=3),
    st.builds(Point, atoms),
    st.sampled_from([Point, plain, len, {1, 2}]),
)
items = st.one_of(st.lists(atoms, min_size=1, max_size=6), st.lists(values, min_size=1, max_size=6))


@st.composite
def runs(draw: Any) -> Callable[[], Run]:
    """Draw a pipeline of steps that were added alike, chains, maps, and steps that read them; all have run."""
    pipeline = Pipeline("drawn")
    function = draw(st.sampled_from(FUNCTIONS))
    many = draw(items)
    for k, value in enumerate(many):
        pipeline.add_step(function, f"first {k}", {"x": value}, outputs=draw(st.sampled_from([None, [f"first {k}"]])))
    chained = draw(st.sampled_from(FUNCTIONS[:2]))
    before = "first 0"
    for k in range(draw(st.integers(0, 4))):
        pipeline.add_step(chained, f"chain {k}", inputs=[before])
        before = f"chain {k}"
    pipeline.map(draw(st.sampled_from(FUNCTIONS[:3])), draw(items), name="mapped")
    pipeline.map(plain, over="mapped", name="again")
    pipeline.add_step(plain, "reads", inputs=["again"]).add_step(joining, "joins", inputs=["first 0", before])
    plan = planned(pipeline)
    seed = draw(st.sampled_from([None, 7]))

    def made() -> Run:
        run = Run(plan, seed=seed)
        for item in range(run.item_index.item_count):
            run.values.raw[item] = many[item % len(many)]
        return run

    return made


def refuse(node: int, error: UnhashableError) -> None:
    raise AssertionError(f"{node}: {error}")


@given(st.lists(atoms))
def test_contents_of_atoms_are_those_of_each(drawn):
    assert contents_of_atoms(drawn) == [content(value) for value in drawn]


@given(st.lists(values))
def test_other_values_have_no_contents_at_once(drawn):
    found = contents_of_atoms(drawn)
    assert found is None or found == [content(value) for value in drawn]


@given(runs(), st.randoms(use_true_random=False))
def test_keys_of_the_journal(made, random):
    one_by_one, at_once = JournalKeys(made(), refuse), JournalKeys(made(), refuse)
    run = made()
    order = list(range(run.item_index.item_count))
    expected = {item: one_by_one._one_by_one([item]) for item in order}
    start = 0
    while start < len(order):  # as many at once as may be ready, the items of a mapped step in any order
        count = random.randint(1, 8)
        batch = order[start : start + count]
        start += count
        for stretch in at_once.groups(batch):
            mixed = list(stretch)
            if run.item_index.is_mapped(run.node_of[mixed[0]]):
                random.shuffle(mixed)
            keys, contents = at_once.with_contents(mixed)
            assert [([key], [each]) for key, each in zip(keys, contents, strict=True)] == [expected[k] for k in mixed]
    assert [at_once.key(item) for item in order] == [expected[item][0][0] for item in order]


@given(runs())
def test_arguments_of_steps_that_were_added_alike(made):
    run = made()
    calls = CallHasher(run, ValueHashes(run), CodeGraph())
    for stretch in JournalKeys(run, refuse).groups(range(run.item_index.item_count)):
        at_once = calls.joined_batch(stretch)
        assert at_once is None or at_once == [calls.joined(item) for item in stretch]


@given(runs())
def test_keys_of_the_cache_do_not_depend_on_those_made_before(made):
    run, other = made(), made()
    keys, backwards = (CacheKeys(each, ValueHashes(each), {}) for each in (run, other))
    order = range(run.item_index.item_count)
    found = {item: backwards.key(item, CODE) for item in reversed(order)}
    assert [keys.key(item, CODE) for item in order] == [found[item] for item in order]
