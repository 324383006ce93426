"""Recorded trajectories: reading them, cutting them into training windows, collecting new ones."""
