"""One pipeline, run in the working directory by a driver that is going to be killed; `kills.py` starts it.

`killed.py BACKEND WORKERS MODE`: each step notes its end in `log`, the driver in `had` what it has counted as done, and
when. The modes: see `kills.py`.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, dynamic
from flowyml.caching.lookup import ResultLookup
from flowyml.state import SUCCESS

if TYPE_CHECKING:
    from flowyml.runtime.extension import FinishedItems

TINY = 150


def note(file: str, what: str) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{what}\n".encode())
    os.close(fd)


def work(name: str, least: float = 0.0, most: float = 0.01) -> None:
    time.sleep(random.Random(name).uniform(least, most))
    note("log", name)


def rows(count: int) -> list[dict[str, Any]]:
    work("rows")
    return [{"row": k, "texts": {str(k), "x"}} for k in range(count)]


def clean(row: dict[str, Any], factor: int) -> int:
    work(f"clean[{row['row']}]", most=0.04 if row["row"] % 7 == 0 else 0.004)
    return int(row["row"] * factor)


def halves(clean: list[int]) -> tuple[int, bytes]:
    work("halves")
    return sum(clean[::2]), bytes(100_000) + bytes([len(clean)])


def link(value: int, k: int) -> int:
    work(f"link_{k}", 0.002)
    return value + k


def tiny(value: int, k: int) -> int:
    note("log", f"tiny_{k}")
    return value + k


def pause(tinies: int) -> int:
    """Let nothing end for a while: what was held back by then must have been written."""
    work("pause", 0.25, 0.35)
    return tinies


def never() -> None:
    raise AssertionError


def maybe(even: Any = None, never: Any = None) -> list[Any]:
    work("maybe")
    return [even, never]


def shaky(k: int) -> int:
    if random.random() < 0.5:
        raise OSError(k)
    work(f"shaky_{k}")
    return k


@dynamic
def grow(even: int) -> Pipeline:
    inner = Pipeline("inner").map(lambda k: work(f"grow.leaf[{k}]", most=0.004) or k + even, range(8), name="leaf")
    return inner.add_step(lambda leaf: work("grow.both") or sum(leaf), name="both")


def last(links: int, tinies: int, maybe: list[Any], odd: bytes, texts: list[str], grow: int) -> list[Any]:
    work("last")
    return [links, tinies, maybe, len(odd), odd[-1], texts, grow]


def pipeline(mode: str) -> Pipeline:
    durability: Any = "always" if mode == "always" else "batch"
    made = Pipeline(
        "killed", enable_checkpointing=True, checkpoint_dir="runs", durability=durability, cache_dir="cache"
    )
    cached = mode == "cache"
    made.add_step(rows, params={"count": 40}).map(clean, over="rows", params={"factor": 3}, cache=cached)
    made.add_step(halves, inputs=["clean"], outputs=["even", "odd"])
    made.add_step(never, condition=lambda: False).add_step(maybe, run_if="any").add_step(grow)
    for k in range(12):
        before = f"link_{k - 1}" if k else "even"
        made.add_step(link, f"link_{k}", {"k": k}, inputs={"value": before}, cache=cached and k % 2 == 0)
    for k in range(6):
        made.add_step(shaky, f"shaky_{k}", {"k": k}, retry=20)
    made.map(lambda k: work(f"texts[{k}]", most=0.02) or str(k) * 3, range(20), name="texts")
    before = ["maybe", "grow", "texts", *(f"shaky_{k}" for k in range(6))]
    for k in range(TINY):
        inputs = {"value": f"tiny_{k - 1}" if k else "link_11"}
        made.add_step(tiny, f"tiny_{k}", {"k": k}, inputs=inputs, after=None if k else before)
    made.add_step(pause, inputs={"tinies": f"tiny_{TINY - 1}"})
    made.add_step(last, inputs={"links": "link_11", "tinies": "pause"})
    if mode == "hooks":
        made.hooks.on_step_end(lambda step, result: note("heard", result.step_name) if result.success else None)
    return made


def noting(ended: Any) -> Any:
    """Have the driver note what it has counted as done, and when."""

    def noted(self: ResultLookup, finished: FinishedItems) -> None:
        ended(self, finished)
        now, run, states = time.monotonic(), self._run, finished.states
        done = [item for k, item in enumerate(finished.items()) if states is None or states[k] == SUCCESS]
        note(
            "had", "\n".join(f"{now} {os.getpid()} {run.item_name(item)}" for item in done) or f"{now} {os.getpid()} -"
        )

    return noted


def beginning(begin: Any) -> Any:
    """Have somebody look at what the run counts as done: workers in the driver count by themselves."""

    def begun(self: ResultLookup) -> None:
        threading.Thread(target=look, args=(self._run,), daemon=True).start()
        begin(self)

    return begun


def look(run: Any) -> None:
    """Note what has ended since the last look, and that the driver lives while nothing ends."""
    seen: set[int] = set()
    while True:
        new = {item for item, state in enumerate(run.scheduler.states()) if state == SUCCESS} - seen
        seen |= new
        names = [*map(run.item_name, new), "-"]
        note("had", "\n".join(f"{time.monotonic()} {os.getpid()} {name}" for name in names))
        time.sleep(0.02)


if __name__ == "__main__":
    backend, workers, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    ResultLookup.on_items_finished = noting(ResultLookup.on_items_finished)  # type: ignore[method-assign]
    ResultLookup.on_run_started = beginning(ResultLookup.on_run_started)  # type: ignore[method-assign]
    made = LocalExecutor() if backend == "local" else ParallelExecutor(workers, backend=backend)  # type: ignore[arg-type]
    with made as executor:
        result = pipeline(mode).run(executor=executor)
    result.raise_for_failure()
    skipped = [str(each.state) for each in result.step_results.values() if each.skipped]
    print(json.dumps([result["last"], skipped]))
