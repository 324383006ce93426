"""Kernels for CPUs where torch's own are slow, written in C++ and built at first use."""
