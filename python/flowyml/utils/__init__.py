"""Public paths of the documentation."""
