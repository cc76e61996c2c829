"""Reports of a run, made by pure functions: summary, timeline, trace, data frame, HTML page."""
