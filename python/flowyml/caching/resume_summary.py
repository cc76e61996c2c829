"""What a run that continues another has taken over, and what runs again, and why: in plain words."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from flowyml.caching.journal_keys import JournalKeys
from flowyml.caching.keys import UNHASHABLE, split
from flowyml.diagnostics.text import pluralize
from flowyml.hashing.fingerprint import differences
from flowyml.state import FAILED, SUCCESS, TIMED_OUT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from flowyml.caching.journal_index import JournalIndex, StepKeyRecord
    from flowyml.caching.keys import KeyParts
    from flowyml.runtime.run import Run

_MOST_NAMED = 5
_HAS_RUN = {SUCCESS, FAILED, TIMED_OUT}


class ResumeSummary:
    """What became of what was finished before.

    Args:
        run: The run that continues.
        finished: What was finished.
        keys: The keys of the run's items.
        taken: The items that were taken over.
        again: Items that had ended and run again, with the reason.
        before: What was known before anything had run, if that is over; `None` before.
    """

    def __init__(
        self,
        run: Run,
        finished: JournalIndex,
        keys: JournalKeys,
        taken: Collection[int],
        again: Mapping[int, str],
        *,
        before: ResumeSummary | None = None,
    ) -> None:
        self._run = run
        self._finished = finished
        self._keys = keys
        self._taken = taken
        self._unread = again
        self._before = before

    def told(self) -> str:
        """Return it in a sentence."""
        parts = [f"{self._how_many()} taken over"]
        again = self.again
        behind = [node for node, reason in again.items() if reason is None]
        first = [f"{self._run.plan.names[node]!r} ({reason})" for node, reason in again.items() if reason is not None]
        if again:
            more = len(first) - _MOST_NAMED
            named = ", ".join(first[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
            tail = (
                f"{pluralize(len(behind), 'step')} that depend{'s' * (len(behind) == 1)} on what runs again"
                if behind
                else ""
            )
            parts.append(f"run{'s' * (len(again) == 1)} again: {' and '.join(filter(None, (named, tail)))}")
        return "; ".join(parts)

    def to_come(self) -> str:
        """Return what is to be said beside it before anything has run."""
        names = self._run.plan.numbers
        taken = {self._run.layout.node_at(item) for item in self._taken}
        unknown = self._not_yet_known(taken)
        grows = self._run.plan.is_dynamic
        told = ""
        if any(names[name] in unknown if name in names else grows for name in self._finished.steps()):
            told = "; what comes with or after a dynamic step, or after what had failed, is looked up as it comes"
        if self._follows:
            is_one = len(self._follows) == 1
            verb, reads = ("is", "it reads") if is_one else ("are", "they read")
            steps = pluralize(len(self._follows), "finished step")
            told += f"; {steps} {verb} taken over later, after the steps that {reads} have run"
        return told

    def none_of(self) -> str:
        """Return the sentence if nothing is taken over: how many steps and items run again, and why."""
        tallies = self._finished.tallies().values()
        items = sum(each.ended for each in tallies if each.mapped)
        steps = sum(each.ended for each in tallies if not each.mapped)
        parts = [pluralize(steps, "finished step")] if steps or not items else []
        parts += [pluralize(items, "finished item")] if items else []
        return self.told().replace(self._how_many(), f"none of {' and '.join(parts)}", 1)

    @cached_property
    def _follows(self) -> set[int]:
        """The steps that are taken over after the steps that they read have run: keys hold no values of those."""
        run, known = self._run, self._finished
        if self._before is not None or not known:
            return set()
        taken = {run.layout.node_at(item) for item in self._taken}
        unread = {run.layout.node_at(item) for item in self._unread}
        known_later = self._not_yet_known(taken)
        keys = JournalKeys(run, lambda _node, _error: None, foresee=True)
        found: set[int] = set()
        for name in known.steps():
            node = run.plan.numbers.get(name)
            if node is None or node in taken | unread | known_later or run.plan.forms[node].options.given:
                continue
            items = run.layout.items_of(node)
            if len(items):
                follows = all(known.knows(keys.key(item)) for item in items)
            else:  # how many there are is known once what it reads is there
                follows = all(each in taken | unread | found for each in run.plan.waits_for(node))
            if follows:
                found.add(node)
        return found

    @cached_property
    def again(self) -> dict[int, str | None]:
        """The steps that were finished and run again, with the reason; `None`: they depend on another."""
        return dict(self._again())

    def of(self, node: int) -> str:
        """Return what becomes of one step: what was taken over of it, or why it runs."""
        run = self._run
        items = run.layout.items_of(node)
        taken = sum(item in self._taken for item in items)
        if run.layout.is_mapped(node) and 0 < taken < len(items):
            return f"{taken:,} of {pluralize(len(items), 'item')} taken over"
        if taken:
            return "taken over"
        nodes = {run.layout.node_at(item) for item in self._taken}
        if run.plan.forms[node].options.dynamic:
            return "runs: a dynamic step says anew which steps there are"
        if node in self._behind(run.plan.dynamic_steps(), nodes):
            return "not known before the dynamic step in front of it has run"
        return self._why_it_runs(node, nodes)

    def _why_it_runs(self, node: int, taken: Collection[int]) -> str:
        before = self._finished.steps().get(self._run.plan.names[node])
        if before is None:
            return "runs: it had not ended"
        if node in self._behind(self._failed_before(), taken):
            return "not known before what had failed in front of it has run"
        if node in self._follows:
            return "taken over after the steps that it reads have run"
        return f"runs again: {self._reason(node, before, taken) or 'what it reads runs again'}"

    def _how_many(self) -> str:
        layout = self._run.layout
        nodes = [layout.node_at(item) for item in self._taken]
        items = sum(layout.is_mapped(node) for node in nodes)
        parts = [pluralize(len(nodes) - items, "finished step")] if len(nodes) > items or not items else []
        if items:
            parts.append(pluralize(items, "finished item"))
        return " and ".join(parts)

    def _again(self) -> Iterator[tuple[int, str | None]]:
        run = self._run
        if not self._finished and not self._unread:
            return
        nodes = {run.layout.node_at(item) for item in self._taken}
        unknown = self._not_yet_known(nodes)
        for name, before in self._finished.steps().items():
            node = run.plan.numbers.get(name)
            if node is None or node in nodes or node in self._follows or run.plan.forms[node].options.given:
                continue
            if self._before is not None and node in self._before.again:
                yield node, self._before.again[node]
            elif node not in unknown if self._before is None else self._has_run(node):
                yield node, self._reason(node, before, nodes)

    def _has_run(self, node: int) -> bool:
        """Tell whether a step that was not known before has run, which a dynamic one does each time."""
        run = self._run
        if run.plan.forms[node].options.dynamic:
            return False
        return any(run.scheduler.state(item) in _HAS_RUN for item in run.layout.items_of(node))

    def _not_yet_known(self, taken: Collection[int]) -> set[int]:
        """Return the steps of which nobody knows before the run whether they run again."""
        dynamic = self._run.plan.dynamic_steps()  # they say once more what runs
        return self._behind([*dynamic, *self._failed_before()], taken)

    def _failed_before(self) -> list[int]:
        """Return the first steps that failed, with something finished behind them: it stays so if they fail again."""
        plan, begun, key = self._run.plan, self._finished.begun, self._keys.key
        items_of = self._run.layout.items_of
        first = (node for node in range(plan.layout.nodes if begun else 0) if not plan.graph.dependencies(node))
        return [node for node in first if any(key(item) in begun for item in items_of(node))]

    def _behind(self, nodes: Sequence[int], taken: Collection[int]) -> set[int]:
        """Return those of these steps that are not taken over, and all steps behind them."""
        todo = [node for node in nodes if node not in taken]
        found: set[int] = set()
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo += self._run.plan.graph.dependents(node)
        return found

    @property
    def _has_contents(self) -> bool:
        """Whether arguments can be compared: not once the values are gone that tell what of a list is there."""
        return self._before is None or not self._run.releases

    def _reason(self, node: int, before: StepKeyRecord, taken: Collection[int]) -> str | None:
        plan, made = self._run.plan, self._keys.made(node)
        changes = list(differences(before.made.parts, made.parts))
        items = self._run.layout.items_of(node)
        unread = next((self._unread[item] for item in items if item in self._unread), None)
        if unread is not None:
            return unread
        if before.seed != self._run.seed:
            changes.append("its seed has changed")
        if self._has_contents and all(each in taken for each in plan.waits_for(node)):
            if before.contents is None or self._run.layout.is_mapped(node):
                return ", ".join(changes) or "its items are others"
            now = self._keys.with_contents(items)[1][0]
            changes += _changed_arguments(
                _arguments(before.made, before.contents, before.seed), _arguments(made, now, self._run.seed)
            )
            return ", ".join(changes) or "its place among the steps has changed"
        return ", ".join(changes) or None


def _arguments(made: KeyParts, contents: bytes, seed: int | None) -> dict[str, bytes]:
    """Return the contents of arguments by name, without the seed, which stands behind them."""
    names = made.arguments if seed is None else made.arguments[:-1]
    return dict(zip(names, split(contents), strict=False))


def _changed_arguments(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> Iterator[str]:
    for name, content in now.items():
        if content.startswith(UNHASHABLE):
            yield f"argument {name!r} cannot be hashed"
        elif before.get(name) != content:
            yield f"argument {name!r} has changed"
    yield from (f"argument {name!r} is gone" for name in before if name not in now)
