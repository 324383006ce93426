"""Checkpoints: the native format, and reading, converting and inspecting of all."""
