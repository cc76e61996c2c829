"""Folders for files that are unpickled later: this user's alone, since to unpickle a file is to run it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from flowyml.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

_PRIVATE = 0o700


def private_folder(folder: Path) -> Path:
    """Make a folder that nobody else can look into, or take one that is there; return its absolute path.

    What is made here keeps itself out of git.

    Raises:
        StoreError: If it is another user's, or everybody may write to it.
        OSError: If it cannot be made.
    """
    folder = folder.absolute()
    try:
        folder.mkdir(_PRIVATE, parents=True)
    except FileExistsError:
        check_owner(folder)
    else:
        (folder / ".gitignore").write_text("*\n")
    return folder


def check_owner(path: Path) -> None:
    """Refuse a file or folder into which somebody else may have put something.

    Raises:
        StoreError: If it is another user's, or everybody may write to it.
    """
    status = path.stat()
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise StoreError(
            str(path),
            f"belongs to another user (id {status.st_uid}), and what stands in it would be run: "
            "choose a folder of your own, or become its owner",
        )
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise StoreError(str(path), "can be written by everybody, and what stands in it would be run: chmod o-w it")
