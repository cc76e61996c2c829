"""Count the instructions of the core's hot paths under callgrind: `make bench-instructions`.

Instructions do not depend on what else the machine does, so a regression of some percent shows where a clock would
show noise. Each case of `instructions.rs` runs once; its count is compared with that in `instructions.json`, and more
than `TOLERANCE` above it is an error. Fewer is good news: `--write` takes the counts over.

Another compiler makes other code. Counts of another one than the table was made with are told and not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

_HERE = Path(__file__).parent
_TABLE = _HERE / "instructions.json"
# The allocator and the loader add a little that differs from machine to machine.
TOLERANCE = 0.03


def main() -> int:
    """Build, count, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="take the counts over into the table")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not there; install it (Debian, Ubuntu: apt-get install valgrind)")
    binary, compiler = _built(), _compiler()
    cases = subprocess.run([binary], capture_output=True, text=True, check=True).stdout.split()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # instructions are the same on a busy machine
        counts = dict(zip(cases, pool.map(_count, repeat(binary), cases), strict=True))
    if options.write:
        _TABLE.write_text(json.dumps({"compiler": compiler, "instructions": counts}, indent=1) + "\n")
    table = json.loads(_TABLE.read_text())
    comparable = table["compiler"] == compiler
    worse = [case for case in cases if not _tell(case, counts[case], table["instructions"].get(case))]
    if not comparable:
        print(f"not compared: the table was made with {table['compiler']}, this is {compiler}")
    elif worse:
        print(f"more than {TOLERANCE:.0%} above the table: {', '.join(worse)}")
    return int(comparable and bool(worse))


def _tell(case: str, count: int, before: int | None) -> bool:
    """Print a line; return whether the count is not above the table."""
    change = f"{count / before - 1:+.1%}" if before else "new"
    print(f"  {case:<26}{count:>14,}{change:>9}", flush=True)
    return before is None or count <= before * (1 + TOLERANCE)


def _built() -> str:
    """Build the binary and return its path."""
    command = ["cargo", "build", "--quiet", "--release", "--bin", "instructions", "--features", "instructions"]
    command += ["--message-format=json"]
    done = subprocess.run(command, cwd=_HERE.parent, stdout=subprocess.PIPE, text=True, check=True)
    told = map(json.loads, filter(None, done.stdout.splitlines()))
    return next(each["executable"] for each in told if each.get("target", {}).get("name") == "instructions")


def _compiler() -> str:
    done = subprocess.run(["rustc", "--version"], cwd=_HERE.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _count(binary: str, case: str) -> int:
    """Return the instructions of one case."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        command += ["--collect-atstart=no", "--toggle-collect=*instructions*measured*", binary, case]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None or not int(found[1]):
        sys.exit(f"{case} was not counted:\n{done.stderr}")
    return int(found[1])


if __name__ == "__main__":
    sys.exit(main())
