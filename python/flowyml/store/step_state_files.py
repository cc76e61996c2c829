"""What steps have put aside while they ran, until they end well: one folder a step, one file a name.

```
checkpoints/steps/<pipeline>/<step>/<name>      magic, format │ a checksum, a byte that says how, the value
```

A step that was killed finds its states again when it runs the next time, in whatever run that is. The driver removes
them at the end of a run in which the step has ended well.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flowyml.diagnostics.text import did_you_mean
from flowyml.errors import StoreError
from flowyml.store.blobs import write_whole
from flowyml.store.directories import check_owner, file_name, private_folder, remove_emptied
from flowyml.store.serialization import SIZE, SerializedValue, decoded, encoded, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMAT = 1
_START = struct.Struct("<14sH")
_MAGIC = b"flowyml state\n"
_STEPS = "steps"


class StepStateFiles:
    """Named values in one folder.

    Args:
        folder: The folder; made when something is saved.
        what: Whose they are, for messages.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._folder = folder
        self._what = what

    def names(self) -> list[str]:
        """Return the names of what is saved, the oldest first."""
        try:
            found = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
            found.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        except OSError:
            return []
        return [unquote(path.name) for path in found]

    def exists(self, name: str) -> bool:
        """Tell whether something is saved under a name."""
        return self._path(name).is_file()

    def save(self, name: str, value: Any) -> None:
        """Save a value, in place of what is saved under that name.

        Raises:
            SerializationError: If it does not pickle.
            OSError: If it cannot be written; what was saved before is still there.
        """
        whole = packed(encoded(value))
        private_folder(self._folder)
        start = _START.pack(_MAGIC, FORMAT)
        write_whole(self._path(name), start + whole.checksum + whole.kind + whole.data, durable=True)

    def load(self, name: str) -> Any:
        """Return what is saved under a name.

        Raises:
            KeyError: If there is nothing, with near matches.
            StoreError: If it is damaged, was written by a newer version, or is another user's.
        """
        path = self._path(name)
        try:
            check_owner(path)
            data = _content(path)
        except FileNotFoundError:
            raise KeyError(f"{self._what} has saved nothing under {name!r}{did_you_mean(name, self.names())}") from None
        value = SerializedValue(data[SIZE : SIZE + 1], data[SIZE + 1 :])
        if len(data) <= SIZE or value.checksum != data[:SIZE]:
            raise StoreError(str(path), "is damaged: its content is not what was saved")
        return decoded(unpacked(value))

    def clear(self) -> None:
        """Remove all of them, and the folder if nothing else is in it."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if _is_state(path):
                    path.unlink()
        remove_emptied(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / file_name(name)


def _is_state(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _content(path: Path) -> bytes:
    """Read what stands behind the format; nothing of a file that is none of these.

    Raises:
        StoreError: If its format is newer than what is known here.
    """
    data = path.read_bytes()
    magic, version = _START.unpack_from(data) if len(data) >= _START.size else (b"", 0)
    if magic == _MAGIC and version > FORMAT:
        raise StoreError(str(path), f"has format {version}; this version of flowyml knows up to {FORMAT}")
    return data[_START.size :] if (magic, version) == (_MAGIC, FORMAT) else b""


def of_step(root: Path, pipeline: str, step: str) -> StepStateFiles:
    """Return the states of a step."""
    return StepStateFiles(root / _STEPS / file_name(pipeline) / file_name(step), f"step {step!r}")


def remove_ended(root: Path, pipeline: str, has_ended: Callable[[str], bool]) -> None:
    """Remove the states of the steps that have ended well."""
    folder = root / _STEPS / file_name(pipeline)
    with contextlib.suppress(OSError):
        steps = [path for path in folder.iterdir() if path.is_dir()]
        ended = [path for path in steps if has_ended(unquote(path.name))]
        for path in ended:
            StepStateFiles(path, "").clear()
        remove_emptied(folder)
