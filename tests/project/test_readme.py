"""The README and docs/ are true: their Python runs, the commands and the linked files exist.

The Python blocks of a page run in order, as one script without a guard, in an empty directory; the README's blocks run
after the preamble of the project's page.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowyml
import flowyml.errors

DOCS = sorted(Path(__file__).parents[2].glob("docs/**/*.md"))
PAGES = [page for page in DOCS if "\n```python\n" in page.read_text(encoding="utf-8")]
# Other libraries that a page uses: without them (there may be no wheel for this Python) the page is skipped.
LIBRARIES = {"migrating.md": ["dask", "joblib"]}
# Pages whose console blocks are the output of their Python blocks.
SHOW_OUTPUT = {"graph.md", "messages.md", "sub-pipelines.md"}
# Files of a user, in examples.
EXAMPLES = {"daily.py", "nightly.py"}


def blocks(readme: Path, *languages: str) -> list[str]:
    """Return the fenced code blocks in one of the languages."""
    fenced = re.findall(r"^```(\w+)\n(.*?)^```$", readme.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [text for language, text in fenced if language in languages]


def test_python_blocks_run(root: Path, tmp_path: Path) -> None:
    snippets = blocks(root / "README.md", "python")
    if not snippets:
        pytest.skip("the README has no Python")
    preamble = (Path(__file__).parent / "page" / "preamble.py").read_text()
    (tmp_path / "readme.py").write_text("\n".join([preamble, *snippets]))
    done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, text=True, capture_output=True, timeout=50)
    # The only thing said on stderr is the record about the step that the README lets fail.
    told = [
        "pipeline 'halves': 1 item of 1 mapped step failed, result.success is False",
        "  half[2] (failed): ValueError: 5 is odd",
    ]
    assert (done.returncode, done.stderr.splitlines()) == (0, told), done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_of_the_documentation_run(page: Path, tmp_path: Path) -> None:
    for library in LIBRARIES.get(page.name, []):
        pytest.importorskip(library)
    (tmp_path / "page.py").write_text("\n".join(blocks(page, "python")))
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"], cwd=tmp_path, text=True, capture_output=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    shown = {anonymous(line) for line in "\n".join(blocks(page, "console", "text")).splitlines() if line.strip()}
    if page.name in SHOW_OUTPUT:
        printed = {anonymous(line) for line in (done.stdout + done.stderr).splitlines()}
        assert shown <= printed, shown - printed


def anonymous(line: str) -> str:
    """Return a line of output without the names of files and the numbers of lines, which differ in the test."""
    line = re.sub(r'File "[^"]*", line \d+', "File, line", line)
    return re.sub(r"[^\s(]+\.py:\d+", "FILE", line)


def test_verbs_exist(checkout: Path) -> None:
    text = (checkout / "README.md").read_text(encoding="utf-8")
    shell = "\n".join(blocks(checkout / "README.md", "sh", "bash", "shell", "console"))
    named = set(re.findall(r"`make ([a-z]+)", text)) | set(re.findall(r"\bmake ([a-z]+)", shell))
    verbs = set(re.findall(r"^([a-z]+):", (checkout / "Makefile").read_text(), flags=re.MULTILINE))
    assert named <= verbs


def test_files_exist(checkout: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (checkout / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not (checkout / link).exists()] == []


def test_modules_that_documents_name_exist(checkout: Path) -> None:
    """A module that is renamed must not leave its old name behind; a name may leave out the first directories."""
    names = {
        f"/{path.relative_to(checkout)}"
        for directory in ("python", "rust", "tests", "benches", "examples")
        for path in (checkout / directory).rglob("*.*")
    }
    for document in [checkout / "ARCHITECTURE.md", checkout / "README.md", *DOCS]:
        prose = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        named = set(re.findall(r"`([\w/]+\.(?:py|pyi|rs))`", prose)) - EXAMPLES
        assert [name for name in named if not any(path.endswith(f"/{name}") for path in names)] == [], document


def test_the_api_reference_has_every_public_name(root: Path) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (root / "docs" / "api").glob("*.md"))
    documented = set(re.findall(r"^::: flowyml\.(\w+)$", pages, flags=re.MULTILINE))
    assert set(flowyml.__all__) - documented - set(flowyml.errors.__all__) == set()


def test_methods_that_the_architecture_names_exist(checkout: Path) -> None:
    named = re.findall(r"`[A-Z]\w+\.(\w+)`", (checkout / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    sources = [*(checkout / "python").rglob("*.py*"), *(checkout / "rust").rglob("*.rs")]
    defined = {
        name
        for source in sources
        if source.suffix in {".py", ".pyi", ".rs"}
        for name in re.findall(r"\b(?:def|fn) (\w+)", source.read_text(encoding="utf-8"))
    }
    assert set(named) - defined == set()
    assert len(named) > 5
