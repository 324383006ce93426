"""Weights that other programs wrote: one adapter a layout, and nothing in a file is executed."""
