"""What the tests of the stores share: file systems that are full, or that cannot be written to."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[..., str]:
    """Run Python with a small file system of its own mounted on `disk`; skips where that is not allowed.

    The code may say `remount("ro")`. It returns what the code printed, then what it wrote to stderr.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    enter = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]

    def run(code: str, size: str = "1m") -> str:
        start = (
            "import subprocess, sys\n"
            "def remount(how):\n"
            f"    subprocess.run(['mount', '-o', f'remount,{{how}}', {str(disk)!r}], check=True)\n"
            f"disk = {str(disk)!r}\n"
        )
        mount = f'mount -t tmpfs -o size={size} tmpfs {disk} || exit 77; exec {sys.executable} -c "$CODE"'
        done = subprocess.run(
            [*enter, "sh", "-c", mount],
            env={**os.environ, "CODE": start + code},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        if done.returncode == 77 or "unshare" in done.stderr:
            pytest.skip("no file system can be mounted here")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run
