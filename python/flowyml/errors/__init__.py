"""Every exception that flowyml raises, in one tree with one base.

```
FlowymlError
├── PipelineValidationError (ValueError)   a pipeline that cannot run: all problems in one message
│   └── CycleError                         ... and the only problem is a cycle
├── StepError                              a step failed: raised by raise_for_failure()
├── OutputMismatchError                    a step returned something else than its declared outputs
├── StepTimeoutError (TimeoutError)        a step was over its time
├── FanOutError                            what a mapped step was to run over is no list, or no two alike
├── MemoryLimitError (MemoryError)         a step took more memory than its worker may have
├── MapTaskError                           too few items of a map task succeeded
├── WorkerLostError                        the process that ran a step died in it
├── CircuitOpenError                       a step was not started: its circuit breaker is open
├── RemoteError                            stands for an exception of a worker that cannot be rebuilt here
├── SerializationError                     a function, argument or result does not pickle
├── ValueLoadError                         a value arrived and does not load
├── MemoryBudgetError (MemoryError)        a value found no room, neither in memory nor on disk
├── StepNotRunError (LookupError)          a value is asked for and there is none
├── ExecutorError (RuntimeError)           an executor cannot do its work
├── StoreError (RuntimeError)              a folder of cached values or journals cannot be used
└── GraphError (ValueError)                what the core found wrong; the plan puts it into words
RemoteTraceback (Exception)                never raised: the `__cause__` of what was raised in a worker, as text
RunInterrupted (KeyboardInterrupt)         Ctrl-C ended a run; carries the partial result
```

This is the public place of all of them, which pickles and tracebacks name; the modules beside it part them by what went
wrong. None knows of pipelines or workers. Each class takes its data as arguments, keeps it as attributes and builds its
message from it, so that it pickles and a message is written in one place.
"""

from __future__ import annotations

from flowyml.errors.pipelines import (
    CycleError,
    GraphError,
    PipelineValidationError,
)
from flowyml.errors.root import (
    FlowymlError,
)
from flowyml.errors.runs import (
    ExecutorError,
    RunInterrupted,
)
from flowyml.errors.steps import (
    CircuitOpenError,
    FanOutError,
    MapTaskError,
    MemoryLimitError,
    OutputMismatchError,
    RemoteError,
    RemoteTraceback,
    StepError,
    StepTimeoutError,
    WorkerLostError,
    describe_exit,
)
from flowyml.errors.values import (
    MemoryBudgetError,
    SerializationError,
    StepNotRunError,
    StoreError,
    ValueLoadError,
)

__all__ = [
    "CircuitOpenError",
    "CycleError",
    "ExecutorError",
    "FanOutError",
    "FlowymlError",
    "GraphError",
    "MapTaskError",
    "MemoryBudgetError",
    "MemoryLimitError",
    "OutputMismatchError",
    "PipelineValidationError",
    "RemoteError",
    "RemoteTraceback",
    "RunInterrupted",
    "SerializationError",
    "StepError",
    "StepNotRunError",
    "StepTimeoutError",
    "StoreError",
    "ValueLoadError",
    "WorkerLostError",
    "describe_exit",
]

for _name in __all__:
    globals()[_name].__module__ = __name__
