"""Progress of a run while it goes on: `run(progress=True)`.

```
scheduler's counters ◀──sample, a few times a second── a thread of the view ──▶ rich bar │ line │ notebook │ log lines
```

Nothing is told by steps or workers: a thread looks at the counters that a run has anyway, so a step costs the same with
and without. One view at a time: a run inside a run, or beside one, shows nothing.
"""

from flowyml.progress.display import Progress, shown

__all__ = ["Progress", "shown"]
