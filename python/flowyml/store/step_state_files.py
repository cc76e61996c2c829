"""Files of values that steps have saved while they ran: one directory per step, one file per name.

```
checkpoints/steps/<pipeline>/<step>/<name>      magic, format │ checksum, kind (one byte), value
```

A step that was killed finds its values when it runs again, in any later run. The driver removes them at the end of a
run in which the step has succeeded.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flowyml.diagnostics.text import did_you_mean
from flowyml.errors import StoreError
from flowyml.store.blobs import write_atomically
from flowyml.store.directories import check_format, check_owner, file_name, private_directory, remove_if_empty
from flowyml.store.serialization import SIZE, SerializedValue, decoded, encoded, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMAT = 2
_START = struct.Struct("<14sH")
_MAGIC = b"flowyml state\n"
_STEPS = "steps"


class StepStateFiles:
    """Named values in one directory.

    Args:
        directory: The directory; created when something is saved.
        owner: The step or run to which they belong, for messages.
    """

    def __init__(self, directory: Path, owner: str) -> None:
        self._directory = directory
        self._owner = owner

    def names(self) -> list[str]:
        """Return the names of the saved values, the oldest first."""
        try:
            paths = [path for path in self._directory.iterdir() if not path.name.startswith(".")]
            paths.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        except OSError:
            return []
        return [unquote(path.name) for path in paths]

    def exists(self, name: str) -> bool:
        """Return True if a value is saved under a name."""
        return self._path(name).is_file()

    def save(self, name: str, value: Any) -> None:
        """Save a value; it replaces an earlier one.

        Raises:
            SerializationError: If it cannot be pickled.
            OSError: If it cannot be written; an earlier value remains.
        """
        serialized = packed(encoded(value))
        private_directory(self._directory)
        start = _START.pack(_MAGIC, FORMAT)
        data = start + serialized.checksum + serialized.kind + serialized.data
        write_atomically(self._path(name), data, durable=True)

    def load(self, name: str) -> Any:
        """Return a saved value.

        Raises:
            KeyError: If there is none, with near matches.
            StoreError: If it is damaged, has the format of another version, or belongs to another user.
        """
        path = self._path(name)
        try:
            check_owner(path)
            data = path.read_bytes()
        except FileNotFoundError:
            hint = did_you_mean(name, self.names())
            raise KeyError(f"{self._owner} has saved nothing under {name!r}{hint}") from None
        magic, version = _START.unpack_from(data) if len(data) >= _START.size else (b"", 0)
        if magic == _MAGIC:
            check_format(path, version, FORMAT, "delete it, so that its step starts from the beginning")
        checksum, data = data[_START.size : _START.size + SIZE], data[_START.size + SIZE :]
        value = SerializedValue(data[:1], data[1:])
        if magic != _MAGIC or value.checksum != checksum:
            raise StoreError(str(path), "is damaged: its content is not what was saved")
        return decoded(unpacked(value))

    def clear(self) -> None:
        """Remove all saved values, and the directory unless it contains other files."""
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            with contextlib.suppress(OSError), path.open("rb") as file:
                if file.read(len(_MAGIC)) == _MAGIC:
                    path.unlink()
        remove_if_empty(self._directory)

    def _path(self, name: str) -> Path:
        return self._directory / file_name(name)


def states_of_step(root: Path, pipeline: str, step: str) -> StepStateFiles:
    """Return the saved values of a step."""
    return StepStateFiles(root / _STEPS / file_name(pipeline) / file_name(step), f"step {step!r}")


def remove_succeeded(root: Path, pipeline: str, has_succeeded: Callable[[str], bool]) -> None:
    """Remove the saved values of the steps that have succeeded."""
    directory = root / _STEPS / file_name(pipeline)
    with contextlib.suppress(OSError):
        steps = [path for path in directory.iterdir() if path.is_dir()]
        for path in [path for path in steps if has_succeeded(unquote(path.name))]:
            StepStateFiles(path, "").clear()
        remove_if_empty(directory)
