"""The scheduling core: it decides which items may run next, and does nothing else.

This file is the reference of the boundary between Python and Rust; `mypy.stubtest` checks it against the binary.

Nodes are steps, in the order in which they were added; items are their calls (one for an ordinary step, n for a mapped
one). Both are dense ids from 0: the items of a node are contiguous, nodes follow each other, and nodes or items that
`Scheduler.expand` or `Scheduler.graft` adds follow all others. Times are finite numbers of seconds that the caller
passes in, any other is a `ValueError`; only `ThreadCallLoop.call` reads a clock.

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
    """Return this file as of the build of the extension: an extension with another stub does not match the package."""

@final
class Graph:
    """A validated, immutable graph.

    Args:
        names: One entry for each node. Only their number is read, so a million names cost nothing.
        counts: Items of each node as 32-bit unsigned integers (`array("I")`); 4294967295 for a length known only at run
            time. `None`: one each.
        dependents: For each edge the dependent.
        dependencies: For each edge the dependency.
        elementwise: For each edge 1 if item i waits for item i, 0 if all items wait for the whole node. `None`: all 0.
            Nodes linked by elementwise edges have the same length; a dependent of a node of unknown length is itself
            unknown, whatever `counts` contains.
        joins: For each node 1 if it runs once all its dependencies are complete and any of them has a value (an empty
            list is one), 0 if it needs all. `None`: all 0.

    Raises:
        flowyml.errors.GraphError: All problems, as tuples:
            `("range", node)` an edge names an id that no node has,
            `("self", node)` a node depends on itself,
            `("cycle", [node, ..., node])` each depends on the one before it; the lowest id is first and repeated last,
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
        """Build a graph of nodes of one item from names and the names of their dependencies.

        Raises:
            flowyml.errors.GraphError: As above, and first
                `("duplicate", name, first, second)` two nodes have the same name,
                `("unknown", node, name)` a node depends on a name that no node has.

        """

    @property
    def node_count(self) -> int:
        """Number of nodes."""
    @property
    def item_count(self) -> int:
        """Number of items that are known before a run."""
    @property
    def edge_count(self) -> int:
        """Number of distinct edges."""
    def dependencies(self, node: int) -> list[int]:
        """Return the dependencies of a node, in the order in which the edges were given."""
    def dependents(self, node: int) -> list[int]:
        """Return what waits for a node, in id order."""
    def first_item(self, node: int) -> int:
        """Return the first item of a node."""
    def count(self, node: int) -> int:
        """Return the number of items of a node; 4294967295 if it is known only at run time."""
    def group(self, node: int) -> list[int]:
        """Return the nodes that `Scheduler.expand(node)` gives items, in the order in which these follow each other.

        The node itself is the first; empty if its length is known or taken from another node.
        """
    def weight(self, node: int) -> int:
        """Return the number of nodes on the longest path from a node to a leaf, itself included."""
    def weighted(self, durations: Buffer | Sequence[float]) -> Graph:
        """Return this graph with ranks by the time from a node's start to the end of the last leaf that depends on it.

        The set of nodes that may run does not change, nor does `weight`.

        Args:
            durations: The seconds of each node, as far as known; a list or an `array("d")`.

        Raises:
            ValueError: If the number of durations differs from the number of nodes.
        """
    def order(self) -> array[int]:
        """Return the order in which one worker runs the nodes: by weight, then add order, dependencies first.

        As 32-bit unsigned integers (`array("I")`).
        """

@final
class NameIndex(Mapping[str, int]):
    """Names with their ids, in the order in which they were added: a mapping that only grows.

    A million names are looked up at half the cost of a dict's, and take 24 bytes each in addition to the strings. Any
    threads may add and read at the same time.

    Args:
        names: The first names. `None`: there are none.

    Raises:
        ValueError: If one of them occurs twice.
    """

    def __new__(cls, names: Iterable[str] | None = None, /) -> NameIndex: ...
    def add(self, name: str, /) -> bool:
        """Assign the next id to a name; return `False`, and change nothing, if it already has one."""
    @overload
    def get(self, name: str, default: None = None, /) -> int | None:
        """Return the id of a name, or the default."""
    @overload
    def get(self, name: str, default: _T, /) -> int | _T: ...
    def __getitem__(self, name: str, /) -> int:
        """Return the id of a name.

        Raises:
            KeyError: If it has none.
        """
    def __contains__(self, name: object, /) -> bool:
        """Return `True` if a name has an id."""
    def __len__(self) -> int:
        """Return the number of names."""
    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in order."""
    @property
    def listed(self) -> list[str]:
        """The names in order, as a new list. O(n)."""
    def copy(self) -> NameIndex:
        """Return a copy, to which other names may be added."""
    def __reduce__(self) -> tuple[type[NameIndex], tuple[list[str]]]: ...

@final
class Batch:
    """The items that one worker claimed at once. Positions count from 0 through all runs."""

    @property
    def worker(self) -> int:
        """The worker that claimed it."""
    @property
    def runs(self) -> list[tuple[int, int, int, int | None]]:
        """Runs of contiguous items, in the order in which they are to run: `(item, count, node, index)`.

        `count` items from `item` on. Either items of the mapped node `node`, the first of them at `index`; or `count`
        nodes of one item each from `node` on, with index `None`.
        """
    @property
    def limited(self) -> bool:
        """Whether it holds tokens of limits until none of its items runs: better not claimed ahead."""
    @property
    def devices(self) -> list[int]:
        """The devices on which it holds tokens, in order; see `Scheduler`."""
    @property
    def heads(self) -> int:
        """How many items could run at the same time: all that are not chained to the one before them."""
    @property
    def restless(self) -> bool:
        """Whether the end of an item before the last may make an item ready that is not chained to it."""
    def is_chained(self, position: int) -> bool:
        """Return `True` if an item needs the value of the one before it, which is also running."""
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
        """Return the number of leading items of which each chained one reads the item before it.

        Args:
            references: The reads of each node: items by their id, or other objects.
        """
    def first_read(
        self, position: int, count: int, references: dict[int, tuple[Any, ...]], values: list[Any]
    ) -> list[Any] | None:
        """Return the first value that each item reads, `...` for that of the item before it, to which it is chained.

        Args:
            position: Position of the first item.
            count: How many items.
            references: The reads of each node: items by their id, or other objects.
            values: Values by item.

        Returns:
            The values, or `None` if one reads another object first, or a value that is not a number, string, `bool`
            or `None`.
        """

@final
class EndTimes(Sequence[float]):
    """When steps ended, in order: a sequence of times. One thread adds, any may read concurrently."""

    def __len__(self) -> int:
        """Return how many steps have ended."""
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
        """Record that the next step has ended.

        Raises:
            IndexError: If all steps of the batch have ended.
            ValueError: If the time is not finite.
        """

@final
class ThreadCallLoop:
    """The batch that one thread of this process has claimed, and the loop that calls its steps.

    Its own thread begins batches and takes steps; all other methods may be called from any thread.

    Args:
        target: Seconds of work that a batch should hold.
        most: The maximum number of steps in a batch.
        workers: How many loops share the ready steps; 0 if there is only this one, whose batches always have `most`.
        holds: Hold values until they are reported, see `report`: the thread may be abandoned.

    >>> loop = ThreadCallLoop(target=0.001, most=8)
    >>> loop.limit(100), loop.left
    (8, 0)
    """

    def __new__(
        cls, *, target: float = 0.0, most: int = 1, workers: int = 0, holds: bool = False
    ) -> ThreadCallLoop: ...
    @property
    def left(self) -> int:
        """How many steps of the batch have not begun."""
    @property
    def end(self) -> int:
        """The position after the last step that has begun or may still begin."""
    @property
    def ends(self) -> EndTimes:
        """When the steps of the batch ended."""
    @property
    def start(self) -> float:
        """When the first step of the batch began."""
    def begin(self, batch: Batch, now: float, count: int | None = None) -> None:
        """Take over a batch, or the first `count` steps of it."""
    def __iter__(self) -> ThreadCallLoop:
        """Return the loop itself."""
    def __next__(self) -> int:
        """Begin the next step and return its item."""
    def limit(self, ready: int) -> int:
        """Return how many steps to claim next if this number is ready: at least 1."""
    def take_back(self, count: int) -> tuple[Batch, int, int] | None:
        """Take back up to `count` of the last steps that have not begun; return the batch, the first one, their number.

        `None` if there are none left.
        """
    def clear(self) -> None:
        """Begin no further step, now or later."""
    def report(
        self, before: float = ..., most: int = ..., *, into: list[Any] | None = None
    ) -> tuple[Batch, int, float, EndTimes] | None:
        """Return the steps that have ended and were not reported: batch, first position, its start, and the ends.

        They count as reported from now on. `None` if there are none, or if the last one ended after `before`.

        Args:
            before: A time.
            most: Only steps at positions below this one.
            into: The values of the run: receives those of the reported steps, by item, if they are held.
        """
    def at(self) -> tuple[Batch, int, int] | None:
        """Return the batch, the position of the running step, and an id that no other step of this loop has.

        `None` if all steps of the batch have ended.
        """
    def running(self) -> tuple[Batch, int, int, float] | None:
        """Return the same for a step that runs or may begin at any moment, and when the one before it ended."""
    def abandon(self, number: int | None = None) -> bool:
        """Abandon the thread if the running step has this id: it reports no more results and begins no further step.

        First take back the steps that are claimed and have not begun. Without an id the thread is abandoned in any
        case. Return `True` if it is abandoned.
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
        """Call the steps of the batch one after the other; return values are stored in `values`, by item, or held.

        If a scheduler is given, the loop reports the batch to it and claims the next one, until nothing is ready or
        logged items are to be written (see `Scheduler.note`). If a step raises or returns something special, the caller
        must report that batch.

        Args:
            steps: The plan, by id of the step: templates, parameters, references to values, items of mapped steps; a
                function that calls the step of an item; and whether that function must be used for all steps.
            values: The values of the run.
            failed: Called with the position of a step in the batch, its item and the exception that it raised; returns
                the object to store instead of the value. If it raises, the call ends and that step has not ended.
            refused: The same for a step whose return value is refused, which takes the place of the exception.
            now: The time now, on the clock of which all times are.
            pipeline: Values of this class and its subclasses are refused, and special.
            once: Values of exactly these types are refused, and special.
            atoms: Values of all other types are special. `None`: no others.
            stop: Begin no further step after one that has raised.
            scheduler: The scheduler to report to and claim from.
        """

@final
class Scheduler:
    """The state machine of one run of a graph. All methods may be called from any thread.

    Args:
        graph: The graph.
        order: Which of several ready nodes runs first: the one with the longest path to a leaf, or the one added first.
        keep: One byte for each node; values of nodes with a 0 are released after their last consumer. `None`: none are.
        limits: The number of tokens of each limit as 32-bit unsigned integers (`array("I")`), which all running batches
            share.
        demands: For each node its class as 32-bit unsigned integers. `None`: all are of class 0.
        classes: The needs of each class: `(limit, tokens)`. Class 0 is that of nodes that need nothing: `[]`.

            A batch holds items of one class. It takes the tokens of the class once, all or none, when it is claimed,
            and returns them when none of its items runs any more, because all were reported, retried or given back.
            Ready items that lack tokens are `parked`; they keep their position in the order.
        divided: A limit, and the number of tokens of one device: the tokens of the limit belong to devices, of which
            the last may have fewer. A batch takes them on as few devices as possible, all but one of them whole.

    Raises:
        ValueError: An unknown order, a mask or demands of the wrong length, a class or limit that does not exist, a
            node that needs more tokens than the limit has, devices of a limit that does not exist.

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
        """Set which nodes of the graph may be chained to one before them: one byte for each node, 0 if it may not.

        Raises:
            ValueError: A mask of the wrong length.
        """
    def note(self, most: int, window: float, tiny: float) -> None:
        """Log the items that call loops report (see `ThreadCallLoop.call`); a loop returns when they are to be written.

        Args:
            most: The number of logged items at which they are written.
            window: Seconds after the first logged item at which they are written.
            tiny: Seconds that the last report took at which they are written.
        """
    def close(self) -> None:
        """Accept no more reports from call loops: steps that still run do not change the outcome of the run."""
    def take_noted(self) -> list[int]:
        """Return the logged items, in the order in which they ended, and clear the log."""
    def claim(self, worker: int, limit: int, now: float, timeout: float = 0.0, most: int = 0) -> Batch | None:
        """Take up to `limit` ready items of one class, the most urgent first.

        An item whose only incomplete dependency is one of these may be *chained* to it (see `chain`): it is also
        running from now on. It must begin only after the other has ended with a value. If that ends in any other way,
        give the chained item back before you report that end.

        Args:
            worker: The worker that takes them, below 65536.
            limit: At least 1.
            now: The time. Retry delays that are over end first.
            timeout: How long to wait for a ready item; may be infinite. The wait also ends when the run does, lets
                other threads run, and handles signals within 0.1 s. The time waited is added to `now`.
            most: The number of items in a batch to which nothing more is chained.

        Returns:
            The batch; `None` if nothing is ready (if `finished` is true, nothing ever will be).

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
            batch: Their batch.
            position: The position of the first item.
            start: When the first began; each other began when the one before it ended.
            ends: When each ended; a list or an `array("d")`.
            outcomes: For each its state: success, cached, failed, timed_out, skipped or cancelled. `None`: all success.

        Raises:
            ValueError: An item was reported or given back before, the batch is another scheduler's, positions past its
                end, other outcomes. The scheduler is unchanged then.

        """
    def retry(self, batch: Batch, position: int, at: float, now: float) -> None:
        """Report that an attempt failed and the item is to be ready again at `at`.

        Raises:
            ValueError: The item is not running.

        """
    def give_back(self, batch: Batch, position: int, count: int) -> None:
        """Report that items have not begun: they are ready again, first of their node, and have used no attempt.

        Raises:
            ValueError: One of them is not running.

        """
    def keep_tokens(self, batch: Batch) -> None:
        """Keep the tokens of a batch out after its items have ended, until `return_tokens`.

        For steps that were abandoned but may still be running. Does nothing for a batch that is not `limited`.

        Raises:
            ValueError: No item of the batch runs any more, so its tokens are back.

        """
    def return_tokens(self, batch: Batch) -> None:
        """Return the kept tokens of a batch: at once, or when none of its items runs any more.

        Raises:
            ValueError: The tokens of the batch are not kept.

        """
    def choose(self, choice: tuple[int, Sequence[int]] | None) -> None:
        """Restrict all claims from now on to some of the ready items.

        Args:
            choice: Items that need this number of tokens of the devices, on these devices; with 0 and no devices, items
                that need no device. `None`: any item, on any device.

        Raises:
            ValueError: A device that does not exist, or occurs twice.

        """
    def device_needs(self) -> list[tuple[int, int]]:
        """Return the numbers of device tokens that claimable items need, each with the number of such items.

        Each number occurs once, that of the most urgent item first; 0 for items that need none.
        """
    def free_on_devices(self) -> list[int]:
        """Return the free tokens of each device; an empty list if no limit is divided."""
    def next_wakeup(self) -> float | None:
        """Return the time at which the next delay is over."""
    def advance(self, now: float) -> None:
        """Make items ready whose delay is over."""
    def cancel(self, now: float) -> None:
        """Cancel everything that is not running, `now` being its end.

        Running items end as reported; those that are given back or retried are cancelled then. A second call does
        nothing.
        """
    def cancel_node(self, node: int, now: float) -> None:
        """Cancel those items of a node that are not running, `now` being their end, as `cancel` does for all."""
    def give(self, node: int) -> None:
        """End all items of a node as given, before anything is claimed: they have values and have used no attempt.

        Raises:
            ValueError: The node has dependencies, or an item of it is claimed or has ended.

        """
    def tolerate(self, node: int, failures: int) -> None:
        """Let up to `failures` items of a node be failed, timed_out or upstream_failed without failing the node.

        Dependents that wait for all of it treat it as a success once it is complete, and so does `node_state`; with one
        more failure they are upstream_failed at once. Elementwise dependents still need their own element. A node
        of which no item could run (all upstream_failed) fails however much it tolerates.

        Raises:
            ValueError: The node has failed already, or has more bad items.

        """
    def next_expandable(self) -> int | None:
        """Return the next node whose dependencies are complete and whose length is due, each node once; `None`: none.

        Answer with `expand` or `refuse` before the next call: a node of length 0 is complete at once, which may make
        the length of another node due. The queue is empty once this returns `None` after the last answer.
        """
    def expand(self, node: int, count: int, now: float) -> None:
        """Give every node of a group (see `group`) this number of items. 0 items: complete at once.

        If the run was cancelled meanwhile, the items are cancelled.

        Raises:
            ValueError: The node's length is not awaited.

        """
    def refuse(self, node: int, state: int, now: float) -> None:
        """End a node whose length is awaited without items, because it has no length.

        Its elementwise dependents end like its other dependents. If the run was cancelled meanwhile, the node
        stays cancelled.

        Args:
            node: The node.
            state: The resulting `node_state`: failed, timed_out, skipped or cancelled.
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
        """Add nodes for a running item, and let it run once more when the nodes that it awaits are complete.

        The new nodes follow all others, from `node_count` on, and their items all other items; otherwise they are like
        any others, and may themselves be grafted onto. The item is waiting until the awaited nodes are complete (ready
        at once if there are none), and upstream_failed if one of them fails. The run before the graft is not an
        attempt. If the run or the item's node was cancelled meanwhile, the new nodes are cancelled with it.

        A new node is as urgent as its dependents were when it was added; in add order it comes last.

        Args:
            batch: The batch of the item, which is the only one of its node.
            position: The position of the item.
            now: The time.
            counts: Items of each new node, as for `Graph`. Nodes that depend item by item on a node of unknown length
                are expanded with it; if it was expanded already, they have as many items.
            dependents: For each edge the new node that waits, by its id in the whole graph.
            dependencies: For each edge the dependency, new or not.
            elementwise: As for `Graph`.
            joins: As for `Graph`, for the new nodes.
            awaited: The new nodes that the item awaits. `None`: none.
            keep: One byte for each new node. `None`: their values are kept. A value that was kept because it had no
                dependents stays, even if it has dependents now.
            limits: Tokens of further limits, whose ids follow those of the existing ones.
            demands: The class of each new node. `None`: they need nothing.
            classes: The needs of the classes of this graft alone, `[]` first.
            divided: As for `Scheduler`; one of the further limits.

        Returns:
            The id of the first new node.

        Raises:
            flowyml.errors.GraphError: The new nodes are invalid. `("range", node)` is also a dependent or an awaited
                node that is not new.
            ValueError: The item is not running, its node has more items, a node on which a new one depends has released
                values, demands that cannot be met, arrays of the wrong length. The scheduler is unchanged then.

        """
    def take_released(self) -> list[int]:
        """Return the items whose values are no longer needed, each once."""
    def wait(self, timeout: float) -> bool:
        """Wait until the run is finished, for at most `timeout` seconds (may be infinite); return `True` if it is.

        Other threads run meanwhile; signals are handled within 0.1 s.
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
        """Number of items that are ready but lack tokens, because other batches hold them."""
    @property
    def running(self) -> int:
        """Number of running items."""
    @property
    def unfinished(self) -> int:
        """Number of items that have not ended; those of nodes of unknown length do not count yet."""
    @property
    def item_count(self) -> int:
        """Number of items, including those of expanded and new nodes."""
    @property
    def node_count(self) -> int:
        """Number of nodes, including those that `graft` added."""
    def dependencies(self, node: int) -> list[int]:
        """Return the dependencies of a node, including those that it awaits since a graft."""
    def dependents(self, node: int) -> list[int]:
        """Return what waits for a node, in id order."""
    def group(self, node: int) -> list[int]:
        """Return the nodes that `expand(node)` gives items, as `Graph.group` does, including grafted nodes."""
    def counts(self) -> dict[str, int]:
        """Return the number of items in each state, all states by name."""
    def state(self, item: int) -> int:
        """Return the state of an item."""
    def node_state(self, node: int) -> int:
        """Return the state of a node.

        For a node with several items it is the most significant one: running, ready or waiting, then failed, timed_out,
        upstream_failed, cancelled, skipped, success, cached, given. A node without items has a state of its own:
        success for a length of 0 (given after `give`), or the state set by its dependencies or `refuse` before its
        length was known. Failures that a node tolerates count as success.
        """
    def states(self) -> bytes:
        """Return the state of each item, one byte each."""
    def attempts(self) -> bytes:
        """Return how often each item has begun, one byte each, 255 for more; ends as cached or skipped do not count."""
    def workers(self) -> bytes:
        """Return the worker that last began each item, as native `H`; meaningless if attempts is 0."""
    def starts(self) -> bytes:
        """Return when each item was claimed last, as native `d`; 0 if never."""
    def ends(self) -> bytes:
        """Return when each item ended, as native `d`; 0 if it did not run (for cancelled items: when)."""
    def locate(self, item: int) -> tuple[int, int]:
        """Return the node of an item and its index there."""
    def first_item(self, node: int) -> int:
        """Return the first item of a node; meaningless while it has none."""
    def count(self, node: int) -> int:
        """Return the number of items of a node; 0 while it is not known."""

@final
class ClaimWords:
    """The claim words of worker `index` in a shared, writable buffer: which slots are posted and which have begun.

    The driver and the worker each have their own object over the same memory. `take` and `set_time` are the worker's
    methods, all others are the driver's; the driver's object remembers the posted slots, so there must be one for a
    worker's life.
    Slots are numbered from 0 and never reused. Post first, then send the message.

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
        """Post `count` slots and return the first; `None` while slots left from before a take-back have not begun."""

    def take(self, slot: int, now: float) -> bool:
        """Begin `slot` at time `now` (seconds of a clock the driver shares); false if it was taken back: skip it."""

    def set_time(self, slot: int, now: float) -> None:
        """Reset the time of `slot`, which has begun and not ended; the worker's method."""

    def take_back(self, keep: int) -> tuple[int, int]:
        """Take back all slots that have not begun except the next `keep`; return the first one and the number."""

    @property
    def waiting(self) -> int:
        """How many slots are posted and have not begun; for both sides."""

    def begun(self) -> tuple[int, int, float]:
        """Return (next, end, time): slots below next have begun, those from next to end are posted and have not.

        The time is that of the claim of `last_claimed()`, to a fraction of a microsecond. It is `inf` while nothing was
        claimed, or if that claim is over and the next one is about to happen.
        """

    def last_claimed(self) -> int | None:
        """Return the greatest slot that was claimed: the one to blame for a crash, unless its result has arrived."""

@final
class ResultReader:
    """The driver's view of the results that a worker's `WorkerCallLoop` writes to shared memory.

    Args:
        buffer: `HEADER` bytes and a power of two of 8-byte words, as for `ClaimWords`.

    Raises:
        BufferError: Its size is different, or it cannot hold words.

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
        """Announce that the driver is going to sleep, to be woken by each result, or when the worker has no work left.

        Check for results after that, and sleep only if there are none.
        """
    def awake(self) -> None:
        """Announce that the driver need not be woken."""
    def committed(self) -> int:
        """Return the position after the last result."""
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
        """Move results of the items from `position` on into a list of values, until one is missing.

        Args:
            values: Receives the value of item k at index k; a pickle as bytes.
            batch: The batch of the items.
            position: Position of the first item.
            count: The maximum number of items.
            slot: The slot of the first item; those after it follow.
            end: The slot after the last posted one.
            committed: The position up to which to read, as returned by `committed()`.
            unpack: Called with the bytes that `WorkerCallLoop.put_parts` wrote; an exception means invalid bytes.

        Returns:
            `None` if there is no result, or a tuple: the start of the first item; the ends of all, as packed doubles;
            item, CPU seconds and bytes of memory (`None` if not known) of each measured item; item and return value of
            `unpack` of each that `WorkerCallLoop.put_parts` wrote, whose entries in `values` stay unchanged.

        Raises:
            ValueError: If the next result is invalid, or its slot is not from `slot` to `end`.
        """

@final
class WorkerCallLoop:
    """Calls the steps of a worker process that take one argument and return a small value, and knows which one runs.

    Args:
        claims: The worker's view of its claim words.
        buffer: The memory of its results; see `ResultReader`.
        probe: A built-in function of one integer that makes the cheapest system call: a step that takes less time than
            `probe(0)` has made none, so that nothing must be restored after it.
        line: The descriptor that wakes the driver. Once it is closed nothing is written any more.

    Attributes:
        slot: The step that runs, or ran last; `None` before the first.
        written: Whether output was written to the standard streams since a step ended.
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
        """Write a result: a number, a short string, a `bool`, `None`, or the bytes of a pickle.

        With the CPU seconds and the bytes of memory that the step has used, if it was measured.

        Returns:
            `False` if the value is of another type or too long, there is no room, or the line is closed.

        """
    def put_parts(self, slot: int, start: float, end: float, parts: bytes) -> bool:
        """Write the values of several declared outputs, in an encoding that the `unpack` of `ResultReader.drain` reads.

        Returns:
            `False` if they are too long, there is no room, or the line to the driver is closed.
        """

    def must_wake(self, at_end: bool) -> bool:
        """Return `True` if the caller must now wake the driver: after a result, or when no work is left."""
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
        """Claim and call one step after the other, and write their results, until one needs other treatment.

        Args:
            function: The function of the steps.
            arguments: One for each step; `...` stands for the value of the step before.
            position: Position of the first step.
            slot: Its slot; those after it follow.
            files: The expected files of the standard descriptors.
            directory: The descriptor of the directory to restore after each step; `None` if it may be any.
            stdout: The expected `sys.stdout`.
            stderr: The expected `sys.stderr`.
            wake: Wakes the driver.
            encode: Pickles a value that is neither an atom nor a small container of atoms, or returns the object to
                send instead; without it only atoms (as in `put`) are written.
            previous: The value of the step before the first, or its pickle; `...` if there is none.

        Returns:
            The position of a step that the caller must handle; its outcome: 0 for returned, 1 for raised, 2 for not
            called because there is no value before it, 4 for returned and encoded; its return value, exception or
            encoding; and its start. If the loop has called all steps that it can: the position of the next step (the
            number of steps, or one that needs a value to be loaded), 3, and the value of the last step or its pickle,
            `...` if it has none.

        """

@final
class DescriptorCheck:
    """Descriptors and the files to which they refer now: a cheap way to check later that they are unchanged.

    Args:
        descriptors: The descriptors; a closed one counts as unchanged while it stays closed.

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
        """Return `True` if each descriptor refers to the same file as when this object was created."""

@final
class PrivateMap:
    """A private memory map of a part of a file: writes change neither the file nor other maps of it.

    A readable and writable buffer; a view of it keeps it alive. It needs no descriptor once it is created.

    Args:
        fd: An open file that can be read.
        offset: Where the part begins; a multiple of the size of a page.
        length: Its length in bytes.
        owner: An object to keep alive as long as the map.

    Raises:
        OSError: It cannot be mapped.
        ValueError: The length is 0, or the part reaches beyond the last page of the file.

    """

    def __new__(cls, fd: int, offset: int, length: int, owner: object = None) -> PrivateMap: ...
    def __len__(self) -> int:
        """Return the number of bytes."""

def punch_hole(fd: int, offset: int, length: int) -> None:
    """Deallocate the memory or the disk space of a part of a file; that part then reads as zeros.

    Raises:
        OSError: The file system does not support it.

    """
