"""The supervisor and its modules: programs that import nothing else of flowyml."""
