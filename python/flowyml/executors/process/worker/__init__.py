"""What runs in a worker process, and in the template that it is forked from."""
