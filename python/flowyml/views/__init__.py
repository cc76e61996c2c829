"""A plan, looked at: as a graph of names, as a picture, and step by step in words."""
