"""Read-only views of a run that has ended."""
