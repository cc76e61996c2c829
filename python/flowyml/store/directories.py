"""Folders for files that are unpickled later: this user's alone, since to unpickle a file is to run it."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING
from urllib.parse import quote

from flowyml.errors import StoreError
from flowyml.hashing import blake2b

if TYPE_CHECKING:
    from pathlib import Path

_PRIVATE = 0o700
_LONGEST = 150
_IGNORED, _ALL = ".gitignore", "*\n"


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
        (folder / _IGNORED).write_text(_ALL)
    return folder


def remove_emptied(folder: Path) -> None:
    """Remove a folder that `private_folder` has made, if nothing is in it any more."""
    with contextlib.suppress(OSError):
        ignored = folder / _IGNORED
        if list(folder.iterdir()) == [ignored] and ignored.read_text() == _ALL:
            ignored.unlink()
        folder.rmdir()


def file_name(text: str) -> str:
    """Return a name for a file that stands for any text; `urllib.parse.unquote` takes it back, if it is not too long.

    >>> file_name("nightly-3"), file_name("../a b"), len(file_name("x" * 1000))
    ('nightly-3', '%2E.%2Fa%20b', 167)
    """
    name = quote(text, safe="@+=,[]", errors="surrogatepass") or "%"
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


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
