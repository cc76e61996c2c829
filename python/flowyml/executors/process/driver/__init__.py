"""The driver's side of a run on worker processes: assigns steps, receives results, enforces limits."""
