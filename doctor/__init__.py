"""Looks whether everything is there that this repository needs; imported by nothing."""
