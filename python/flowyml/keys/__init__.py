"""Keys by content: what a value, and what a function, comes down to."""
