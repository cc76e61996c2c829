"""What the wheel holds and where it runs; `make wheel` names the wheel in FLOWYML_WHEEL."""

from __future__ import annotations

import importlib
import os
import shutil
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


def test_the_extension_has_no_debug_information_but_says_where_it_is(wheel: zipfile.ZipFile) -> None:
    extension = wheel.read("flowyml/_core.abi3.so")
    assert b".debug_line" not in extension
    if sys.platform == "linux" and shutil.which("objcopy") is not None:
        assert b"libflowyml.so.debug" in extension
        debug = Path(wheel.filename).with_name("libflowyml.so.debug").read_bytes()
        assert b".debug_line" in debug


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
