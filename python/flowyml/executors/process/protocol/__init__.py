"""What goes between driver and workers, and both ends of it: frames, values, functions, exceptions, shared memory."""
