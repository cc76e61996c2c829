"""Reports: pure functions of a result or of a graph."""
