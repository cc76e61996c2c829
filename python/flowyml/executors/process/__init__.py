"""Workers as processes of their own: guardian, pool, dispatch loop, and what runs in a worker."""
