"""Modules and kernels that replace the plain ones of a built network and compute the same faster."""
