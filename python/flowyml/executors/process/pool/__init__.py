"""The processes of a pool, as the driver sees them: what they are started with, their guardian, how each ended."""
