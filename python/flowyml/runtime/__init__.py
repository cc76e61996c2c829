"""One run: scheduler, values, failures and what happens on the way, the same for every executor."""
