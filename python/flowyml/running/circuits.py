"""The circuits of one run: which steps are refused before they are begun.

```
claim ──▶ the next ready items, cut so that they are alike ──▶ no circuit, or admitted: to the worker
                                                          └─▶ refused: reported as failed, and on to the next
report ──▶ record ──▶ Circuit (steps/breakers.py): closed, open, half open
```

All in the driver, the same for every executor: steps with a circuit are claimed one at a time and no earlier than they
are begun, so none begins once the circuit is open. Steps without one go on in batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.errors import CircuitOpenError
from flowyml.steps.breakers import Circuit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowyml._core import Batch
    from flowyml.planning.forms import Form
    from flowyml.running.run import Run


class Refusal:
    """The report on items that were not begun; see `Run.complete`."""

    def __init__(self, items: list[int], error: CircuitOpenError, now: float) -> None:
        self.start = now
        self.ends = [now] * len(items)
        self.failures: list[tuple[int, int, BaseException]] = [(k, item, error) for k, item in enumerate(items)]


class Circuits:
    """The circuits of one run, one for each breaker.

    Args:
        run: The run.
        forms: The forms whose steps have a breaker.
    """

    def __init__(self, run: Run, forms: Iterable[Form]) -> None:
        self._run = run
        self._circuits: dict[int, Circuit] = {}
        self._of_form: dict[int, Circuit] = {}
        self.extend(forms)
        # How many items are worth claiming at once: what is cut off goes back.
        self._reach = 1

    def extend(self, forms: Iterable[Form]) -> None:
        """Take in further forms."""
        for form in forms:
            breaker: Any = form.options.circuit_breaker
            circuit = self._circuits.setdefault(id(breaker), Circuit(breaker, breaker.name or form.step.name))
            self._of_form[id(form)] = circuit

    def of(self, item: int) -> Circuit | None:
        """Return the circuit that an item is under; a fallback is under none."""
        run = self._run
        circuit = self._of_form.get(id(run.plan.forms[run.layout.node_at(item)]))
        return None if circuit is None or item in run.fallen else circuit

    def claiming(self, claim: Callable[..., Batch | None]) -> Callable[..., Batch | None]:
        """Return a way to claim that reports what is refused, and returns what may begin."""

        def careful(worker: int, limit: int, now: float, timeout: float = 0.0) -> Batch | None:
            while (batch := claim(worker, min(limit, self._reach), now, timeout)) is not None:
                items = batch.items()
                count = self._alike(items, now)
                self._reach = max(1, 2 * count)
                if count < len(items):
                    self._run.scheduler.give_back(batch, 0, len(items))
                    limit = count
                    continue
                circuit = self.of(items[0])
                refusal = None if circuit is None else circuit.admit(items[0], now)
                if refusal is None:
                    return batch
                self._run.trials.refused.update(items)
                self._run.complete(batch, 0, Refusal(items, refusal, now))
            return None

        return careful

    def _alike(self, items: list[int], now: float) -> int:
        """Return how many of the first items may go together: all without a circuit, all that one refuses, or one."""
        circuit = self.of(items[0])
        if circuit is not None and not circuit.refuses(items[0], now):
            return 1
        return next((k for k, item in enumerate(items) if self.of(item) is not circuit), len(items))

    def passed(self, batch: Batch) -> None:
        """Take in that the steps of a batch have succeeded."""
        if len(batch) == 1:
            self.record(batch.items()[0], None, 0.0)

    def record(self, item: int, error: BaseException | None, now: float) -> None:
        """Take in what an item raised; `None` for a value."""
        circuit = self.of(item)
        if circuit is not None and isinstance(error, CircuitOpenError):
            circuit.release(item)  # refused, here or by another breaker inside the step
        elif circuit is not None:
            circuit.record(item, error, now)

    def skipped(self, item: int) -> None:
        """Take in that an item was skipped, which says nothing about what it would have called."""
        circuit = self.of(item)
        if circuit is not None:
            circuit.release(item)
