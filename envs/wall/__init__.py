"""The Wall: a dot in two rooms joined by a door."""
