"""Drivers that are killed with SIGKILL at random moments: what had ended never runs again, and the end is the same.

FLOWYML_KILLS=25 kills each kind of executor so many times; without it a few must do.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("FLOWYML_KILLS", "5"))

DRIVER = '''
"""Runs one pipeline in the folder that it is given; each step notes its end, the driver notes what it has heard."""

import json, os, random, sys, time
from flowyml import *

def note(file, what):
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{what}\\n".encode())
    os.close(fd)

def work(name, least=0.0, most=0.01):
    time.sleep(random.Random(name).uniform(least, most))
    note("log", name)

def rows(count):
    work("rows")
    return [{"row": k, "texts": {str(k), "x"}} for k in range(count)]

def clean(row, factor):
    work(f"clean[{row['row']}]", most=0.04 if row["row"] % 7 == 0 else 0.004)
    return row["row"] * factor

def halves(clean):
    work("halves")
    return sum(clean[::2]), bytes(100_000) + bytes([len(clean)])

def link(value, k):
    work(f"link_{k}", 0.002)
    return value + k

def never():
    raise AssertionError

def maybe(even=None, never=None):
    work("maybe")
    return [even, never]

def shaky(k):
    if random.random() < 0.5:
        raise OSError(k)
    work(f"shaky_{k}")
    return k

def last(links, maybe, odd, texts):
    work("last")
    return [links, maybe, len(odd), odd[-1], texts]

pipeline = Pipeline("killed", enable_checkpointing=True, checkpoint_dir="runs")
pipeline.add_step(rows, params={"count": 40}).map(clean, over="rows", params={"factor": 3})
pipeline.add_step(halves, inputs=["clean"], outputs=["even", "odd"])
pipeline.add_step(never, condition=lambda: False).add_step(maybe, run_if="any")
for k in range(12):
    pipeline.add_step(link, f"link_{k}", {"k": k}, inputs={"value": f"link_{k - 1}" if k else "even"})
for k in range(6):
    pipeline.add_step(shaky, f"shaky_{k}", {"k": k}, retry=20)
pipeline.map(lambda k: work(f"texts[{k}]", most=0.02) or str(k) * 3, range(20), name="texts")
pipeline.add_step(last, inputs={"links": "link_11"}, after=[f"shaky_{k}" for k in range(6)])
pipeline.hooks.on_step_end(lambda step, result: note("heard", result.step_name) if result.success else None)

if sys.argv[1] == "local":
    executor = LocalExecutor()
else:
    executor = ParallelExecutor(int(sys.argv[2]), backend=sys.argv[1])
result = pipeline.run(executor=executor)
result.raise_for_failure()
print(json.dumps([result["last"], [str(each.state) for each in result.step_results.values() if each.skipped]]))
'''


def lines(path: Path) -> Counter[str]:
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


def driver(folder: Path, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "driver.py", *kind.split()]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def undisturbed(folder: Path, kind: str) -> str:
    done, told = driver(folder, kind).communicate(timeout=50)
    assert (folder / "log").exists(), told
    (folder / "log").unlink()
    (folder / "heard").unlink()
    return done


@pytest.mark.timeout(60 + 6 * KILLS)
@pytest.mark.parametrize("kind", ["local", "thread 3", "process 1", "process 3", "async 3"])
def test_what_had_ended_never_runs_again_and_the_end_is_the_same(tmp_path, kind):
    (tmp_path / "driver.py").write_text(DRIVER)
    rng, kills, finished = random.Random(kind), 0, 0
    expected = undisturbed(tmp_path, kind)
    assert expected.count('"skipped"') == 1
    heard: dict[str, int] = {}
    while kills < KILLS or heard:
        process, log = driver(tmp_path, kind), tmp_path / "log"
        before = log.stat().st_size if log.exists() else 0
        if kills < KILLS:
            wait_for_progress(process, log, before)
            time.sleep(rng.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        done, told = process.communicate(timeout=50)
        counts = lines(log)
        assert {name: counts[name] for name in heard} == heard, told
        heard = {name: counts[name] for name in lines(tmp_path / "heard") if counts[name]}
        assert max(counts.values()) <= kills + 1
        if process.returncode == 0:
            assert done == expected
            assert list((tmp_path / "runs").glob("*/journal")) == []
        if process.returncode == 0 or has_ended(tmp_path, counts):
            log.unlink()
            (tmp_path / "heard").unlink()
            heard, finished = {}, finished + 1
    assert finished


def has_ended(folder: Path, counts: Counter[str]) -> bool:
    """Tell whether a driver was killed when its run had ended well, and the journal was about to go or gone."""
    journals = [path.read_bytes() for path in (folder / "runs").glob("*/journal")]
    return counts["last"] > 0 and all(b"success" in each[-40:] for each in journals)


def wait_for_progress(process: subprocess.Popen[str], log: Path, before: int) -> None:
    """Wait until a step more has ended, or the driver has."""
    while process.poll() is None and (not log.exists() or log.stat().st_size <= before):
        time.sleep(0.005)
