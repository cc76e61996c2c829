"""The processes of a pool, as the driver sees them: how they are started, and how they exited."""
