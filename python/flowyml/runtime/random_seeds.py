"""Random numbers under `run(seed=)`: each step begins with generators of its own, derived from seed and step name.

```
seed, "fit[3]" ──derived()──▶ 64 bits ──begin()──▶ random, and numpy.random once it is there
```

Neither the attempt nor the worker nor the order takes part, so every backend gives a step the same numbers. numpy is
not imported for this: while it is not there, an import hook waits for it and seeds it when the step imports it.
The module knows nothing of steps or runs.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from flowyml.hashing import blake2b

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_NUMPY = "numpy.random"
_WORD = 1 << 32


def derived(seed: int, *names: object) -> int:
    """Return the 64 bits that belong to these names under a seed.

    >>> derived(1, "fit") == derived(1, "fit"), derived(1, "fit") == derived(2, "fit")
    (True, False)
    """
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def begin(seed: int) -> None:
    """Seed `random` and numpy's global generator of this process."""
    import random

    random.seed(seed)
    numpy = _loaded_numpy()
    if numpy is not None:
        _seed_numpy(numpy, seed)
    else:
        _NumpyImportHook.seed = seed
        if _watch not in sys.meta_path:
            sys.meta_path.insert(0, _watch)


def end() -> None:
    """Seed the generators from the operating system again."""
    seed = getattr(sys.modules.get("random"), "seed", None)
    if seed is not None:  # else it will begin with numbers of its own
        seed()
    _stop_watching()
    numpy = _loaded_numpy()
    if numpy is not None:
        numpy.seed()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Give the generators their present states back after the block."""
    import random

    state, numpy = random.getstate(), _loaded_numpy()
    numpy_state = None if numpy is None else numpy.get_state()
    try:
        yield
    finally:
        end()
        random.setstate(state)
        if numpy is not None:
            numpy.set_state(numpy_state)


def _loaded_numpy() -> Any:
    """Return `numpy.random` if it has been imported, to its end."""
    module = sys.modules.get(_NUMPY)
    return module if hasattr(module, "set_state") else None


def _seed_numpy(numpy: Any, seed: int) -> None:
    numpy.seed([seed % _WORD, seed // _WORD])


class _NumpyImportHook:
    """An import hook that seeds `numpy.random` when it is imported."""

    seed = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _NUMPY:
            return None
        _stop_watching()
        found = (finder.find_spec(name, path, target) for finder in list(sys.meta_path))
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _SeedingLoader(spec.loader)  # type: ignore[assignment]
        return spec


class _SeedingLoader:
    """Loads a module as its loader does, then seeds it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        _seed_numpy(module, _NumpyImportHook.seed)


_watch: Any = _NumpyImportHook()


def _stop_watching() -> None:
    with contextlib.suppress(ValueError):
        sys.meta_path.remove(_watch)
