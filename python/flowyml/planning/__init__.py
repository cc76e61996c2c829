"""From what was added to a plan: where each parameter gets its value from, who waits for whom. Knows no runs."""
