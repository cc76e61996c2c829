"""What a step is: its function, what is declared of it, how it wants to be run. Knows neither pipelines nor runs."""
