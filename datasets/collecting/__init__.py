"""Collecting data sets with scripted experts."""
