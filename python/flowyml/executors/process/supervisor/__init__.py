"""The guardian and what it runs beside it: programs that import nothing else of flowyml."""
