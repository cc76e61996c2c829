"""The paths under which the documentation of 2.x has some of the names; their homes are elsewhere."""
