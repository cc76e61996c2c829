"""Values in memory, arenas and files; caches and journals on disk."""
