"""Worker processes: the driver's side of a run, the worker's side, their protocol, the pool, and the supervisor."""
