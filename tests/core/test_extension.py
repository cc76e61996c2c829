"""The extension and the Python files fit together, and where they do not one error says what to do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowyml
from flowyml import _core

PACKAGE = Path(flowyml.__file__).parent

# What stands where the extension is looked for: as it would be with an older, a newer and no extension.
UNFIT = {
    "older than the stamp": (
        "sys.modules['flowyml._core'] = other = types.ModuleType('_core')\nother.__spec__ = flowyml.__spec__",
        "is missing, older than the Python files next to it, or not built for ",
    ),
    "built from another stub": (
        (
            "import flowyml._core as real\n"
            "sys.modules['flowyml._core'] = other = types.SimpleNamespace(**vars(real))\n"
            "other.stub = lambda: b'another'"
        ),
        "is older or newer than the Python files next to it",
    ),
    "built for the lock": (
        "sys.abiflags = 't'  # as of a free-threaded build, which finds files of the stable ABI, too",
        "was built for Python with the GIL, and this Python has none",
    ),
    "missing": ("sys.modules['flowyml._core'] = None", "is missing, older than "),
}


def test_the_extension_was_built_from_the_stub_that_lies_beside_the_python_files() -> None:
    assert _core.stub() == (PACKAGE / "_core.pyi").read_bytes()


def test_all_come_to_the_extension_by_the_module_that_checks_it() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    direct = re.compile(r"^(from|import) flowyml\._core", re.MULTILINE)
    assert [path.name for path, text in sources.items() if direct.search(text)] == []


@pytest.mark.parametrize("case", UNFIT)
def test_an_extension_that_does_not_fit_is_one_error_that_says_what_to_do(case: str) -> None:
    if case == "built for the lock" and not str(_core.__file__).endswith(".abi3.so"):
        pytest.skip("this one was built for this Python alone")
    before, says = UNFIT[case]
    code = f"import flowyml, sys, types\n{before}\nfrom flowyml import Pipeline\nPipeline('p')"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("ImportError: flowyml's extension _core ")
    assert says in last
    assert "make develop" in last


def test_import_flowyml_does_not_load_the_extension() -> None:
    subprocess.run([sys.executable, "-c", "import flowyml, sys; assert 'flowyml._core' not in sys.modules"], check=True)
