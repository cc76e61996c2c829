"""What driver and workers exchange: messages, values, functions, exceptions, log records, shared memory."""
