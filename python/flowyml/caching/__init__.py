"""Results that need not be computed: the cache, the journal of an earlier attempt, and the keys of calls."""
