"""The study behind docs/results.md."""
