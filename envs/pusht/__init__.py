"""PushT: a disc pushes a T over a table."""

ACTION_SCALE = 100.0
"""Pixels in a unit of a raw action."""
PROPRIO = (0, 1, 5, 6)
"""Entries of a state: the agent's place and velocity."""
