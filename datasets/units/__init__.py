"""The border between raw units and what a model sees."""
