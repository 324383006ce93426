"""Pickles that name classes as DINO-WM's do."""

import inspect
import sys
from types import ModuleType

import pytest

from models.networks import proprio, vit, vqvae


@pytest.fixture
def dino_wm_names(monkeypatch):
    """Let our networks be pickled under the names that DINO-WM gave its own."""
    for ours, theirs in {proprio: "models.proprio", vit: "models.vit", vqvae: "models.vqvae"}.items():
        stand_in = ModuleType(theirs)
        for name, kind in inspect.getmembers(ours, inspect.isclass):
            if kind.__module__ == ours.__name__:
                monkeypatch.setattr(kind, "__module__", theirs)
                setattr(stand_in, name, kind)
        monkeypatch.setitem(sys.modules, theirs, stand_in)
