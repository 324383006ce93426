"""Latents of whole data sets, made once: in memory or on disk."""
