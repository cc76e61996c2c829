"""What of a run need not run again: the cache, the journal of an earlier attempt, and what they know a call by."""
