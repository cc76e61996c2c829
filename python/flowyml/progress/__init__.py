"""Progress of a running pipeline: `run(progress=True)`.

```
scheduler's counters ◀──sampled a few times a second── display thread ──▶ rich bar │ line │ notebook │ log lines
```

Steps and workers report nothing: the thread reads counters that a run has anyway, so a step costs the same with and
without progress. Only one display is active at a time: nested and concurrent runs show nothing.
"""

from flowyml.progress.display import Progress, shown

__all__ = ["Progress", "shown"]
