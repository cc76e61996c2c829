"""Summary of a continued run: which finished steps it reuses, and which run again and why."""

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
    """Which results of an earlier attempt a run reuses.

    Args:
        run: The run.
        finished: What the earlier attempts have finished.
        keys: The keys of the run's items.
        reused: The items whose results are reused.
        reasons: Items that had ended and run again although their keys are the same, with the reason.
        before: The summary before anything had run, if that is over.
    """

    def __init__(
        self,
        run: Run,
        finished: JournalIndex,
        keys: JournalKeys,
        reused: Collection[int],
        reasons: Mapping[int, str],
        *,
        before: ResumeSummary | None = None,
    ) -> None:
        self._run = run
        self._finished = finished
        self._keys = keys
        self._reused = reused
        self._reasons = reasons
        self._before = before

    @property
    def _reused_steps(self) -> set[int]:
        return set(map(self._run.item_index.node_at, self._reused))

    # -- the whole run

    def describe(self) -> str:
        """Return the summary in a sentence."""
        parts = [f"{self._count_reused()} taken over"]
        again = self.again
        if again:
            names = self._run.plan.names
            named = [f"{names[node]!r} ({reason})" for node, reason in again.items() if reason is not None]
            dependents, more = len(again) - len(named), len(named) - _MOST_NAMED
            causes = [", ".join(named[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")] if named else []
            if dependents:
                verb = "depends" if dependents == 1 else "depend"
                causes.append(f"{pluralize(dependents, 'step')} that {verb} on what runs again")
            parts.append(f"run{'s' * (len(again) == 1)} again: {' and '.join(causes)}")
        return "; ".join(parts)

    def describe_nothing(self) -> str:
        """Return the sentence for a run that reuses nothing: how many steps and items run again, and why."""
        tallies = self._finished.tallies().values()
        items = sum(tally.ended for tally in tallies if tally.mapped)
        steps = sum(tally.ended for tally in tallies if not tally.mapped)
        return self.describe().replace(self._count_reused(), f"none of {_describe_counts(steps, items)}", 1)

    def describe_later(self) -> str:
        """Return the addition to the sentence before anything has run: results that are looked up later."""
        plan, later = self._run.plan, ""
        numbers, unknown = plan.numbers, self._unknown_steps(self._reused_steps)
        if any(numbers[name] in unknown if name in numbers else plan.is_dynamic for name in self._finished.steps()):
            later = "; what comes with or after a dynamic step, or after what had failed, is looked up as it comes"
        count = len(self._reused_later)
        if count:
            verb, reads = ("is", "it reads") if count == 1 else ("are", "they read")
            steps = pluralize(count, "finished step")
            later += f"; {steps} {verb} taken over later, after the steps that {reads} have run"
        return later

    def _count_reused(self) -> str:
        item_index = self._run.item_index
        nodes = [item_index.node_at(item) for item in self._reused]
        items = sum(item_index.is_mapped(node) for node in nodes)
        return _describe_counts(len(nodes) - items, items)

    # -- one step

    def describe_step(self, node: int) -> str:
        """Return what is reused of one step, or why it runs."""
        run = self._run
        items = run.item_index.items_of(node)
        reused = sum(item in self._reused for item in items)
        if run.item_index.is_mapped(node) and 0 < reused < len(items):
            return f"{reused:,} of {pluralize(len(items), 'item')} taken over"
        if reused:
            return "taken over"
        if run.plan.specs[node].options.dynamic:
            return "runs: a dynamic step is called again in each run"
        if node in self._with_dependents(run.plan.dynamic_steps(), self._reused_steps):
            return "not known before the dynamic step in front of it has run"
        return self._why_it_runs(node)

    def _why_it_runs(self, node: int) -> str:
        nodes = self._reused_steps
        record = self._finished.steps().get(self._run.plan.names[node])
        if record is None:
            return "runs: it had not ended"
        if node in self._with_dependents(self._failed_roots(), nodes):
            return "not known before what had failed in front of it has run"
        if node in self._reused_later:
            return "taken over after the steps that it reads have run"
        return f"runs again: {self._reason(node, record, nodes) or 'what it reads runs again'}"

    # -- which steps run again

    @cached_property
    def again(self) -> dict[int, str | None]:
        """The steps that were finished and run again, with the reason; `None`: they depend on another one."""
        return dict(self._steps_again())

    def _steps_again(self) -> Iterator[tuple[int, str | None]]:
        run = self._run
        if not self._finished and not self._reasons:
            return
        nodes = self._reused_steps
        unknown = self._unknown_steps(nodes)
        for name, record in self._finished.steps().items():
            node = run.plan.numbers.get(name)
            if node is None or node in nodes or node in self._reused_later or run.plan.specs[node].options.given:
                continue
            if self._before is not None and node in self._before.again:
                yield node, self._before.again[node]
            elif node not in unknown if self._before is None else self._has_run(node):
                yield node, self._reason(node, record, nodes)

    def _has_run(self, node: int) -> bool:
        """Return True if a step that was not known before has run; a dynamic step always does."""
        run = self._run
        if run.plan.specs[node].options.dynamic:
            return False
        return any(run.scheduler.state(item) in _HAS_RUN for item in run.item_index.items_of(node))

    @cached_property
    def _reused_later(self) -> set[int]:
        """The steps that are reused after the steps that they read have run: keys contain no values of those."""
        run, finished = self._run, self._finished
        if self._before is not None or not finished:
            return set()
        reused = self._reused_steps
        decided = reused | set(map(run.item_index.node_at, self._reasons))
        unknown = self._unknown_steps(reused)
        keys = JournalKeys(run, lambda _node, _error: None, foresee=True)
        later: set[int] = set()
        for name in finished.steps():
            node = run.plan.numbers.get(name)
            if node is None or node in decided or node in unknown or run.plan.specs[node].options.given:
                continue
            items = run.item_index.items_of(node)
            if len(items):
                is_reused = all(finished.has_ended(keys.key(item)) for item in items)
            else:  # the number of items is known once its dependencies have ended
                is_reused = all(step in decided or step in later for step in run.plan.dependencies_of(node))
            if is_reused:
                later.add(node)
        return later

    def _unknown_steps(self, reused: Collection[int]) -> set[int]:
        """Return the steps of which it is not known before the run whether they run again."""
        return self._with_dependents([*self._run.plan.dynamic_steps(), *self._failed_roots()], reused)

    def _failed_roots(self) -> list[int]:
        """Return the root steps that failed before steps that finished, which are reused if they fail again."""
        plan, begun, key = self._run.plan, self._finished.begun, self._keys.key
        items_of = self._run.item_index.items_of
        roots = (node for node in range(plan.item_index.nodes if begun else 0) if not plan.graph.dependencies(node))
        return [node for node in roots if any(key(item) in begun for item in items_of(node))]

    def _with_dependents(self, nodes: Sequence[int], reused: Collection[int]) -> set[int]:
        """Return the steps among these that are not reused, with all their direct and indirect dependents."""
        todo = [node for node in nodes if node not in reused]
        found: set[int] = set()
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo += self._run.plan.graph.dependents(node)
        return found

    # -- reasons

    def _reason(self, node: int, record: StepKeyRecord, reused: Collection[int]) -> str | None:
        run, parts = self._run, self._keys.parts(node)
        items = run.item_index.items_of(node)
        for item in items:
            if item in self._reasons:
                return self._reasons[item]
        changes = list(differences(record.parts.parts, parts.parts))
        if record.seed != run.seed:
            changes.append("its seed has changed")
        # Arguments cannot be compared once the values that determine which items of a list exist were released.
        can_compare = self._before is None or not run.releases
        if can_compare and all(step in reused for step in run.plan.dependencies_of(node)):
            if record.contents is None or run.item_index.is_mapped(node):
                return ", ".join(changes) or "its items are others"
            contents = self._keys.with_contents(items)[1][0]
            changes += _changed_arguments(
                _arguments(record.parts, record.contents, record.seed), _arguments(parts, contents, run.seed)
            )
            return ", ".join(changes) or "its place among the steps has changed"
        return ", ".join(changes) or None


def _describe_counts(steps: int, items: int) -> str:
    parts = [pluralize(steps, "finished step")] if steps or not items else []
    parts += [pluralize(items, "finished item")] if items else []
    return " and ".join(parts)


def _arguments(parts: KeyParts, contents: bytes, seed: int | None) -> dict[str, bytes]:
    """Return the contents of arguments by name, without the seed, which follows them."""
    names = parts.arguments if seed is None else parts.arguments[:-1]
    return dict(zip(names, split(contents), strict=False))


def _changed_arguments(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> Iterator[str]:
    for name, content in now.items():
        if content.startswith(UNHASHABLE):
            yield f"argument {name!r} cannot be hashed"
        elif before.get(name) != content:
            yield f"argument {name!r} has changed"
    yield from (f"argument {name!r} is gone" for name in before if name not in now)
