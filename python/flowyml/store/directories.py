"""Private directories, safe file names and format checks for files that are unpickled later.

Unpickling a file runs code, so a store reads only files that belong to the current user and that nobody else can write.
"""

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
_MAX_NAME_LENGTH = 150
_GITIGNORE, _IGNORE_ALL = ".gitignore", "*\n"


def private_directory(path: Path) -> Path:
    """Create a directory that only its owner can read, or check an existing one; return its absolute path.

    A new directory gets a `.gitignore` that keeps it out of git.

    Raises:
        StoreError: If it belongs to another user, or everybody can write to it.
        OSError: If it cannot be created.
    """
    path = path.absolute()
    try:
        path.mkdir(_PRIVATE, parents=True)
    except FileExistsError:
        check_owner(path)
    else:
        (path / _GITIGNORE).write_text(_IGNORE_ALL)
    return path


def remove_if_empty(path: Path) -> None:
    """Remove a directory created by `private_directory` if it contains nothing but its `.gitignore`."""
    with contextlib.suppress(OSError):
        gitignore = path / _GITIGNORE
        if list(path.iterdir()) == [gitignore] and gitignore.read_text() == _IGNORE_ALL:
            gitignore.unlink()
        path.rmdir()


def file_name(text: str) -> str:
    """Return a file name for any string; `urllib.parse.unquote` reverses it unless the string is too long.

    >>> file_name("nightly-3"), file_name("../a b"), len(file_name("x" * 1000))
    ('nightly-3', '%2E.%2Fa%20b', 167)
    """
    name = quote(text, safe="@+=,[]", errors="surrogatepass") or "%"
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    return f"{name[:_MAX_NAME_LENGTH]}-{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


def check_owner(path: Path) -> None:
    """Refuse a file or directory into which another user may have put something.

    Raises:
        StoreError: If it belongs to another user, or everybody can write to it.
    """
    status = path.stat()
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise StoreError(
            str(path),
            f"belongs to another user (id {status.st_uid}), and loading it would run code from it: "
            "choose a directory of your own, or become its owner",
        )
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise StoreError(str(path), "is writable by everybody, and loading it would run code from it: chmod o-w it")


def check_format(path: Path, found: int, expected: int, remedy: str) -> None:
    """Refuse a file of an older or newer format: its pickles may name modules that this version does not have.

    Raises:
        StoreError: If the formats differ; says what to do.
    """
    if found != expected:
        age = "an older" if found < expected else "a newer"
        raise StoreError(
            str(path),
            f"has format {found} of {age} version of flowyml, and this version reads format {expected}: {remedy}",
        )
