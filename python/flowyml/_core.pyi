"""The scheduling core: what may run next, and nothing else.

This file is the reference of the boundary between Python and Rust; `mypy.stubtest` checks it against the binary.

Nodes are steps, in the order in which they were added; items are their calls (one for an ordinary step, n for a mapped
one). Both are dense ids from 0: the items of a node are neighbours, nodes follow each other, and what comes by
`Scheduler.expand` or `Scheduler.graft` follows all others. Times are finite numbers of seconds that the caller passes
in, any other is a `ValueError`; only `ThreadCallLoop.call` reads a clock.

States of an item, by number:

0 waiting, 1 ready, 2 running, 3 success, 4 cached, 5 failed, 6 timed_out, 7 skipped, 8 upstream_failed, 9 cancelled,
10 given
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, final, overload

from typing_extensions import Buffer

_T = TypeVar("_T")

__all__ = [
    "Batch",
    "ClaimWords",
    "DescriptorCheck",
    "EndTimes",
    "Graph",
    "NameIndex",
    "PrivateMap",
    "ResultReader",
    "Scheduler",
    "ThreadCallLoop",
    "WorkerCallLoop",
    "punch_hole",
    "stub",
]

def stub() -> bytes:
    """Return this file as it was when the extension was built: an extension that has another one does not fit."""

@final
class Graph:
    """A validated, immutable graph.

    Args:
        names: One entry a node. Only their number is looked at, so a million names cost nothing.
        counts: Items of each node as 32-bit unsigned integers (`array("I")`); 4294967295 for a length known only at run
            time. `None`: one each.
        dependents: For each edge the node that waits.
        dependencies: For each edge the node it waits for.
        elementwise: For each edge 1 if item i waits for item i, 0 if all items wait for the whole node. `None`: all 0.
            Nodes linked by elementwise edges have the same length; a dependent of a node of unknown length is itself
            unknown, whatever `counts` says.
        joins: For each node 1 if it runs once all it waits for is complete and any of it has a value (an empty list is
            one), 0 if it needs all. `None`: all 0.

    Raises:
        flowyml.errors.GraphError: Everything that is wrong, as tuples:
            `("range", node)` an edge names an id that no node has,
            `("self", node)` a node waits for itself,
            `("cycle", [node, ..., node])` each waits for the one before it; from the lowest id, which is repeated last,
            `("length", node, dependency)` an elementwise edge between different lengths,
            `("size",)` more than 4294967294 nodes, edges or items.
        ValueError: Arrays that belong together have different lengths.

    """

    def __new__(
        cls,
        names: Sequence[str],
        counts: Buffer | None,
        dependents: Buffer,
        dependencies: Buffer,
        elementwise: bytes | None = None,
        joins: bytes | None = None,
    ) -> Graph: ...
    @staticmethod
    def from_names(dependencies: Mapping[str, Iterable[str]] | Iterable[tuple[str, Iterable[str]]]) -> Graph:
        """Make a graph of nodes of one item from names and the names that each waits for.

        Raises:
            flowyml.errors.GraphError: As above, and first
                `("duplicate", name, first, second)` two nodes have the same name,
                `("unknown", node, name)` a node waits for a name that no node has.

        """

    @property
    def node_count(self) -> int:
        """Number of nodes."""
    @property
    def item_count(self) -> int:
        """Number of items that are known before a run."""
    @property
    def edge_count(self) -> int:
        """Number of different edges."""
    def dependencies(self, node: int) -> list[int]:
        """Return what a node waits for, in the order in which the edges were given."""
    def dependents(self, node: int) -> list[int]:
        """Return what waits for a node, in id order."""
    def first_item(self, node: int) -> int:
        """Return the first item of a node."""
    def count(self, node: int) -> int:
        """Return the number of items of a node; 4294967295 if it is known only at run time."""
    def group(self, node: int) -> list[int]:
        """Return the nodes that `Scheduler.expand(node)` gives items, in the order in which these follow each other.

        The node itself is the first; empty if its length is known or another node's.
        """
    def weight(self, node: int) -> int:
        """Return how many nodes are on the longest path from a node to a leaf, itself included."""
    def weighted(self, durations: Buffer | Sequence[float]) -> Graph:
        """Return this graph with ranks by the time from the start of a node to the end of the last leaf behind it.

        What may run does not change, nor does `weight`.

        Args:
            durations: The seconds of each node, as far as known; a list or an `array("d")`.

        Raises:
            ValueError: If there is not one for each node.
        """
    def order(self) -> array[int]:
        """Return the order in which one worker runs the nodes: by weight, then add order, dependencies first.

        As 32-bit unsigned integers (`array("I")`).
        """

@final
class NameIndex(Mapping[str, int]):
    """Names with their numbers, in the order in which they were added: a mapping that only grows.

    A million names are looked up at half the cost of a dict's, and take 24 bytes each in addition to the strings. Any
    threads may add and read at the same time.

    Args:
        names: The first names. `None`: there are none.

    Raises:
        ValueError: If one of them is there twice.
    """

    def __new__(cls, names: Iterable[str] | None = None, /) -> NameIndex: ...
    def add(self, name: str, /) -> bool:
        """Give a name the next number; return `False` if it has one, and change nothing."""
    @overload
    def get(self, name: str, default: None = None, /) -> int | None:
        """Return the number of a name, or the default."""
    @overload
    def get(self, name: str, default: _T, /) -> int | _T: ...
    def __getitem__(self, name: str, /) -> int:
        """Return the number of a name.

        Raises:
            KeyError: If it has none.
        """
    def __contains__(self, name: object, /) -> bool:
        """Tell whether a name has a number."""
    def __len__(self) -> int:
        """Return how many there are."""
    def __iter__(self) -> Iterator[str]:
        """Go through the names in order."""
    @property
    def listed(self) -> list[str]:
        """The names in order, as a new list. O(n)."""
    def copy(self) -> NameIndex:
        """Return the same, to which others may be added."""
    def __reduce__(self) -> tuple[type[NameIndex], tuple[list[str]]]: ...

@final
class Batch:
    """What one worker claimed at once. Positions count from 0 through all runs."""

    @property
    def worker(self) -> int:
        """Who claimed it."""
    @property
    def runs(self) -> list[tuple[int, int, int, int | None]]:
        """Items that stand next to each other, in the order in which they are to run: `(item, count, node, index)`.

        `count` items from `item` on. Either items of the mapped node `node`, the first of them at `index`; or `count`
        nodes of one item each from `node` on, with index `None`.
        """
    @property
    def limited(self) -> bool:
        """Whether it holds tokens of limits until nothing of it runs any more: better not claimed ahead."""
    @property
    def devices(self) -> list[int]:
        """The devices on which it has tokens, in order; see `Scheduler`."""
    @property
    def heads(self) -> int:
        """How many items could run at the same time: all that are not chained to the one before them."""
    @property
    def restless(self) -> bool:
        """Whether the end of an item before the last may let another run that is not chained to it."""
    def is_chained(self, position: int) -> bool:
        """Tell whether an item needs the value of the one before it, which is running, too."""
    def next_head(self, position: int) -> int:
        """Return the first position from this one on that is not chained; the length if there is none."""
    def head_at(self, position: int) -> int:
        """Return the last position up to this one that is not chained."""
    def item(self, position: int) -> int:
        """Return the item at a position.

        Raises:
            IndexError: There is no such position.
        """
    def __len__(self) -> int:
        """Return the number of items."""
    def items(self) -> list[int]:
        """Return all items by position."""
    def handed_on(self, references: dict[int, tuple[Any, ...]]) -> int:
        """Return how many items, from the first one on, read the item before them where they are chained to it.

        Args:
            references: What nodes read: items by their number, or other objects.
        """
    def first_read(
        self, position: int, count: int, references: dict[int, tuple[Any, ...]], values: list[Any]
    ) -> list[Any] | None:
        """Return the first value that each item reads, `...` for that of the item before it, which it is chained to.

        Args:
            position: Position of the first item.
            count: How many items.
            references: What nodes read: items by their number, or other objects.
            values: Values by item.

        Returns:
            The values, or `None` if one reads another object first, or a value that is no number, text, `bool` or
            `None`.
        """

@final
class EndTimes(Sequence[float]):
    """When steps ended, in order: a sequence of times. One thread adds, any may read meanwhile."""

    def __len__(self) -> int:
        """Return how many have ended."""
    @overload
    def __getitem__(self, index: int, /) -> float:
        """Return one end.

        Raises:
            IndexError: If it has not ended.
        """
    @overload
    def __getitem__(self, index: slice, /) -> EndTimes:
        """Return the ends of a slice as they are now."""
    def append(self, time: float) -> None:
        """Note that the next one has ended.

        Raises:
            IndexError: If all of the batch have.
            ValueError: If the time is not finite.
        """

@final
class ThreadCallLoop:
    """What one thread of this process has claimed, and the loop that calls it.

    Its own thread begins batches and takes steps; all other methods may be called from any thread.

    Args:
        target: Seconds of work that a batch should hold.
        most: The most steps of a batch.
        workers: How many turns share what is ready; 0 if there is only this one, whose batches always have `most`.
        holds: Hold values until they are reported, see `report`: the thread may be given up.

    >>> turn = ThreadCallLoop(target=0.001, most=8)
    >>> turn.limit(100), turn.left
    (8, 0)
    """

    def __new__(
        cls, *, target: float = 0.0, most: int = 1, workers: int = 0, holds: bool = False
    ) -> ThreadCallLoop: ...
    @property
    def left(self) -> int:
        """How many steps of the batch are not begun."""
    @property
    def end(self) -> int:
        """The position behind the last step that was begun or may still be."""
    @property
    def ends(self) -> EndTimes:
        """When the steps of the batch ended."""
    @property
    def start(self) -> float:
        """When the first step of the batch began."""
    def begin(self, batch: Batch, now: float, count: int | None = None) -> None:
        """Take over a batch, or the first `count` steps of it."""
    def __iter__(self) -> ThreadCallLoop:
        """Return the turn itself."""
    def __next__(self) -> int:
        """Begin the next step and return its item."""
    def limit(self, ready: int) -> int:
        """Return how many steps to claim next when so many are ready: at least 1."""
    def take_back(self, count: int) -> tuple[Batch, int, int] | None:
        """Let up to so many of the last steps not be begun; return the batch, the first of them, and how many they are.

        `None` if there was none left.
        """
    def clear(self) -> None:
        """Begin nothing any more, now or later."""
    def report(
        self, before: float = ..., most: int = ..., *, into: list[Any] | None = None
    ) -> tuple[Batch, int, float, EndTimes] | None:
        """Return what has ended and was not reported: the batch, the first position, when it began, and the ends.

        It counts as reported from now on. `None` if there is nothing, or if the last one ended after `before`.

        Args:
            before: A time.
            most: Only steps at positions below this one.
            into: The values of the run: gets those of what is reported, by item, where they are held.
        """
    def at(self) -> tuple[Batch, int, int] | None:
        """Return the batch, the position of the step that runs, and a number that no other step of this turn has.

        `None` if all steps of the batch have ended.
        """
    def running(self) -> tuple[Batch, int, int, float] | None:
        """Return the same of a step that runs or may begin at any moment, and when the one before it ended."""
    def abandon(self, number: int | None = None) -> bool:
        """Give the thread up if the step that runs has this number: nothing it does is reported any more.

        Nothing else is begun then; what is claimed and not begun is to be taken back before. Without a number the
        thread is given up whatever it does. Return whether it is given up.
        """
    def call(
        self,
        steps: tuple[list[Any], list[tuple[Any, ...]], dict[int, Any], dict[int, Any], Callable[[int], Any], bool],
        values: list[Any],
        failed: Callable[[int, int, BaseException], Any],
        refused: Callable[[int, int, Any], Any],
        now: float,
        pipeline: type,
        once: frozenset[type],
        *,
        atoms: frozenset[type] | None = None,
        stop: bool = False,
        scheduler: Scheduler | None = None,
    ) -> None:
        """Call the steps of the batch one after the other; what they return goes into `values`, by item, or is held.

        Given a scheduler it reports the batch to it and claims the next one, until nothing is ready or notes are to be
        written (see `Scheduler.note`). It leaves that to the caller, for the batch in which it happens, where a step
        raises or returns something special.

        Args:
            steps: What the plan has, by number of the step: templates, parameters, references to values, items of
                mapped steps; a function that calls the step of an item; and whether that one is to be used for all.
            values: The values of the run.
            failed: Called with the position of a step in the batch, its item and the exception that it raised; returns
                what is stored in place of the value. What it raises itself ends the call; then that step has not ended.
            refused: The same for a step whose return value is refused, which takes the place of the exception.
            now: The time now, on the clock of which all times are.
            pipeline: Values of this class and its subclasses are refused, and special.
            once: Values of exactly these types are refused, and special.
            atoms: Values of all other types are special. `None`: no others.
            stop: Begin nothing behind a step that has raised.
            scheduler: Where to report and claim.
        """

@final
class Scheduler:
    """The state machine of one run of a graph. All methods may be called from any thread.

    Args:
        graph: The graph.
        order: Which of several ready nodes runs first: the one with the longest path to a leaf, or the one added first.
        keep: One byte a node; values of nodes with a 0 are released after their last consumer. `None`: nothing is.
        limits: The number of tokens of each limit as 32-bit unsigned integers (`array("I")`): how much of something all
            running batches together may take.
        demands: For each node its class as 32-bit unsigned integers. `None`: all are of class 0.
        classes: What each class needs: `(limit, tokens)`. Class 0 is that of nodes that need nothing: `[]`.

            A batch holds items of one class. It takes what the class needs once, all or nothing, when it is claimed,
            and gives it back when nothing of it runs any more, because all was reported, retried or given back. Items
            that are ready but for tokens are `parked`; they keep their place in the order.
        divided: A limit, and how many tokens one device has: the tokens of the limit are those of devices, of which the
            last may have fewer. What a batch takes of it lies on as few devices as can be, all but one of them whole.

    Raises:
        ValueError: An unknown order, a mask of the wrong length, demands of the wrong length, a class or limit that is
            not there, a node that needs more tokens than there are, devices of a limit that is not there.

    """

    def __new__(
        cls,
        graph: Graph,
        *,
        order: Literal["critical_path", "add"] = "critical_path",
        keep: bytes | None = None,
        limits: Buffer | None = None,
        demands: Buffer | None = None,
        classes: Sequence[Sequence[tuple[int, int]]] | None = None,
        divided: tuple[int, int] | None = None,
    ) -> Scheduler: ...
    def chain(self, mask: bytes) -> None:
        """Say which nodes of the graph may be chained to one before them: one byte a node, not 0 where one may.

        Raises:
            ValueError: A mask of the wrong length.
        """
    def note(self, most: int, window: float, tiny: float) -> None:
        """Note what call loops report (see `ThreadCallLoop.call`); they then end their call to have it written.

        Args:
            most: When so many are noted.
            window: When the first was noted so many seconds ago.
            tiny: When what was reported last has taken so many seconds.
        """
    def close(self) -> None:
        """Take no more reports from turns: what their threads are still in does not change what came of the run."""
    def take_noted(self) -> list[int]:
        """Return the items that were noted, in the order in which they ended, and forget them."""
    def claim(self, worker: int, limit: int, now: float, timeout: float = 0.0, most: int = 0) -> Batch | None:
        """Take up to `limit` ready items of one class, the most urgent first.

        An item that waits for nothing but one of these may be *chained* to it (see `chain`): it is running from now
        on, too. It must begin only after the other has ended with a value. Where that ends in any other way, it is to
        be given back before that is reported.

        Args:
            worker: Who takes them, below 65536.
            limit: At least 1.
            now: The time. Retry delays that are over end first.
            timeout: How long to wait for something ready; may be infinite. The wait also ends when the run does, lets
                other threads run, and sees signals within 0.1 s. Time waited counts on from `now`.
            most: Nothing more is chained to a batch of so many items.

        Returns:
            The batch; `None` if nothing is ready (`finished` says whether anything ever will be).

        """
    def complete(
        self,
        batch: Batch,
        position: int,
        start: float,
        ends: Buffer | Sequence[float],
        outcomes: bytes | None = None,
    ) -> None:
        """Report that the items from `position` on ran one after the other.

        Args:
            batch: Where they come from.
            position: The first of them.
            start: When the first began; each other began when the one before it ended.
            ends: When each ended; a list or an `array("d")`.
            outcomes: For each its state: success, cached, failed, timed_out, skipped or cancelled. `None`: all success.

        Raises:
            ValueError: An item was reported or given back before, the batch is another scheduler's, positions past its
                end, other outcomes. Nothing has changed then.

        """
    def retry(self, batch: Batch, position: int, at: float, now: float) -> None:
        """Report that an attempt failed and the item is to be ready again at `at`.

        Raises:
            ValueError: The item is not running.

        """
    def give_back(self, batch: Batch, position: int, count: int) -> None:
        """Report that items were not begun: they are ready again, first of their node, and have spent no attempt.

        Raises:
            ValueError: One of them is not running.

        """
    def keep_tokens(self, batch: Batch) -> None:
        """Have the tokens of a batch stay out when its items have ended, until `return_tokens`.

        For what was given up but may still be running. Nothing happens for a batch that is not `limited`.

        Raises:
            ValueError: Nothing of the batch runs any more, so its tokens are back.

        """
    def return_tokens(self, batch: Batch) -> None:
        """Let tokens come back that were kept: at once, or when nothing of the batch runs any more.

        Raises:
            ValueError: The tokens of the batch are not kept.

        """
    def choose(self, choice: tuple[int, Sequence[int]] | None) -> None:
        """Have claims from now on take only some of what is ready, whoever claims.

        Args:
            choice: What needs so many tokens of the devices, on these devices; with 0 and none, what needs no device.
                `None`: anything, on any device.

        Raises:
            ValueError: A device that is not there, or twice.

        """
    def device_needs(self) -> list[tuple[int, int]]:
        """Return of what can be claimed how many tokens of the devices it needs, with the number of such items.

        Each number once, that of the most urgent item first; 0 for those that need none.
        """
    def free_on_devices(self) -> list[int]:
        """Return the tokens of each device that nobody has; none where no limit is divided."""
    def next_wakeup(self) -> float | None:
        """Return the time at which the next delay is over."""
    def advance(self, now: float) -> None:
        """Make items ready whose delay is over."""
    def cancel(self, now: float) -> None:
        """Cancel everything that is not running, `now` being its end.

        What runs ends as it is reported; what is given back or retried is cancelled then. A second call does nothing.
        """
    def cancel_node(self, node: int, now: float) -> None:
        """Cancel those items of a node that are not running, `now` being their end, as `cancel` does for all."""
    def give(self, node: int) -> None:
        """End all items of a node as given, before anything is claimed: they have values and have spent no attempt.

        Raises:
            ValueError: The node waits for others, or an item of it is claimed or has ended.

        """
    def tolerate(self, node: int, failures: int) -> None:
        """Let up to `failures` items of a node be failed, timed_out or upstream_failed: it does not fail by them.

        Dependents that wait for all of it take it for a success once it is complete, and so does `node_state`; one
        failure more, and they are upstream_failed at once. Dependents item by item still need their own element. A node
        of which no item could run (all upstream_failed) fails however much it tolerates.

        Raises:
            ValueError: The node has failed already, or has more bad items.

        """
    def next_expandable(self) -> int | None:
        """Return the next node whose dependencies are complete and whose length is due, each node once; `None`: none.

        Answer with `expand` or `refuse` before you ask again: a node of length 0 is complete at once, which may make
        the length of another node due. The queue is empty once this returns `None` after the last answer.
        """
    def expand(self, node: int, count: int, now: float) -> None:
        """Give a node its items, and as many to all nodes that depend on it item by item. 0 items: complete at once.

        If the run was cancelled meanwhile, the items are cancelled.

        Raises:
            ValueError: The node's length is not awaited.

        """
    def refuse(self, node: int, state: int, now: float) -> None:
        """End a node whose length is awaited without items, because it has no length.

        Nodes that depend on it item by item end like its other dependents. If the run was cancelled meanwhile, the node
        stays cancelled.

        Args:
            node: The node.
            state: What `node_state` is then: failed, timed_out, skipped or cancelled.
            now: The time.

        Raises:
            ValueError: The node's length is not awaited, another state.

        """
    def graft(
        self,
        batch: Batch,
        position: int,
        now: float,
        counts: Buffer,
        dependents: Buffer,
        dependencies: Buffer,
        elementwise: bytes | None = None,
        joins: bytes | None = None,
        awaited: Buffer | None = None,
        *,
        keep: bytes | None = None,
        limits: Buffer | None = None,
        demands: Buffer | None = None,
        classes: Sequence[Sequence[tuple[int, int]]] | None = None,
        divided: tuple[int, int] | None = None,
    ) -> int:
        """Add nodes for an item that runs, and let it run once more when those that it awaits are complete.

        The new nodes follow all others, from `node_count` on, and their items all other items; else they are like any
        others, and may be grafted upon in turn. The item is waiting until the awaited nodes are complete (ready at once
        if there are none), and upstream_failed if one of them fails. The run that is over is no attempt. If the run or
        the item's node was cancelled meanwhile, the new nodes are cancelled with it.

        A new node is as urgent as what waits for it was when it came; in add order it comes last.

        Args:
            batch: Where the item comes from; it is the only one of its node.
            position: Which one it is.
            now: The time.
            counts: Items of each new node, as for `Graph`. Nodes that depend item by item on a node of unknown length
                are expanded with it; if it was expanded already, they have as many items.
            dependents: For each edge the new node that waits, by its id in the whole graph.
            dependencies: For each edge the node it waits for, new or not.
            elementwise: As for `Graph`.
            joins: As for `Graph`, for the new nodes.
            awaited: The new nodes that the item awaits. `None`: none.
            keep: One byte for each new node. `None`: their values are kept. A value that was kept because nothing
                depended on it stays, whatever depends on it now.
            limits: Tokens of further limits, numbered on from those that are there.
            demands: The class of each new node. `None`: they need nothing.
            classes: What classes need, those of this graft alone, `[]` first.
            divided: As for `Scheduler`; one of the further limits.

        Returns:
            The id of the first new node.

        Raises:
            flowyml.errors.GraphError: The new nodes do not fit. `("range", node)` is also a dependent or an awaited
                node that is not new.
            ValueError: The item is not running, its node has more items, a node on which a new one depends has released
                values, demands that cannot be met, arrays of the wrong length. Nothing has changed then.

        """
    def take_released(self) -> list[int]:
        """Return the items whose values nobody needs any more, each once."""
    def wait(self, timeout: float) -> bool:
        """Wait until the run is finished, for at most `timeout` seconds (may be infinite), and say whether it is.

        Other threads run meanwhile; signals are seen within 0.1 s.
        """
    @property
    def finished(self) -> bool:
        """Whether every node is complete."""
    @property
    def stalled(self) -> bool:
        """Whether the run is not finished and nothing can change that, so that waiting for it would never end.

        Nothing is running, ready or parked, no delay is pending, and `next_expandable` would return `None`. A node that
        it returned before counts as answered.
        """
    @property
    def expandable(self) -> int:
        """Number of nodes that `next_expandable` would return now."""
    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
    @property
    def ready(self) -> int:
        """Number of items that can be claimed now: those in state ready that are not parked."""
    @property
    def parked(self) -> int:
        """Number of items that are ready but for tokens that others hold."""
    @property
    def running(self) -> int:
        """Number of running items."""
    @property
    def unfinished(self) -> int:
        """Number of items that have not ended; those of nodes of unknown length do not count yet."""
    @property
    def item_count(self) -> int:
        """Number of items, with those of expanded and new nodes."""
    @property
    def node_count(self) -> int:
        """Number of nodes, with those that `graft` added."""
    def dependencies(self, node: int) -> list[int]:
        """Return what a node waits for, with what it awaits since a graft."""
    def dependents(self, node: int) -> list[int]:
        """Return what waits for a node, in id order."""
    def group(self, node: int) -> list[int]:
        """Return the nodes that `expand(node)` gives items, as `Graph.group` does, with those that came by a graft."""
    def counts(self) -> dict[str, int]:
        """Return the number of items in each state, all states by name."""
    def state(self, item: int) -> int:
        """Return the state of an item."""
    def node_state(self, node: int) -> int:
        """Return the state of a node.

        Of a node with several items the one that tells most: running, ready or waiting, then failed, timed_out,
        upstream_failed, cancelled, skipped, success, cached, given. A node without items has a state of its own:
        success for a length of 0 (given after `give`), or what its dependencies or `refuse` made of it before its
        length was known. Failures that a node tolerates are as good as success.
        """
    def states(self) -> bytes:
        """Return the state of each item, one byte each."""
    def attempts(self) -> bytes:
        """Return how often each item was begun, one byte each, 255 for more; ends as cached or skipped do not count."""
    def workers(self) -> bytes:
        """Return who began each item last, as native `H`; meaningless where attempts is 0."""
    def starts(self) -> bytes:
        """Return when each item was claimed last, as native `d`; 0 if never."""
    def ends(self) -> bytes:
        """Return when each item ended, as native `d`; 0 if it did not run (for what `cancel` ended: when)."""
    def locate(self, item: int) -> tuple[int, int]:
        """Return the node of an item and its index there."""
    def first_item(self, node: int) -> int:
        """Return the first item of a node; meaningless while it has none."""
    def count(self, node: int) -> int:
        """Return the number of items of a node; 0 while it is not known."""

@final
class ClaimWords:
    """The claim words of worker `index` in a shared, writable buffer: which slots are posted, which begun, since when.

    The driver and the worker each have their own object over the same memory. `take` and `set_time` are the worker's
    methods, all others are the driver's; the driver's object remembers what it posted, so there must be one for a
    worker's life.
    Slots are numbered from 0 and never reused. Post first, then send the frame.

    Args:
        buffer: Writable, contiguous, aligned to 8 bytes (an `mmap`, a `bytearray`), zeroed before the first use; held
            as long as this object lives.
        index: Which `STRIDE` bytes of it.

    Raises:
        BufferError: The buffer is read-only, not contiguous or not aligned.
        IndexError: The buffer is too short.

    >>> memory = bytearray(ClaimWords.STRIDE)
    >>> driver, worker = ClaimWords(memory, 0), ClaimWords(memory, 0)
    >>> driver.post(3)
    0
    >>> worker.take(0, 12.5)
    True
    >>> driver.take_back(1)
    (2, 1)
    >>> worker.take(1, 13.0), worker.take(2, 13.5)
    (True, False)
    >>> driver.begun(), driver.last_claimed(), driver.waiting
    ((2, 2, 13.0), 1, 0)
    """

    STRIDE: int
    """Bytes for each worker."""

    def __new__(cls, buffer: Buffer, index: int) -> ClaimWords: ...
    def post(self, count: int) -> int | None:
        """Post `count` slots and return the first; `None` while slots left from before a take-back are not begun."""

    def take(self, slot: int, now: float) -> bool:
        """Begin `slot` at time `now` (seconds of a clock the driver shares); false if it was taken back: skip it."""

    def set_time(self, slot: int, now: float) -> None:
        """Set the time of `slot`, which was begun and has not ended, anew; the worker's method."""

    def take_back(self, keep: int) -> tuple[int, int]:
        """Take back all slots not begun but the next `keep`; return the first slot taken and how many (perhaps 0)."""

    @property
    def waiting(self) -> int:
        """How many slots are posted and not begun; for both sides."""

    def begun(self) -> tuple[int, int, float]:
        """Return (next, end, time): slots below next are begun, those from next to end are posted and not begun.

        The time is that of the claim of `last_claimed()`, to a fraction of a microsecond. It is `inf` while nothing was
        claimed, or where that claim is over and the next one is about to happen.
        """

    def last_claimed(self) -> int | None:
        """Return the greatest slot that was claimed: the one to blame for a death, unless its result is in."""

@final
class ResultReader:
    """What a worker's steps returned, in shared memory: the driver's view of what the worker's `WorkerCallLoop` writes.

    Args:
        buffer: `HEADER` bytes and a power of two of 8-byte words, as for `ClaimWords`.

    Raises:
        BufferError: It has another size, or cannot hold words.

    >>> memory = bytearray(ResultReader.HEADER + 1024)
    >>> caller = WorkerCallLoop(ClaimWords(bytearray(ClaimWords.STRIDE), 0), memory, abs, 0)
    >>> results = ResultReader(memory)
    >>> caller.put(0, 1.0, 1.5, 42), results.waiting
    (True, True)
    """

    HEADER: int
    """Bytes before the results."""

    def __new__(cls, buffer: Buffer) -> ResultReader: ...
    def want(self, each: bool) -> None:
        """Say that the driver is going to sleep, to be woken by each result, or when the worker has nothing to do.

        Look for results after that, and sleep only if there are none.
        """
    def awake(self) -> None:
        """Say that the driver need not be woken."""
    def committed(self) -> int:
        """Return the place behind the last result."""
    @property
    def waiting(self) -> bool:
        """Whether there are results that were not taken."""
    def drain(
        self,
        values: list[Any],
        batch: Batch,
        position: int,
        count: int,
        slot: int,
        end: int,
        committed: int,
        unpack: Callable[[bytes], _T],
    ) -> tuple[float, bytes, list[tuple[int, float, int | None]], list[tuple[int, _T]]] | None:
        """Move results of the items from `position` on into a list of values, until one is not here.

        Args:
            values: Gets the value of item k at place k; a pickle as bytes.
            batch: Whose items they are.
            position: Position of the first item.
            count: Of how many items at most.
            slot: The slot of the first item; those after it follow.
            end: The slot behind the last one that is posted.
            committed: Up to which place to look, as `committed()` has told.
            unpack: Called with the bytes that `WorkerCallLoop.put_parts` wrote; an exception means invalid bytes.

        Returns:
            `None` if there is no result, or a tuple: the start of the first item; the ends of all, as packed doubles;
            item, CPU seconds and bytes of memory (`None` if not known) of each measured item; item and return value of
            `unpack` of each that `WorkerCallLoop.put_parts` wrote, whose places in `values` stay unchanged.

        Raises:
            ValueError: If the next result is invalid, or its slot is not from `slot` to `end`.
        """

@final
class WorkerCallLoop:
    """Calls the steps of a worker process that take one argument and return something small, and knows which one runs.

    Args:
        claims: The worker's view of its claim words.
        buffer: The memory of its results; see `ResultReader`.
        probe: A built-in function of one number that makes the cheapest system call there is: a step that takes less
            time than `probe(0)` has made none, so that nothing need be mended after it.
        line: The descriptor by which the driver is woken. Once it is closed nothing is written any more.

    Attributes:
        slot: The step that runs, or ran last; `None` before the first.
        written: Whether something was written to the standard streams since a step ended.
        forked: Whether this process is one that a step has forked.

    """

    def __new__(
        cls, claims: ClaimWords, buffer: Buffer, probe: Callable[[int], object], line: int
    ) -> WorkerCallLoop: ...
    slot: int | None
    written: bool
    forked: bool
    @property
    def floor(self) -> float:
        """The shortest time in seconds that the probe took."""
    def put(
        self, slot: int, start: float, end: float, value: object, usage: tuple[float, int | None] | None = None
    ) -> bool:
        """Write a result: a number, a short text, a truth value, `None`, or the bytes of a pickle.

        With the CPU seconds and the bytes of memory that the step has used, if it was measured.

        Returns:
            Whether it was written; not if it is something else or long, there is no room, or the line is closed.

        """
    def put_parts(self, slot: int, start: float, end: float, parts: bytes) -> bool:
        """Write the values of several declared outputs, in an encoding that the `unpack` of `ResultReader.drain` reads.

        Returns:
            False if they are too long, there is no room, or the line to the driver is gone.
        """

    def must_wake(self, at_end: bool) -> bool:
        """Tell whether the driver is to be woken after a result, or where nothing is left to do: who asks does it."""
    def run(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        position: int,
        slot: int,
        files: DescriptorCheck,
        directory: int | None,
        stdout: object,
        stderr: object,
        wake: Callable[[], object],
        encode: Callable[[Any], Any] | None,
        previous: Any,
    ) -> tuple[int, int, Any, float]:
        """Claim and call one step after the other, and write their results, as long as there is nothing else to do.

        Args:
            function: What is called.
            arguments: One for each step; `...` stands for the value of the step before.
            position: Position of the first step.
            slot: Its slot; those after it follow.
            files: What the standard descriptors ought to be.
            directory: The descriptor of the directory that steps run in, to go back to; `None` if it may be any.
            stdout: What `sys.stdout` ought to be,
            stderr: and `sys.stderr`.
            wake: Wakes the driver.
            encode: Makes a pickle of what is neither a number or the like nor a small container of such, or whatever is
                to be sent in its place; without it only numbers and the like are written.
            previous: The value of the step before the first, or its pickle; `...` if there is none.

        Returns:
            The position of a step that has to be seen to, with what came of it: 0 for returned, 1 for raised, 2 for not
            called because there is no value before it, 4 for returned and encoded; what it returned or raised, or what
            it was encoded to; and when it began. Where the loop has called all it can: the position of the next step,
            which is the number of steps or needs a value that is to be loaded, 3, and the value of the last one or its
            pickle, `...` if it has none.

        """

@final
class DescriptorCheck:
    """Descriptors, and which files they are now: a cheap way to ask later whether they still are.

    Args:
        descriptors: Their numbers; one that is closed counts as unchanged while it stays so.

    >>> import os
    >>> end, other = os.pipe()
    >>> files = DescriptorCheck([end])
    >>> files.unchanged()
    True
    >>> os.close(end)
    >>> files.unchanged()
    False
    >>> os.close(other)
    """

    def __new__(cls, descriptors: Sequence[int]) -> DescriptorCheck: ...
    def unchanged(self) -> bool:
        """Tell whether each descriptor is the file that it was when this was made."""

@final
class PrivateMap:
    """A part of a file as memory of one's own: what is written there changes neither the file nor what others see.

    A buffer, readable and writable; a view of it keeps it alive. It needs no descriptor once it is made.

    Args:
        fd: An open file that can be read.
        offset: Where the part begins; a multiple of the size of a page.
        length: Its bytes.
        owner: An object that lives as long as the map.

    Raises:
        OSError: It cannot be mapped.
        ValueError: The length is 0, or the part reaches beyond the last page of the file.

    """

    def __new__(cls, fd: int, offset: int, length: int, owner: object = None) -> PrivateMap: ...
    def __len__(self) -> int:
        """Return how many bytes there are."""

def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give the memory or the disk space of a part of a file back; the file reads as zeros there.

    Raises:
        OSError: The file system cannot.

    """
