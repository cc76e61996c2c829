"""What is added to a pipeline: checked, stored in columns, and made into plans."""
