"""Helpers that know nothing of world models."""
