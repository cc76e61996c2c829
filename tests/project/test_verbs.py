"""The verbs tell about themselves and about what is lacking, and the repository names nobody's machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VERBS = {
    "help",
    "demo",
    "docs",
    "test",
    "soak",
    "compat",
    "lint",
    "bench",
    "bench-faults",
    "bench-instructions",
    "bench-peers",
    "wheel",
    "develop",
    "format",
    "lock",
    "mutants",
    "hooks",
    "clean",
}


def run(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the checkout, away from a `make` that may run these tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run(command, cwd=cwd, env=kept | env, text=True, capture_output=True, timeout=30)


def fake(folder: Path, name: str, prints: str) -> Path:
    """Write a program that prints one line."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{prints}'\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder for PATH with only the tools of a bare system."""
    for tool in ["bash", "cut", "dirname", "env", "head", "sed", "sort", "sh"]:
        (tmp_path / tool).symlink_to(shutil.which(tool))
    return tmp_path


@pytest.mark.parametrize("words", [["make"], ["make", "help"]])
def test_help_lists_all_verbs(words: list[str], checkout: Path) -> None:
    listed = run(*words, cwd=checkout).stdout
    assert set(re.findall(r"^  ([a-z-]+)  ", listed, flags=re.MULTILINE)) == VERBS


def test_every_verb_is_phony(checkout: Path) -> None:
    """A file of that name must not stop it."""
    phony = re.search(r"^\.PHONY: (.*)$", (checkout / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(phony[1].split()) >= VERBS


def test_ci_runs_lint_docs_test_and_the_count_of_instructions(checkout: Path) -> None:
    script = checkout / ".ci" / "run"
    assert os.access(script, os.X_OK)
    stages = re.findall(r"^stage (.*)$", script.read_text(), flags=re.MULTILINE)
    assert stages == ["make lint", "make docs", "make test", "make bench-instructions"]


def test_missing_cargo_is_one_line(checkout: Path, bare: Path) -> None:
    told = run(str(checkout / ".ci" / "toolchain"), "rust", cwd=checkout, PATH=str(bare))
    assert told.returncode == 1
    assert re.fullmatch(r"flowyml: cargo is not there; install Rust [\d.]+ or newer.*\n", told.stderr)


def test_old_cargo_is_one_line(checkout: Path, bare: Path) -> None:
    fake(bare, "cargo", "cargo 1.63.0")
    told = run(str(checkout / ".ci" / "toolchain"), "rust", cwd=checkout, PATH=str(bare))
    assert told.returncode == 1
    assert re.fullmatch(r"flowyml: cargo is 1\.63\.0; install Rust [\d.]+ or newer.*\n", told.stderr)


def test_a_missing_linker_is_one_line(checkout: Path, bare: Path) -> None:
    fake(bare, "cargo", "cargo 999.0.0")
    told = run(str(checkout / ".ci" / "toolchain"), "rust", cwd=checkout, PATH=str(bare))
    assert told.returncode == 1
    assert re.fullmatch(r"flowyml: no C compiler to link with.*\n", told.stderr)


def test_missing_python_is_one_line(checkout: Path) -> None:
    told = run(str(checkout / ".ci" / "toolchain"), "python", "no-such-python", cwd=checkout)
    assert told.returncode == 1
    assert re.fullmatch(r"flowyml: no-such-python is not there; install Python 3\.11 or newer.*\n", told.stderr)


def test_a_good_toolchain_is_silent(checkout: Path) -> None:
    told = run(str(checkout / ".ci" / "toolchain"), "python", sys.executable, cwd=checkout)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def tracked_text(checkout: Path) -> dict[str, str]:
    """Return the files that git knows (or would know), by name."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=checkout)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [checkout / name for name in listed.stdout.splitlines()]
    return {str(path): path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()}


def test_no_file_names_a_path_of_a_machine(checkout: Path) -> None:
    places = [r"/home/\w", r"/Users/\w", re.escape(f"{checkout}/")]
    if len(Path.home().parts) > 1:
        places.append(rf"(?<![\w.]){re.escape(str(Path.home()))}/")
    found = re.compile("|".join(places))
    here = Path(__file__).name
    assert [name for name, text in tracked_text(checkout).items() if found.search(text) and here not in name] == []


def test_no_file_names_a_registry(checkout: Path) -> None:
    hosts = ["pypi" + ".org", "crates" + ".io", "deb.debian" + ".org"]
    texts = {name: text for name, text in tracked_text(checkout).items() if not name.endswith(".lock")}
    assert [name for name, text in texts.items() if any(host in text for host in hosts)] == []
