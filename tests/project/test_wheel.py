"""What the wheel holds and where it runs; `make wheel` names the wheel in FLOWYML_WHEEL."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import flowyml


@pytest.fixture(scope="module")
def wheel() -> zipfile.ZipFile:
    name = os.environ.get("FLOWYML_WHEEL")
    if name is None:
        pytest.skip("no wheel in FLOWYML_WHEEL: `make wheel` builds one and runs this")
    return zipfile.ZipFile(name)


def test_the_installed_package_is_what_is_tested(wheel: zipfile.ZipFile) -> None:
    assert Path(flowyml.__file__).is_relative_to(sysconfig.get_path("platlib"))
    extension = importlib.import_module("flowyml._core")
    assert Path(extension.__file__).is_relative_to(sysconfig.get_path("platlib"))


def test_one_extension_for_every_python(wheel: zipfile.ZipFile) -> None:
    assert "-cp311-abi3-" in Path(wheel.filename).name
    assert [name for name in wheel.namelist() if name.endswith((".so", ".pyd", ".dylib"))] == ["flowyml/_core.abi3.so"]


def test_the_extension_does_not_tell_where_it_was_built(wheel: zipfile.ZipFile) -> None:
    assert f"{Path.home()}/.cargo".encode() not in wheel.read("flowyml/_core.abi3.so")


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("readelf") is None, reason="needs ELF and binutils")
def test_the_debug_information_of_the_extension_is_in_a_file_of_its_own(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    extension = Path(wheel.extract("flowyml/_core.abi3.so", tmp_path))
    assert ".debug_line" not in sections(extension)
    assert ".gnu_debuglink" in sections(extension)
    assert ".debug_line" in sections(Path(wheel.filename).with_name("libflowyml.so.debug"))


def sections(binary: Path) -> set[str]:
    """Return the names of the sections of an ELF file."""
    shown = subprocess.run(["readelf", "-S", "-W", binary], check=True, capture_output=True, text=True).stdout
    return {word for word in shown.split() if word.startswith(".")}


def test_types_and_licence_are_in_it(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {"flowyml/__init__.py", "flowyml/py.typed", "flowyml/_core.pyi"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_nothing_else_is_in_it(wheel: zipfile.ZipFile) -> None:
    strange = [name for name in wheel.namelist() if not name.startswith("flowyml/") and ".dist-info/" not in name]
    assert strange == []
    assert {Path(name).suffix for name in wheel.namelist() if name.startswith("flowyml/")} == {
        ".py",
        ".pyi",
        ".so",
        ".typed",
    }


def test_the_command_is_installed(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert wheel.read(name).decode().split() == ["[console_scripts]", "flowyml=flowyml.cli:main"]


def test_a_plain_install_needs_cloudpickle_only(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_string(wheel.read(name).decode())
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert [line.partition(">")[0] for line in needed] == ["cloudpickle"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
