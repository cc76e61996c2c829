"""One run on worker processes, as the driver leads it: who gets which steps, what comes back, who looks after it."""
