"""Soak: drawn runs full of faults, one after the other, until the time is up. `make soak ARGS="--minutes 30"`.

Each round draws another size, rate of faults, backend and number of workers from its seed; what differs from what was
computed, what is left behind and what hangs is printed with the seed that shows it again (`--seed N --rounds 1`). Then
drivers are killed at random moments and continued (`kills.py`): `FLOWYML_KILLS` times of each kind in each mode, 25 by
default, 0 for none.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import sys
import threading
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

import chaos
import kills
import worker_pools

from flowyml import LocalExecutor, ParallelExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml import Executor

# A run in which no attempt begins for so long hangs, and every thread says where; a step takes a second at the most.
HANGS = 180.0
BACKENDS = ("process", "process", "process", "thread", "async", "local")


def one_round(seed: int) -> tuple[chaos.Tally, str, bool]:
    """Run one round; return its tally, what it was, and whether processes were left behind."""
    rng = random.Random(seed)
    backend, workers = rng.choice(BACKENDS), rng.choice([1, 2, 2, 8])
    count = rng.choice([10, 300, 3_000, 10_000])
    rate = rng.choice([0.0, 0.001, 0.01, 0.1]) if count > 1_000 else rng.choice([0.01, 0.1, 0.5])
    faults = list(chaos.FAULTS if backend == "process" else chaos.RAISED)
    habits = list(chaos.HABITS) if backend == "process" else ["nothing"]
    what = f"seed {seed}: {count:,} steps on {backend} x {workers}, {rate:.1%} faults"
    mark = os.environ[worker_pools.MARK] = uuid.uuid4().hex
    with TemporaryDirectory() as name, executor_of(backend, workers) as executor, watched(Path(name), what), quiet():
        tally = chaos.run(chaos.draw(seed, count, rate=rate, faults=faults, habits=habits), executor, Path(name))
    left = not worker_pools.eventually(lambda: not worker_pools.marked(mark), 5.0)
    worker_pools.clear(mark)
    return tally, what, left


@contextlib.contextmanager
def watched(folder: Path, what: str) -> Iterator[None]:
    """End this process if nothing is noted in a folder for long."""
    over = threading.Event()

    def watch() -> None:
        size, since = -1, time.monotonic()
        while not over.wait(1.0):
            now = sum(path.stat().st_size for path in folder.iterdir())
            if now != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > HANGS:
                os.write(2, f"{what}: hangs\n".encode())
                faulthandler.dump_traceback(2)
                os._exit(1)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be seen of what the steps print: it goes where the driver's streams go."""
    with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        yield


def executor_of(backend: str, workers: int) -> Executor:
    """Return a fresh executor."""
    return LocalExecutor() if backend == "local" else ParallelExecutor(workers, backend=backend)


def rounds_of_faults(seed: int, minutes: float, most: int | None) -> bool:
    """Go on until the time is up; return whether anything was wrong."""
    total, rounds, left, began = chaos.Tally(), 0, 0, time.monotonic()
    while time.monotonic() - began < 60 * minutes and rounds != most:
        tally, what, dirty = one_round(seed + rounds)
        total.add(tally)
        rounds, left = rounds + 1, left + dirty
        if tally.trouble or dirty or rounds % 20 == 0:
            print(f"{what}: {tally.faults:,} faults{', processes left behind' if dirty else ''}", flush=True)
        for difference in tally.differences:
            print(difference, flush=True)
    print(
        f"{rounds} rounds in {(time.monotonic() - began) / 60:.1f} min: {total.steps:,} steps, {total.faults:,} faults "
        f"injected; wrong {total.wrong}, lost {total.lost}, doubled {total.doubled}, hung 0, "
        f"rounds that left something {left}",
        flush=True,
    )
    return bool(total.trouble or left)


def kills_of_drivers(count: int) -> bool:
    """Kill drivers of each kind in each mode so many times; return whether anything was wrong."""
    total = kills.Kills()
    for kind in kills.KINDS:
        here = kills.Kills()
        for mode in kills.MODES:
            with TemporaryDirectory() as folder:
                here.add(kills.campaign(Path(folder), kind, mode, count))
        print(f"{kind}: {here}", *here.wrong, sep="\n", flush=True)
        total.add(here)
    print(f"all kinds: {total}", flush=True)
    return bool(total.wrong)


def main() -> int:
    """Do all of it; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long rounds are drawn (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round (default: 0)")
    parser.add_argument("--rounds", type=int, help="stop after so many rounds")
    asked = parser.parse_args()
    count = int(os.environ.get("FLOWYML_KILLS", "25"))
    wrong = rounds_of_faults(asked.seed, asked.minutes, asked.rounds)
    return int((kills_of_drivers(count) if count else False) or wrong)


if __name__ == "__main__":
    sys.exit(main())
