"""Readers that trust no file: none runs what it holds, or takes more time or memory than its size allows."""
