"""Mutation testing of the pure core: for each mutant that cargo-mutants lists, some test must fail.

    python tests/mutants/suite.py                            # all: `make mutants`
    python tests/mutants/suite.py --re scheduler/expand      # those whose names match

One build has all mutants (`sources.py`), and each test says first which of them it reaches. So a mutant costs only the
tests that reach it, the quick ones first, until one fails: the whole takes some four minutes of CPU time. Which files
and tests are meant is in `.cargo/mutants.toml`. What does not compile with the others is left to cargo-mutants:
`--rest` runs it for these. Prints the mutants that survive; what is known of them is in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sources import Mutant, Source, mutant_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SETTINGS = tomllib.loads((ROOT / ".cargo" / "mutants.toml").read_text())
WORK = ROOT / "target" / "switched"
# Tests of less than so many seconds of CPU time run in one process.
_QUICK = 0.02
_BYTES = 3 << 30
"""Memory that a test may use: some mutants make endless lists."""


class Test(NamedTuple):
    """A test: its binary, its name, its CPU time in seconds, the mutants that it reaches."""

    binary: str
    name: str
    seconds: float
    reached: frozenset[int]


class Result(NamedTuple):
    """What became of a mutant: caught, killed (it ran too long, or crashed), missed or not reached; by which tests."""

    mutant: Mutant
    outcome: str
    tests: str


def listed() -> list[Mutant]:
    """Return all mutants, numbered from 1."""
    found = subprocess.run(["cargo", "mutants", "--list", "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return [Mutant.read(number, each) for number, each in enumerate(json.loads(found.stdout), 1)]


class Build:
    """A copy of the crate with mutants in it.

    Attributes:
        mutants: The mutants that are in it.
        left_out: Those that are not, since they do not compile there.
    """

    def __init__(self, mutants: list[Mutant]) -> None:
        self.mutants = mutants
        self.left_out: list[Mutant] = []
        self._copy()
        while not self._compiles():
            pass

    def binaries(self) -> dict[str, Path]:
        """Build the tests; return their binaries by name."""
        done = self._cargo("test", "--no-run", *SETTINGS["additional_cargo_test_args"])
        if done.returncode:
            raise RuntimeError(done.stderr)
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        built = [each for each in messages if each.get("executable") and each["profile"]["test"]]
        return {each["target"]["name"]: Path(each["executable"]) for each in built}

    def _copy(self) -> None:
        for name in ("rust", "tests", "benches"):
            shutil.copytree(ROOT / name, WORK / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py*"))
        for name in ("Cargo.toml", "Cargo.lock"):
            shutil.copy2(ROOT / name, WORK / name)
        shutil.copy2(HERE / "mutation.rs", WORK / "rust" / "mutation.rs")
        root = WORK / "rust" / "lib.rs"
        root.write_text(
            re.sub(r"^(pub )?mod ", r"pub mod mutation;\n\n\g<0>", root.read_text(), count=1, flags=re.MULTILINE)
        )

    def _compiles(self) -> bool:
        """Write the sources and check them; leave out what does not compile, and say whether there was nothing to."""
        wrong = self._write() | {number for error in self._errors() for number in self._numbers(error)}
        self.left_out += [each for each in self.mutants if each.number in wrong]
        self.mutants = [each for each in self.mutants if each.number not in wrong]
        print(f"{len(self.mutants):,} mutants in one build, {len(self.left_out):,} left out", file=sys.stderr)
        return not wrong

    def _write(self) -> set[int]:
        """Write the sources; return the numbers of the mutants that have no place in them."""
        placeless = set()
        for name in {each.file for each in [*self.mutants, *self.left_out]}:
            source = Source((ROOT / name).read_text(), [each for each in self.mutants if each.file == name])
            placeless |= {each.number for each in source.left_out}
            written = source.text()
            if (WORK / name).read_text() != written:
                (WORK / name).write_text(written)
        return placeless

    def _errors(self) -> list[dict[str, Any]]:
        done = self._cargo("check", "--lib")
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        errors = [each["message"] for each in messages if each.get("message", {}).get("level") == "error"]
        errors = [each for each in errors if each["spans"]]
        if done.returncode and not errors:
            raise RuntimeError(done.stderr)
        return errors

    def _numbers(self, error: dict[str, Any]) -> set[int]:
        """Return the mutants that an error is in; if it is around them, those of the lines that the compiler shows."""
        spans = sorted(error["spans"], key=lambda span: not span["is_primary"])
        for span in spans:
            text = (WORK / span["file_name"]).read_bytes()
            number = mutant_at(text, span["byte_start"], span["byte_end"])
            if number is not None:
                return {number}
        found = re.findall(r"mutation::is\((\d+)\)", error["rendered"])
        if not found:
            raise RuntimeError(error["rendered"])
        return {int(number) for number in found}

    def _cargo(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["cargo", verb, "--profile", SETTINGS["profile"], "--message-format=json", *arguments]
        environment = os.environ | {"CARGO_TARGET_DIR": str(WORK / "target")}
        return subprocess.run(command, cwd=WORK, env=environment, capture_output=True, text=True)


class Tests:
    """The tests of a build.

    Args:
        binaries: The binaries by name.
        cases: How many cases a property test draws.
    """

    def __init__(self, binaries: dict[str, Path], cases: int) -> None:
        self.binaries = binaries
        self.cases = cases
        self.all = [self._looked_at(binary, name) for binary in binaries for name in self._names(binary)]

    def result(self, mutant: Mutant) -> Result:
        """Run the tests that reach a mutant until one fails."""
        tests = sorted((each for each in self.all if mutant.number in each.reached), key=lambda each: each.seconds)
        if not tests:
            return Result(mutant, "not reached", "")
        for group in grouped(tests):
            done = self._run(group, 2 + int(10 * sum(each.seconds for each in group)), MUTANT=str(mutant.number))
            if done.returncode:
                outcome = "caught" if done.returncode == 101 else f"killed ({done.returncode})"
                return Result(mutant, outcome, failed_tests(group, done.stdout))
        return Result(mutant, "missed", "")

    def _names(self, binary: str) -> Iterator[str]:
        done = subprocess.run([self.binaries[binary], "--list"], stdout=subprocess.PIPE, text=True, check=True)
        return (line.removesuffix(": test") for line in done.stdout.splitlines() if line.endswith(": test"))

    def _looked_at(self, binary: str, name: str) -> Test:
        """Run a test twice without a mutant: to see what it reaches, and to see how long it takes."""
        test = Test(binary, name, 0, frozenset())
        with tempfile.NamedTemporaryFile() as noted:
            self._must_pass(test, MUTANTS_REACHED=noted.name)
            reached = frozenset(int(line) for line in Path(noted.name).read_text().split())
        before = used()
        self._must_pass(test, MUTANT="0")
        return test._replace(seconds=used() - before, reached=reached)

    def _must_pass(self, test: Test, **environment: str) -> None:
        done = self._run([test], 600, **environment)
        if done.returncode:
            raise RuntimeError(f"{test.name} fails without a mutant:\n{done.stdout}")

    def _run(self, tests: list[Test], seconds: int, **environment: str) -> subprocess.CompletedProcess[str]:
        names = [each.name for each in tests]
        drawn = {"PROPTEST_CASES": str(self.cases), "PROPTEST_MAX_SHRINK_ITERS": "0"}
        drawn["PROPTEST_DISABLE_FAILURE_PERSISTENCE"] = "true"
        return subprocess.run(
            [self.binaries[tests[0].binary], "--exact", "--test-threads=1", "-q", *names],
            env=os.environ | drawn | environment,
            preexec_fn=limited(seconds),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )


def grouped(tests: list[Test]) -> list[list[Test]]:
    """Return the quick tests by binary, then each of the others alone."""
    quick: dict[str, list[Test]] = {}
    for test in tests:
        if test.seconds < _QUICK:
            quick.setdefault(test.binary, []).append(test)
    return [*quick.values(), *([test] for test in tests if test.seconds >= _QUICK)]


def failed_tests(group: list[Test], output: str) -> str:
    """Return the names of the tests of a group that failed; the group if it did not come to telling."""
    failed = [line.strip() for line in output.splitlines() if line.startswith("    ")]
    known = [each.name for each in group]
    names = [name for name in known if name in failed] or known
    return f"{group[0].binary}: {', '.join(names)}"


def limited(seconds: int) -> Callable[[], None]:
    """Return what limits the CPU time and the memory of a process before it runs a test."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return limit


def used() -> float:
    """Return the CPU time of all processes that this one waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_rest(left_out: Iterable[Mutant]) -> int:
    """Run cargo-mutants for some mutants."""
    names = "|".join(re.escape(each.name) for each in left_out)
    return subprocess.run(
        ["cargo", "mutants", "--jobs=1", "--output=target", "--re", f"^({names})$"], cwd=ROOT
    ).returncode


def main() -> int:
    """Build, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--re", default="", help="run only the mutants whose names match")
    parser.add_argument("--cases", type=int, default=300, help="how many cases a property test draws")
    parser.add_argument(
        "--rest", action="store_true", help="run cargo-mutants for those that are left out, and nothing else"
    )
    options = parser.parse_args()
    build = Build(listed())
    chosen = [each for each in build.left_out if re.search(options.re, each.name)]
    if options.rest:
        return run_rest(chosen)
    print(f"{len(chosen):,} of these are left to --rest", file=sys.stderr)
    tests = Tests(build.binaries(), options.cases)
    outcomes = Counter[str]()
    with (WORK / "results.jsonl").open("w") as results:
        for mutant in build.mutants:
            if re.search(options.re, mutant.name):
                result = tests.result(mutant)
                outcomes[result.outcome.partition(" (")[0]] += 1
                results.write(json.dumps([mutant.name, result.outcome, result.tests]) + "\n")
                results.flush()
                if result.outcome in {"missed", "not reached"}:
                    print(f"{result.outcome}: {mutant.name}", flush=True)
    print(", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items())))
    return int(bool(outcomes["missed"] or outcomes["not reached"]))


if __name__ == "__main__":
    sys.exit(main())
