"""The planners: each minimises a cost over action blocks."""
