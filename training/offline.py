"""Plain teacher forcing: how a base model is trained, and the control of every finetuning experiment."""

from __future__ import annotations

from training.method import Method


class Offline(Method):
    """Neither hook is overridden."""
