"""What came of a run: read-only views over its flat arrays."""
